"""What the workers of test_queues.py run: Celery's application, and functions that RQ calls by name."""

import os

import celery

ADDRESS = os.environ.get("NEARSIDE_ADDRESS", "127.0.0.1:6379")

app = celery.Celery("queue_tasks", broker=f"redis://{ADDRESS}/0", backend=f"redis://{ADDRESS}/0")
if os.environ.get("NEARSIDE_TEST_UPSTREAM") == "cluster":
    # Celery changes several keys in one transaction: on a cluster they need a hash tag in common.
    options = {"global_keyprefix": "{celery}"}
    app.conf.update(broker_transport_options=options, result_backend_transport_options=options)
app.conf.update(broker_connection_retry_on_startup=True)


@app.task
def add(left, right):
    return left + right


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def succeeds_at_the_third_try(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


def double(number):
    return number * 2


def fail():
    raise ValueError("as it should")

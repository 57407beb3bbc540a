"""Queues that others have built on Redis, with a worker of their own: Celery and RQ."""

import os
import pathlib
import subprocess
import sys
import time

import celery
import pytest
import redis
import rq

import queue_tasks

IS_CLUSTER = os.environ.get("NEARSIDE_TEST_UPSTREAM") == "cluster"
PATIENCE_S = 60

pytestmark = pytest.mark.skipif(
    IS_CLUSTER and "NEARSIDE_ADMIN" not in os.environ, reason="without Nearside a client of one server cannot use a cluster"
)


@pytest.fixture
def worker(tmp_path):
    """Starts a worker; shows what it said when the test fails, and ends it."""
    processes = []
    log = tmp_path / "worker.log"

    def start(*command):
        folder = pathlib.Path(__file__).parent
        with open(log, "ab") as output:
            command = [sys.executable, "-m", *command]
            processes.append(subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output))

    yield start
    for process in processes:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    print(log.read_text())


def test_celery(worker):
    worker("celery", "-A", "queue_tasks", "worker", "--concurrency", "2", "--loglevel", "info")
    results = [queue_tasks.add.delay(number, number) for number in range(50)]
    assert [result.get(timeout=PATIENCE_S) for result in results] == [2 * number for number in range(50)]
    assert queue_tasks.succeeds_at_the_third_try.delay().get(timeout=PATIENCE_S) == 2
    chord = celery.chord((queue_tasks.add.s(number, 1) for number in range(10)), queue_tasks.total.s())
    assert chord.delay().get(timeout=PATIENCE_S) == 55
    # By publish and subscribe.
    assert [list(answer.values()) for answer in queue_tasks.app.control.ping(timeout=5)] == [[{"ok": "pong"}]]


@pytest.mark.skipif(IS_CLUSTER, reason="RQ changes keys of several slots in one transaction")
def test_rq(worker, port):
    with redis.Redis(port=port) as client:
        queue = rq.Queue(connection=client)
        jobs = [queue.enqueue(queue_tasks.double, number) for number in range(20)]
        failing = queue.enqueue(queue_tasks.fail)
        worker("rq.cli", "worker", "--url", f"redis://127.0.0.1:{port}")
        assert [finished(job).return_value() for job in jobs] == [2 * number for number in range(20)]
        assert finished(failing).is_failed and "as it should" in failing.latest_result().exc_string
        dependent = queue.enqueue(queue_tasks.double, 21, depends_on=jobs[0])
        assert finished(dependent).return_value() == 42


def finished(job):
    deadline = time.monotonic() + PATIENCE_S
    while job.get_status(refresh=True) not in ("finished", "failed"):
        assert time.monotonic() < deadline, job.get_status()
        time.sleep(0.05)
    return job

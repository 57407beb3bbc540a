"""The client's own distributed lock."""

import pytest
import redis


def test_nobody_else_is_inside(client, connect, key, at_once):
    def increment():
        own = connect()
        for _ in range(10):
            with own.lock(key("lock"), timeout=30, blocking_timeout=60, sleep=0.005):
                # Not atomic by itself.
                own.set(key("n"), int(own.get(key("n")) or 0) + 1)

    at_once([increment] * 6)
    assert int(client.get(key("n"))) == 60
    assert client.exists(key("lock")) == 0


def test_a_lock_that_is_held_is_not_had(client, key):
    lock, other = client.lock(key("lock"), timeout=30), client.lock(key("lock"), timeout=30)
    assert lock.acquire() is True
    assert other.acquire(blocking=False) is False
    assert lock.extend(10) is True
    lock.release()
    assert other.acquire(blocking=False) is True
    client.delete(key("lock"))
    with pytest.raises(redis.exceptions.LockNotOwnedError):
        other.release()

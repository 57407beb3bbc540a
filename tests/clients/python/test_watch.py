"""Optimistic locking: WATCH, and a loop that tries again."""

import pytest
import redis

CLIENTS, TURNS = 8, 25


def test_no_increment_is_lost_under_contention(client, connect, key, at_once):
    def increment():
        own, lost = connect(), 0
        for _ in range(TURNS):
            while True:
                try:
                    with own.pipeline(transaction=True) as pipeline:
                        pipeline.watch(key("n"))
                        value = int(pipeline.get(key("n")) or 0)
                        pipeline.multi()
                        pipeline.set(key("n"), value + 1)
                        pipeline.execute()
                    break
                except redis.WatchError:
                    lost += 1
        return lost

    lost = sum(at_once([increment] * CLIENTS))
    assert int(client.get(key("n"))) == CLIENTS * TURNS
    # Else nobody was in anybody's way, and this tested nothing.
    assert lost > 0


def test_a_write_by_another_client_is_noticed(client, connect, key):
    other = connect()
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch(key("k"))
        other.set(key("k"), "other")
        pipeline.multi()
        pipeline.set(key("k"), "own")
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert client.get(key("k")) == b"other"


def test_what_is_watched_no_longer_is_not_noticed(client, connect, key):
    other = connect()
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch(key("k"))
        pipeline.unwatch()
        other.set(key("k"), "other")
        pipeline.multi()
        pipeline.set(key("k"), "own")
        pipeline.execute()
    assert client.get(key("k")) == b"own"

"""MULTI and EXEC, as pipelines send them by default."""

import pytest
import redis

# Clients of a cluster give the reply of a SET in a transaction as it came.
OK = (True, b"OK")


def test_a_transaction_gives_every_reply(client, key):
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set(key("k"), "v").get(key("k")).incr(key("n")).rpush(key("l"), 1, 2).lrange(key("l"), 0, -1)
        replies = pipeline.execute()
    assert replies[0] in OK and replies[1:] == [b"v", 1, 2, [b"1", b"2"]]
    assert client.get(key("k")) == b"v"


def test_errors_of_commands_inside(client, key):
    client.set(key("k"), "v")
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set(key("a"), 1).lpush(key("k"), 1).set(key("b"), 2)
        replies = pipeline.execute(raise_on_error=False)
    assert replies[0] in OK and replies[2] in OK
    assert isinstance(replies[1], redis.ResponseError) and "WRONGTYPE" in str(replies[1])
    assert client.mget(key("a"), key("b")) == [b"1", b"2"]


def test_a_command_that_is_none_undoes_all(client, key):
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set(key("a"), 1).execute_command("SET", key("b"))
        with pytest.raises(redis.ResponseError):
            pipeline.execute()
    assert client.get(key("a")) is None


def test_nothing_comes_between(client, connect, key, at_once):
    """Two keys that every transaction changes alike are never read in between."""

    def write():
        writer = connect()
        for turn in range(100):
            with writer.pipeline(transaction=True) as pipeline:
                pipeline.incr(key("a")).incr(key("b")).get(key("a"))
                [first, second, read] = pipeline.execute()
            assert first == second == int(read)

    at_once([write] * 8)
    assert client.mget(key("a"), key("b")) == [b"800", b"800"]

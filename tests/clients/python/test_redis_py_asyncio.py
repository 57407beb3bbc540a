"""redis-py's asyncio client with its default settings."""

import asyncio

import pytest
import redis.asyncio

from test_redis_py import BIG, EVERY_BYTE, WRONG_TYPE

LIMIT_S = 60


def run(port, body):
    async def main():
        async with redis.asyncio.Redis(port=port) as client:
            await asyncio.wait_for(body(client), timeout=LIMIT_S)

    asyncio.run(main())


def test_strings(port):
    async def body(client):
        assert await client.set("k", "v") is True
        assert await client.get("k") == b"v"
        assert await client.get("k") == b"v"
        assert await client.get("nosuch") is None
        assert await client.set("k", "w", nx=True) is None
        assert await client.set("k", "w", get=True) == b"v"
        assert await client.incr("n", 5) == 5
        assert await client.mset({"{t}a": 1, "{t}b": 2}) is True
        assert await client.mget("{t}a", "{t}nosuch", "{t}b") == [b"1", None, b"2"]
        assert await client.delete("{t}a", "{t}b") == 2

    run(port, body)


def test_collections(port):
    async def body(client):
        assert await client.hset("h", mapping={"f": "v", "g": "w"}) == 2
        assert await client.hgetall("h") == {b"f": b"v", b"g": b"w"}
        assert await client.rpush("l", "message", "a", "b") == 3
        assert await client.lrange("l", 0, -1) == [b"message", b"a", b"b"]

    run(port, body)


def test_binary_keys_and_values(port):
    async def body(client):
        for data in [EVERY_BYTE, *(bytes([value]) for value in range(256))]:
            assert await client.set(data, data) is True
            assert await client.get(data) == data
            assert await client.get(data) == data

    run(port, body)


def test_big_values(port):
    async def body(client):
        assert await client.set("k", BIG) is True
        for _ in range(3):
            came_back = await client.get("k") == BIG
            assert came_back

    run(port, body)


def test_the_second_read_is_a_hit(port, cache_hits):
    async def body(client):
        # A key of its own: what other tests have changed time and again is not cached for a while.
        await client.set("read-twice-by-asyncio", "v")
        before = cache_hits()
        assert await client.get("read-twice-by-asyncio") == b"v"
        assert cache_hits() == before
        assert await client.get("read-twice-by-asyncio") == b"v"
        assert cache_hits() == before + 1

    run(port, body)


def test_a_pipeline_without_a_transaction(port):
    async def body(client):
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.set("k", "old").get("k").delete("k").get("k")
            assert await pipeline.execute() == [True, b"old", 1, None]
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(10_000):
                pipeline.set(f"k{number}", number).get(f"k{number}")
            replies = await pipeline.execute()
        assert replies[1::2] == [str(number).encode() for number in range(10_000)]

    run(port, body)


def test_a_killed_client_connects_again(port):
    async def body(client):
        await client.set("k", "v")
        killed = await client.client_id()
        async with redis.asyncio.Redis(port=port) as killer:
            assert await killer.client_kill_filter(_id=killed) == 1
        assert await client.get("k") == b"v"
        assert await client.client_id() != killed

    run(port, body)


def test_killed_upstream_connections_are_made_anew(port, kill_upstream_connections, has_nearside):
    async def body(client):
        await client.set("k", "before")
        assert await client.get("k") == b"before"
        connected_as = await client.client_id()
        kill_upstream_connections()
        while True:
            try:
                await client.set("k", "after")
                break
            except redis.ResponseError as error:
                assert str(error).startswith("UPSTREAM ")
                await asyncio.sleep(0.01)
        assert await client.get("k") == b"after"
        # The client's own connection has not noticed.
        assert (await client.client_id() == connected_as) == has_nearside

    run(port, body)


def test_errors_are_the_servers(port):
    async def body(client):
        await client.rpush("l", 1)
        with pytest.raises(redis.ResponseError, match=f"^{WRONG_TYPE}$"):
            await client.get("l")
        with pytest.raises(redis.ResponseError, match="^unknown command 'NOSUCH'"):
            await client.execute_command("NOSUCH")
        assert await client.ping() is True

    run(port, body)


def test_many_tasks_read_what_they_wrote(port):
    """They share a pool of connections."""

    async def body(client):
        await asyncio.gather(*(write_and_read(client, number) for number in range(50)))
        assert await client.get("total") == b"2500"

    run(port, body)


def test_many_clients_read_what_they_wrote(port):
    async def body(client):
        async def work(number):
            async with redis.asyncio.Redis(port=port) as own:
                await write_and_read(own, number)

        await asyncio.gather(*(work(number) for number in range(50)))
        assert await client.get("total") == b"2500"

    run(port, body)


async def write_and_read(client, number):
    for turn in range(50):
        await client.set(f"task:{number}", turn)
        assert await client.get(f"task:{number}") == str(turn).encode()
        assert await client.get(f"task:{number}") == str(turn).encode()
        await client.incr("total")

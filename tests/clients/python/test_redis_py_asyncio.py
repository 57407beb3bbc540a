"""redis-py's asyncio client with its default settings."""

import asyncio

import redis.asyncio


def run(port, body):
    async def main():
        client = redis.asyncio.Redis(port=port)
        try:
            await asyncio.wait_for(body(client), timeout=30)
        finally:
            await client.aclose()

    asyncio.run(main())


def test_commands(port):
    async def body(client):
        assert await client.set("k", "v") is True
        assert await client.get("k") == b"v"
        assert await client.get("k") == b"v"
        assert await client.get("nosuch") is None
        assert await client.hset("h", mapping={"f": "v"}) == 1
        assert await client.hgetall("h") == {b"f": b"v"}
        assert await client.rpush("l", "message", "a", "b") == 3
        assert await client.lrange("l", 0, -1) == [b"message", b"a", b"b"]

    run(port, body)


def test_a_pipeline_without_a_transaction(port):
    async def body(client):
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.set("k", "old").get("k").delete("k").get("k")
            assert await pipeline.execute() == [True, b"old", 1, None]

    run(port, body)


def test_many_tasks_read_what_they_wrote(port):
    async def body(client):
        async def work(number):
            for turn in range(50):
                await client.set(f"task:{number}", turn)
                assert await client.get(f"task:{number}") == str(turn).encode()

        await asyncio.gather(*(work(number) for number in range(50)))

    run(port, body)

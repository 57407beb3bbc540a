"""redis-py's RedisCluster with its default settings: Nearside is the only node that it is told of, and finds."""

import asyncio
import time

import pytest
import redis
import redis.asyncio
from redis.cluster import LoadBalancingStrategy

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

pytestmark = pytest.mark.usefixtures("cluster_only")


@pytest.fixture
def client(port):
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        yield client


def test_there_is_one_node_that_has_every_slot(client, port):
    [node] = client.get_nodes()
    assert (node.host, node.port, node.server_type) == ("127.0.0.1", port, "primary")
    assert client.get_replicas() == []
    for key in (f"key:{number}" for number in range(100)):
        assert client.get_node_from_key(key) == node
    assert client.cluster_info()["cluster_state"] == "ok"
    [(address, line)] = client.cluster_nodes().items()
    assert address == f"127.0.0.1:{port}"
    assert line["node_id"] == client.cluster_myid(node).decode()
    [shard] = client.cluster_shards()
    assert len(shard["nodes"]) == 1
    assert client.cluster_slots()[(0, 16383)]["primary"][:2] == ("127.0.0.1", port)


def test_strings_and_collections(client):
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.get("k") == b"v"
    assert client.get("nosuch") is None
    assert client.incr("n", 5) == 5
    assert client.hset("h", mapping={"f": "v", "g": "w"}) == 2
    assert client.hgetall("h") == {b"f": b"v", b"g": b"w"}
    assert client.rpush("l", "message", "a", "b") == 3
    assert client.lrange("l", 0, -1) == [b"message", b"a", b"b"]
    with pytest.raises(redis.ResponseError, match=WRONG_TYPE):
        client.get("l")


def test_commands_with_keys_of_one_slot(client):
    assert client.mset({"{t}a": 1, "{t}b": 2}) is True
    assert client.mget("{t}a", "{t}nosuch", "{t}b") == [b"1", None, b"2"]
    assert client.exists("{t}a", "{t}b") == 2
    assert client.delete("{t}a", "{t}b") == 2


def test_commands_that_the_client_divides_by_slot(client):
    keys = [f"spread:{number}" for number in range(50)]
    assert all(client.mset_nonatomic({key: key for key in keys}))
    assert client.mget_nonatomic(keys) == [key.encode() for key in keys]


def test_pipelines(client):
    with client.pipeline() as pipeline:
        for number in range(10_000):
            pipeline.set(f"p:{number}", number).get(f"p:{number}")
        replies = pipeline.execute()
    assert replies[0::2] == [True] * 10_000
    assert replies[1::2] == [str(number).encode() for number in range(10_000)]
    with client.pipeline() as pipeline:
        pipeline.rpush("wrong", 1).get("wrong").set("after", 1)
        replies = pipeline.execute(raise_on_error=False)
    assert replies[0] == 1 and isinstance(replies[1], redis.ResponseError) and replies[2] is True


def test_keys_of_a_slot_are_found(client):
    client.set("{tag}one", 1)
    client.set("{tag}two", 2)
    slot = client.cluster_keyslot("{tag}")
    assert client.cluster_countkeysinslot(slot) == 2
    assert set(client.cluster_get_keys_in_slot(slot, 10)) == {"{tag}one", "{tag}two"}


def test_reads_from_replicas_are_reads_from_the_one_node(port):
    with redis.RedisCluster(host="127.0.0.1", port=port, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN) as client:
        assert client.set("k", "v") is True
        assert client.get("k") == b"v"
        assert client.readonly() and client.readwrite()


def test_a_killed_client_connects_again(client, port):
    assert client.set("k", "v") is True
    with redis.Redis(port=port) as killer:
        assert killer.client_kill_filter(_type="normal", skipme=True) > 0
    assert client.get("k") == b"v"
    assert len(client.get_nodes()) == 1


def test_lost_upstream_connections_are_made_anew(client, kill_upstream_connections):
    client.set("k", "before")
    kill_upstream_connections()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert client.set("k", "after") is True
            break
        except redis.ResponseError as error:
            assert str(error).startswith("UPSTREAM ")
    assert client.get("k") == b"after"
    assert len(client.get_nodes()) == 1


def test_asyncio(port):
    async def run():
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=port) as client:
            assert await client.set("k", "v") is True
            assert await client.get("k") == b"v"
            assert await client.mset({"{t}a": 1, "{t}b": 2}) is True
            assert await client.mget("{t}a", "{t}b") == [b"1", b"2"]
            pipeline = client.pipeline()
            for number in range(1000):
                pipeline.set(f"a:{number}", number)
                pipeline.get(f"a:{number}")
            replies = await pipeline.execute()
            assert replies[1::2] == [str(number).encode() for number in range(1000)]
            assert len(client.get_nodes()) == 1

    asyncio.run(run())

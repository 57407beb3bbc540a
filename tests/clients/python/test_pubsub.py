"""Publish and subscribe."""

import time

import pytest


def test_messages_arrive_in_order(client, connect, key):
    with connect().pubsub() as pubsub:
        pubsub.subscribe(key("channel"))
        assert next_of(pubsub)["type"] == "subscribe"
        for number in range(1000):
            client.publish(key("channel"), number)
        assert [int(next_of(pubsub)["data"]) for _ in range(1000)] == list(range(1000))


def test_patterns_and_channels(client, connect, key, request):
    # What matches a pattern must not have one's own characters in it.
    prefix = f"pubsub-{abs(hash(request.node.name))}"
    with connect().pubsub() as pubsub:
        pubsub.subscribe(f"{prefix}:a", f"{prefix}:b")
        pubsub.psubscribe(f"{prefix}:?")
        assert [next_of(pubsub)["type"] for _ in range(3)] == ["subscribe", "subscribe", "psubscribe"]
        client.publish(f"{prefix}:a", "v")
        assert sorted(next_of(pubsub)["type"] for _ in range(2)) == ["message", "pmessage"]
        client.publish(f"{prefix}:z", "v")
        message = next_of(pubsub)
        assert (message["type"], message["channel"]) == ("pmessage", f"{prefix}:z".encode())
        pubsub.unsubscribe(f"{prefix}:a")
        pubsub.punsubscribe()
        assert [next_of(pubsub)["type"] for _ in range(2)] == ["unsubscribe", "punsubscribe"]
        client.publish(f"{prefix}:a", "not wanted")
        client.publish(f"{prefix}:b", "wanted")
        assert next_of(pubsub)["data"] == b"wanted"


def test_every_subscriber_hears(client, connect, key):
    heard = []
    subscribers = [connect().pubsub() for _ in range(10)]
    for pubsub in subscribers:
        pubsub.subscribe(key("channel"))
        assert next_of(pubsub)["type"] == "subscribe"
    client.publish(key("channel"), "v")
    heard = [next_of(pubsub)["data"] for pubsub in subscribers]
    assert heard == [b"v"] * 10
    for pubsub in subscribers:
        (getattr(pubsub, "aclose", None) or pubsub.close)()


def test_shard_channels(client, connect, key, request):
    pubsub = connect().pubsub()
    if not hasattr(getattr(pubsub, "_inner", pubsub), "ssubscribe"):
        pytest.skip("this client has no shard channels")
    is_cluster_client = "Cluster" in request.node.name
    get = getattr(pubsub, "get_sharded_message" if is_cluster_client else "get_message")
    pubsub.ssubscribe(key("channel"))
    assert next_of(pubsub, get)["type"] == "ssubscribe"
    client.spublish(key("channel"), "v")
    assert next_of(pubsub, get)["data"] == b"v"
    pubsub.sunsubscribe(key("channel"))
    assert next_of(pubsub, get)["type"] == "sunsubscribe"
    (getattr(pubsub, "aclose", None) or pubsub.close)()


def next_of(pubsub, get=None):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if message := (get or pubsub.get_message)(timeout=1):
            return message
    pytest.fail("no message came")

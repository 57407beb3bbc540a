"""Streams, and consumer groups that share one."""

import pytest
import redis


def test_a_stream_is_read_from_both_ends(client, key):
    ids = [client.xadd(key("x"), {"n": number}) for number in range(10)]
    assert [entry for entry, _ in client.xrange(key("x"))] == ids
    assert client.xrevrange(key("x"), count=1) == [(ids[-1], {b"n": b"9"})]
    assert client.xread({key("x"): ids[7]}, count=1) in (
        {key("x").encode(): [[(ids[8], {b"n": b"8"})]]},
        [[key("x").encode(), [(ids[8], {b"n": b"8"})]]],
    )
    assert client.xtrim(key("x"), maxlen=3, approximate=False) == 7
    assert client.xlen(key("x")) == 3


def test_consumers_of_a_group_share_a_stream(client, connect, key, at_once):
    expected = {client.xadd(key("x"), {"n": number}) for number in range(200)}
    client.xgroup_create(key("x"), "group", id="0")
    with pytest.raises(redis.ResponseError, match="BUSYGROUP"):
        client.xgroup_create(key("x"), "group", id="0")

    def consume(name):
        consumer, seen = connect(), []
        while entries := read(consumer.xreadgroup("group", name, {key("x"): ">"}, count=7)):
            seen += [entry for entry, _ in entries]
            assert consumer.xack(key("x"), "group", *[entry for entry, _ in entries]) == len(entries)
        return seen

    seen = at_once([lambda name=name: consume(name) for name in ("alice", "bob", "carol", "dave")])
    assert sorted(sum(seen, [])) == sorted(expected)
    assert client.xpending(key("x"), "group")["pending"] == 0


def test_what_a_consumer_left_behind_is_claimed(client, key):
    ids = [client.xadd(key("x"), {"n": number}) for number in range(4)]
    client.xgroup_create(key("x"), "group", id="0")
    read(client.xreadgroup("group", "gone", {key("x"): ">"}, count=2))
    assert [entry for entry, _ in client.xautoclaim(key("x"), "group", "heir", min_idle_time=0)[1]] == ids[:2]
    pending = client.xpending_range(key("x"), "group", "-", "+", 10)
    assert [(each["message_id"], each["consumer"]) for each in pending] == [(entry, b"heir") for entry in ids[:2]]
    assert [entry for entry, _ in read(client.xreadgroup("group", "heir", {key("x"): "0"}))] == ids[:2]
    assert client.xack(key("x"), "group", *ids[:2]) == 2
    assert {each["name"]: each["pending"] for each in client.xinfo_consumers(key("x"), "group")} == {b"gone": 0, b"heir": 0}


def test_a_consumer_waits_for_what_is_added(client, connect, key, at_once):
    client.xgroup_create(key("x"), "group", id="$", mkstream=True)

    def consume():
        consumer, seen = connect(), []
        while len(seen) < 20:
            entries = read(consumer.xreadgroup("group", "waits", {key("x"): ">"}, block=2000))
            seen += [int(fields[b"n"]) for _, fields in entries]
        return seen

    def produce():
        for number in range(20):
            client.xadd(key("x"), {"n": number})

    assert at_once([consume, produce])[0] == list(range(20))


def read(reply):
    """The entries of the one stream that was asked for: in a dict of lists with RESP3, in a list of pairs with RESP2."""
    if isinstance(reply, dict):
        return [entry for lists in reply.values() for entries in lists for entry in entries]
    return [entry for _, entries in reply or [] for entry in entries]

"""valkey-glide with its default settings: the client of one server, and that of a cluster."""

import os

import pytest
from glide_sync import (
    Batch,
    ClusterBatch,
    ClusterScanCursor,
    ConditionalChange,
    ExpirySet,
    ExpiryType,
    GlideClient,
    GlideClientConfiguration,
    GlideClusterClient,
    GlideClusterClientConfiguration,
    NodeAddress,
    RequestError,
    Script,
    StreamGroupOptions,
    StreamReadGroupOptions,
)

IS_CLUSTER = os.environ.get("NEARSIDE_TEST_UPSTREAM") == "cluster"


@pytest.fixture(params=["GlideClient", "GlideClusterClient"])
def connect(request, port):
    of_cluster = request.param == "GlideClusterClient"
    if of_cluster and not IS_CLUSTER:
        pytest.skip("a client of a cluster asks for one")
    if not of_cluster and IS_CLUSTER and "NEARSIDE_ADMIN" not in os.environ:
        pytest.skip("a client of one server asks for one")
    kind, settings = (
        (GlideClusterClient, GlideClusterClientConfiguration) if of_cluster else (GlideClient, GlideClientConfiguration)
    )
    clients = []

    def connect():
        # Longer than the quarter of a second that is its default, for the sake of machines that are busy.
        clients.append(kind.create(settings([NodeAddress("127.0.0.1", port)], request_timeout=10_000)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_strings(client, key):
    every_byte = bytes(range(256))
    assert client.set(key("k"), every_byte) == "OK"
    assert client.get(key("k")) == every_byte
    assert client.get(key("k")) == every_byte
    assert client.get(key("nosuch")) is None
    assert client.mset({key("a"): "1", key("b"): "2"}) == "OK"
    assert client.mget([key("a"), key("nosuch"), key("b")]) == [b"1", None, b"2"]
    assert client.hset(key("h"), {"f": "v", "g": "w"}) == 2
    assert client.hgetall(key("h")) == {b"f": b"v", b"g": b"w"}
    with pytest.raises(RequestError, match="WRONGTYPE|wrong kind"):
        client.lpush(key("k"), ["x"])


def test_streams(client, key):
    ids = [client.xadd(key("x"), [("n", str(number))]) for number in range(20)]
    assert client.xgroup_create(key("x"), "group", "0") == "OK"
    read = client.xreadgroup({key("x"): ">"}, "group", "alice", StreamReadGroupOptions(count=30))
    assert sorted(read[key("x").encode()]) == sorted(ids)
    assert client.xack(key("x"), "group", ids) == 20
    assert client.xgroup_create(key("y"), "group", "$", StreamGroupOptions(make_stream=True)) == "OK"


def test_streams_that_are_waited_for(client, connect, key, at_once):
    client.xgroup_create(key("x"), "group", "$", StreamGroupOptions(make_stream=True))

    def consume():
        read = connect().xreadgroup({key("x"): ">"}, "group", "waits", StreamReadGroupOptions(block_ms=5000))
        return [fields[0][1] for fields in read[key("x").encode()].values()]

    assert at_once([consume, lambda: client.xadd(key("x"), [("n", "v")])])[0] == [b"v"]


def test_transactions(client, key):
    batch = (ClusterBatch if isinstance(client, GlideClusterClient) else Batch)(is_atomic=True)
    batch.set(key("k"), "v")
    batch.get(key("k"))
    batch.incrby(key("n"), 5)
    assert client.exec(batch, raise_on_error=True) == ["OK", b"v", 5]


def test_watch(connect, key):
    client, other = connect(), connect()
    assert client.watch([key("k")]) == "OK"
    other.set(key("k"), "other")
    batch = (ClusterBatch if isinstance(client, GlideClusterClient) else Batch)(is_atomic=True)
    batch.set(key("k"), "own")
    assert client.exec(batch, raise_on_error=True) is None
    assert client.get(key("k")) == b"other"


def test_scripts(client, key):
    script = Script(f"-- {key('')}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert client.invoke_script(script, keys=[key("n")], args=["5"]) == 5
    assert client.invoke_script(script, keys=[key("n")], args=["5"]) == 10


def test_blocking(client, connect, key, at_once):
    assert client.blpop([key("nosuch")], 0.05) is None

    def consume():
        consumer, seen = connect(), []
        while (item := consumer.blpop([key("queue")], 5)[1]) != b"end":
            seen.append(int(item))
        return seen

    def produce():
        for number in range(200):
            client.rpush(key("queue"), [str(number)])
        client.rpush(key("queue"), ["end"] * 2)

    assert sorted(sum(at_once([consume, consume, produce])[:2], [])) == list(range(200))


def test_scan(client, key):
    names = {f"glide:scan:{number}".encode() for number in range(300)}
    for name in names:
        client.set(name, "1")
    found = set()
    if isinstance(client, GlideClusterClient):
        cursor = ClusterScanCursor()
        while not cursor.is_finished():
            cursor, keys = client.scan(cursor, match="glide:scan:*", count=50)
            found.update(keys)
    else:
        cursor = "0"
        while True:
            cursor, keys = client.scan(cursor, match="glide:scan:*", count=50)
            found.update(keys)
            if cursor == b"0":
                break
    assert found == names


def test_locks(client, connect, key, at_once):
    release = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")

    def increment(name):
        own = connect()
        for turn in range(10):
            token = f"{name}:{turn}"
            expiry = ExpirySet(ExpiryType.SEC, 30)
            while own.set(key("lock"), token, ConditionalChange.ONLY_IF_DOES_NOT_EXIST, expiry) is None:
                pass
            # Not atomic by itself.
            own.set(key("n"), str(int(own.get(key("n")) or 0) + 1))
            assert own.invoke_script(release, keys=[key("lock")], args=[token]) == 1

    at_once([lambda name=name: increment(name) for name in range(4)])
    assert client.get(key("n")) == b"40"

"""redis-py with its default settings.

Keys that one command names together have a hash tag in common, for the sake of a cluster behind the proxy.
"""

import random
import threading
import time

import pytest
import redis

EVERY_BYTE = bytes(range(256))
BIG = random.Random(0).randbytes(8 << 20)
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


@pytest.fixture
def client(port):
    with redis.Redis(port=port) as client:
        yield client


def test_strings(client):
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.get("k") == b"v"
    assert client.get("nosuch") is None
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", get=True) == b"v"
    assert client.incr("n", 5) == 5
    assert client.mset({"{t}a": 1, "{t}b": 2}) is True
    assert client.mget("{t}a", "{t}nosuch", "{t}b") == [b"1", None, b"2"]
    assert client.delete("{t}a", "{t}b") == 2
    assert client.get("{t}a") is None


def test_collections(client):
    assert client.hset("h", mapping={"f": "v", "g": "w"}) == 2
    assert client.hget("h", "f") == b"v"
    assert client.hgetall("h") == {b"f": b"v", b"g": b"w"}
    assert client.rpush("l", "message", "a", "b") == 3
    assert client.lrange("l", 0, -1) == [b"message", b"a", b"b"]
    assert client.sadd("s", "x", "y") == 2
    assert client.smembers("s") == {b"x", b"y"}
    assert client.zadd("z", {"m": 1.5, "n": 2}) == 2
    assert client.zscore("z", "m") == 1.5
    assert [[member, score] for member, score in client.zrange("z", 0, -1, withscores=True)] == [[b"m", 1.5], [b"n", 2.0]]
    assert client.xadd("x", {"f": "v"}, id="1-1") == b"1-1"
    assert client.xrange("x") == [(b"1-1", {b"f": b"v"})]


def test_binary_keys_and_values(client):
    for data in [EVERY_BYTE, *(bytes([value]) for value in range(256))]:
        assert client.set(data, data) is True
        assert client.get(data) == data
        assert client.get(data) == data
    assert client.hset("hash", EVERY_BYTE, EVERY_BYTE) == 1
    assert client.hgetall("hash") == {EVERY_BYTE: EVERY_BYTE}


def test_big_values(client):
    assert client.set("k", BIG) is True
    for _ in range(3):
        # No comparison by pytest, which would show how they differ.
        came_back = client.get("k") == BIG
        assert came_back


def test_the_second_read_is_a_hit(client, cache_hits):
    # A key of its own: what other tests have changed time and again is not cached for a while.
    client.set("read-twice", "v")
    before = cache_hits()
    assert client.get("read-twice") == b"v"
    assert cache_hits() == before
    assert client.get("read-twice") == b"v"
    assert cache_hits() == before + 1


def test_a_pipeline_without_a_transaction(client):
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("k", "old").get("k").delete("k").get("k").rpush("l", 1, 2).lrange("l", 0, -1)
        assert pipeline.execute() == [True, b"old", 1, None, 2, [b"1", b"2"]]
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"k{number}", number)
            pipeline.get(f"k{number}")
        replies = pipeline.execute()
    assert replies[1::2] == [str(number).encode() for number in range(10_000)]


def test_a_killed_client_connects_again(client, port):
    client.set("k", "v")
    killed = client.client_id()
    with redis.Redis(port=port) as killer:
        assert killer.client_kill_filter(_id=killed) == 1
    assert client.get("k") == b"v"
    assert client.client_id() != killed


def test_killed_upstream_connections_are_made_anew(client, kill_upstream_connections, has_nearside):
    client.set("k", "before")
    assert client.get("k") == b"before"
    connected_as = client.client_id()
    kill_upstream_connections()
    deadline = time.monotonic() + 15
    while True:
        try:
            client.set("k", "after")
            break
        except redis.ResponseError as error:
            assert str(error).startswith("UPSTREAM ") and time.monotonic() < deadline
            time.sleep(0.01)
    assert client.get("k") == b"after"
    # The client's own connection has not noticed.
    assert (client.client_id() == connected_as) == has_nearside


def test_errors_are_the_servers(client):
    client.rpush("l", 1)
    with pytest.raises(redis.ResponseError, match=f"^{WRONG_TYPE}$"):
        client.get("l")
    with pytest.raises(redis.ResponseError, match="^unknown command 'NOSUCH'"):
        client.execute_command("NOSUCH")
    assert client.ping() is True


def test_scripts(client):
    for value in ("v", "w"):
        assert client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "k", value) == b"OK"
        assert client.get("k") == value.encode()


def test_scripts_that_are_called_by_their_digest(client):
    script = client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
    assert client.get("k") is None
    assert script(keys=["k"], args=["v"]) == b"OK"
    assert client.get("k") == b"v"


def test_scanning(client):
    for number in range(100):
        client.set(f"k{number}", number)
    assert sorted(client.scan_iter("k*")) == sorted(f"k{number}".encode() for number in range(100))


@pytest.mark.usefixtures("standalone_only")
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
def test_settings_that_people_use(port, protocol, decode):
    with redis.Redis(port=port, protocol=protocol, decode_responses=decode, db=2, client_name="tester") as client:
        assert client.set("k", "v") is True
        assert client.get("k") == ("v" if decode else b"v")
        assert client.client_getname() in ("tester", b"tester")
        assert client.client_id() > 0
        assert client.hset("h", "f", "v") == 1
        assert list(client.hgetall("h").values()) == ["v" if decode else b"v"]
    with redis.Redis(port=port, protocol=protocol) as other_db:
        assert other_db.get("k") is None


def test_what_a_program_asks_of_its_server(client):
    assert client.info()["redis_version"]
    assert client.info("server")["redis_version"]
    assert "get" in client.command()
    assert client.config_get("maxmemory-policy")["maxmemory-policy"]
    assert client.time()[0] > 0


def test_the_number_of_keys(client):
    assert client.dbsize() == 0
    client.mset({"{t}a": 1, "{t}b": 2})
    assert client.dbsize() == 2


def test_many_threads_read_what_was_written(client):
    """They share a pool of connections."""
    assert wrong_reads_of_threads([client] * 8) == []
    assert client.get("total") == b"1600"


def test_many_clients_read_what_was_written(client, port):
    clients = [redis.Redis(port=port) for _ in range(32)]
    try:
        assert wrong_reads_of_threads(clients) == []
    finally:
        for one in clients:
            one.close()
    assert client.get("total") == b"6400"


def wrong_reads_of_threads(clients):
    """What went wrong while each client, in a thread of its own, wrote a key 200 times and read it back."""
    failures = []

    def work(number, client):
        key = f"thread:{number}"
        try:
            for turn in range(200):
                client.set(key, turn)
                reads = [client.get(key), client.get(key)]
                if reads != [str(turn).encode()] * 2:
                    failures.append((number, turn, reads))
                client.incr("total")
        except redis.RedisError as error:
            failures.append((number, error))

    threads = [threading.Thread(target=work, args=each) for each in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures

"""redis-py with its default settings."""

import threading

import pytest
import redis

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def client(port):
    with redis.Redis(port=port) as client:
        yield client


def test_strings(client):
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.get("k") == b"v"
    assert client.get("nosuch") is None
    assert client.set(EVERY_BYTE, EVERY_BYTE) is True
    assert client.get(EVERY_BYTE) == EVERY_BYTE
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", get=True) == b"v"
    assert client.incr("n", 5) == 5
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "b", "nosuch") == [b"1", b"2", None]
    assert client.delete("a", "b") == 2
    assert client.get("a") is None


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


def test_errors_are_the_servers(client):
    client.rpush("l", 1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("l")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("NOSUCH")
    assert client.ping() is True


def test_scripts(client):
    script = client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
    assert client.get("k") is None
    assert script(keys=["k"], args=["v"]) == b"OK"
    assert client.get("k") == b"v"


def test_scanning(client):
    client.mset({f"k{number}": number for number in range(100)})
    assert sorted(client.scan_iter("k*")) == sorted(f"k{number}".encode() for number in range(100))


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
    assert client.dbsize() == 0
    assert "get" in client.command()
    assert client.config_get("maxmemory-policy")["maxmemory-policy"]
    assert client.time()[0] > 0


def test_many_threads_read_what_was_written(client):
    failures = []

    def work(number):
        key = f"thread:{number}"
        for turn in range(200):
            client.set(key, turn)
            if client.get(key) != str(turn).encode() or client.get(key) != str(turn).encode():
                failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

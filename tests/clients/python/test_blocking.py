"""Commands that wait, and queues of them."""

import threading


def test_what_is_there_is_had_at_once_and_what_is_not_after_the_timeout(client, key):
    client.rpush(key("l"), "a", "b")
    assert pair(client.blpop([key("nosuch"), key("l")], timeout=5)) == (key("l").encode(), b"a")
    assert pair(client.brpop(key("l"), timeout=5)) == (key("l").encode(), b"b")
    assert client.blpop(key("l"), timeout=0.05) is None
    assert client.bzpopmin(key("z"), timeout=0.05) is None
    assert client.blmove(key("l"), key("m"), timeout=0.05) is None


def test_a_queue_hands_out_everything_once_and_in_order(client, connect, key, at_once):
    produced = 300

    def consume():
        consumer, seen = connect(), []
        while (item := pair(consumer.blpop(key("queue"), timeout=20))[1]) != b"end":
            seen.append(int(item))
        assert seen == sorted(seen)
        return seen

    def produce():
        for number in range(produced):
            client.rpush(key("queue"), number)
        client.rpush(key("queue"), *["end"] * 4)

    seen = at_once([consume] * 4 + [produce])[:4]
    assert sorted(sum(seen, [])) == list(range(produced))
    assert client.exists(key("queue")) == 0


def test_a_queue_that_loses_nothing_when_a_worker_is_gone(client, connect, key, at_once):
    def take():
        return connect().blmove(key("queue"), key("taken"), timeout=20, src="LEFT", dest="RIGHT")

    taken = at_once([take, lambda: client.rpush(key("queue"), "job")])[0]
    assert taken == b"job"
    assert client.lrange(key("taken"), 0, -1) == [b"job"]


def test_other_connections_go_on_while_one_waits(client, connect, key, at_once):
    waits = threading.Event()

    def wait():
        waits.set()
        return connect().bzpopmax(key("z"), timeout=20)

    def work():
        waits.wait(20)
        for number in range(200):
            client.set(key("k"), number)
            assert int(client.get(key("k"))) == number
        client.zadd(key("z"), {"m": 1.5})

    popped = at_once([wait, work])[0]
    assert [popped[0], popped[1], float(popped[2])] == [key("z").encode(), b"m", 1.5]


def pair(reply):
    return tuple(reply) if reply else (None, None)

"""What tests/clients/with-upstream tells of the servers that it started."""

import concurrent.futures
import contextlib
import os
import re
import socket
import urllib.request

import pytest
import redis
import redis.asyncio

from blocking_asyncio import PATIENCE_S, Blocking, Loop


def pytest_configure():
    if "NEARSIDE_ADDRESS" not in os.environ:
        raise pytest.UsageError("run it so: tests/clients/with-upstream .venv/bin/python -m pytest tests/clients/python")


@pytest.fixture(scope="session")
def port():
    """Where clients connect on 127.0.0.1: Nearside, or to calibrate the tests the Redis itself."""
    return int(os.environ["NEARSIDE_ADDRESS"].rpartition(":")[2])


@pytest.fixture(scope="session")
def upstream_ports():
    return [int(port) for port in os.environ["NEARSIDE_TEST_UPSTREAM_PORTS"].split()]


@pytest.fixture(scope="session")
def has_nearside():
    """False when clients reach the Redis itself."""
    return "NEARSIDE_ADMIN" in os.environ


@pytest.fixture
def standalone_only():
    if os.environ["NEARSIDE_TEST_UPSTREAM"] != "standalone":
        pytest.skip("a cluster has no databases but 0")


@pytest.fixture
def cluster_only():
    if os.environ["NEARSIDE_TEST_UPSTREAM"] != "cluster":
        pytest.skip("before a standalone server Nearside shows no cluster")


@pytest.fixture
def cache_hits(has_nearside):
    """Tells how many reads the cache has answered so far."""
    if not has_nearside:
        pytest.skip("no cache without Nearside")

    def count():
        with urllib.request.urlopen(f"http://{os.environ['NEARSIDE_ADMIN']}/metrics", timeout=15) as reply:
            text = reply.read().decode()
        return sum(float(hits) for hits in re.findall(r"^nearside_cache_hits_total(?:\{.*\})? (\S+)$", text, re.MULTILINE))

    return count


@pytest.fixture
def kill_upstream_connections(upstream_ports):
    """Has the Redis servers close every connection but the one that asks for it."""

    def kill():
        killed = 0
        for port in upstream_ports:
            with redis.Redis(port=port) as server:
                killed += sum(server.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub"))
        assert killed > 0

    return kill


@pytest.fixture(autouse=True)
def empty(upstream_ports):
    """Each test begins with no keys."""
    for port in upstream_ports:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(64) == b"+OK\r\n"


CLIENTS = {
    "redis-py": redis.Redis,
    "redis-py asyncio": redis.asyncio.Redis,
    "redis-py RedisCluster": redis.RedisCluster,
    "redis-py asyncio RedisCluster": redis.asyncio.RedisCluster,
}


@pytest.fixture(params=CLIENTS)
def connect(request, port):
    """Makes clients of one of redis-py's kinds, with default settings; all are called in the same way."""
    if "Cluster" in request.param and os.environ["NEARSIDE_TEST_UPSTREAM"] != "cluster":
        pytest.skip("a client of a cluster asks for one")
    if "Cluster" not in request.param and is_direct_cluster():
        pytest.skip("a client of one server asks for one")
    loop = Loop()
    with contextlib.ExitStack() as clients:

        def connect():
            # A client of a cluster asks for a host, too.
            kind = CLIENTS[request.param]
            if "asyncio" not in request.param:
                return clients.enter_context(kind(host="localhost", port=port))

            async def make():
                return await kind(host="localhost", port=port).initialize()

            client = Blocking(loop.run(make()), loop)
            clients.callback(client.aclose)
            return client

        yield connect


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def key(request):
    """Names keys of one test's own, all in one slot."""
    return lambda name: f"{{{request.node.name}}}{name}"


@pytest.fixture
def at_once():
    """Runs functions in threads of their own, and gives what they return; raises what one of them raises."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=32) as threads:
        yield lambda functions: [each.result(PATIENCE_S) for each in [threads.submit(function) for function in functions]]


@pytest.fixture
def is_cluster():
    return os.environ["NEARSIDE_TEST_UPSTREAM"] == "cluster"


def is_direct_cluster():
    return os.environ["NEARSIDE_TEST_UPSTREAM"] == "cluster" and "NEARSIDE_ADMIN" not in os.environ

"""What tests/clients/with-upstream tells of the servers that it started."""

import os
import re
import socket
import urllib.request

import pytest
import redis


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

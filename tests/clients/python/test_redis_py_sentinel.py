"""redis-py's Sentinel, which is told one: Nearside, that names itself as the primary."""

import pytest
import redis
from redis.sentinel import MasterNotFoundError, Sentinel


@pytest.fixture
def sentinel(port, has_nearside):
    if not has_nearside:
        pytest.skip("no Sentinel without Nearside")
    return Sentinel([("127.0.0.1", port)])


def test_the_primary_is_nearside(sentinel, port):
    assert sentinel.discover_master("mymaster") == ("127.0.0.1", port)
    assert sentinel.discover_slaves("mymaster") == []
    with pytest.raises(MasterNotFoundError):
        sentinel.discover_master("nosuch")


def test_commands_reach_the_primary(sentinel, port):
    with sentinel.master_for("mymaster") as client:
        assert client.set("k", "v") is True
        assert client.get("k") == b"v"
        with client.pipeline(transaction=False) as pipeline:
            assert pipeline.set("a", 1).get("a").execute() == [True, b"1"]
        with redis.Redis(port=port) as killer:
            assert killer.client_kill_filter(_type="normal", skipme=True) > 0
        # The answer to CLIENT KILL may be there a moment before the killed connection is closed.
        try:
            client.get("k")
        except redis.ConnectionError:
            pass
        assert client.get("k") == b"v"


def test_reads_from_replicas_are_reads_from_the_primary(sentinel):
    # redis-py takes the primary when there are no replicas.
    with sentinel.slave_for("mymaster") as client:
        client.set("k", "v")
        assert client.get("k") == b"v"

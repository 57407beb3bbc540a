"""Iterators over all keys, and over what a key holds."""

NAMES = [f"name{number}" for number in range(700)]


def test_all_keys(client, key, is_cluster):
    names = {f"{'' if is_cluster else key('')}spread:{name}" for name in NAMES}
    for name in names:
        client.set(name, 1)
    assert {name.decode() for name in client.scan_iter(match="*spread:*", count=50)} == names
    assert {name.decode() for name in client.scan_iter(match="*spread:name69*")} == {name for name in names if "name69" in name}
    assert sorted(client.scan_iter(match="*spread:*", _type="list")) == []


def test_the_fields_of_a_hash(client, key):
    client.hset(key("h"), mapping={name: name for name in NAMES})
    assert {field: value for field, value in client.hscan_iter(key("h"), count=50)} == {
        name.encode(): name.encode() for name in NAMES
    }


def test_the_members_of_sets(client, key):
    client.sadd(key("s"), *NAMES)
    client.zadd(key("z"), {name: number for number, name in enumerate(NAMES)})
    assert {member.decode() for member in client.sscan_iter(key("s"), count=50)} == set(NAMES)
    assert {member.decode(): score for member, score in client.zscan_iter(key("z"), count=50)} == {
        name: float(number) for number, name in enumerate(NAMES)
    }

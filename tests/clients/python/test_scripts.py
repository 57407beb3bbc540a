"""Scripts by text and by digest, and functions."""

import pytest
import redis


def test_scripts_by_text(client, key):
    assert client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, key("k"), "v") == b"OK"
    assert client.eval_ro("return redis.call('GET', KEYS[1])", 1, key("k")) == b"v"
    assert client.eval("return {1, 'two', {3}, false}", 1, key("k")) == [1, b"two", [3], None]
    with pytest.raises(redis.ResponseError, match="boom"):
        client.eval("return redis.error_reply('boom')", 1, key("k"))


def test_a_script_that_the_server_has_forgotten_is_loaded_again(client, key):
    script = client.register_script(f"-- {key('')}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
    for turn in range(3):
        with pytest.raises(redis.exceptions.NoScriptError):
            client.evalsha(script.sha, 1, key("n"), 5)
        assert script(keys=[key("n")], args=[5]) == 10 * turn + 5
        assert client.evalsha(script.sha, 1, key("n"), 5) == 10 * turn + 10
        assert client.script_exists(script.sha) == [True]
        assert client.script_flush() is True


def test_functions(client, key):
    name = "f" + str(abs(hash(key(""))))
    code = f"""#!lua name={name}
        redis.register_function('{name}_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)
        redis.register_function{{function_name='{name}_get', callback=function(keys) return redis.call('GET', keys[1]) end,
            flags={{'no-writes'}}}}"""
    client.function_load(code, replace=True)
    assert client.fcall(f"{name}_set", 1, key("k"), "v") == b"OK"
    assert client.get(key("k")) == b"v"
    assert client.fcall_ro(f"{name}_get", 1, key("k")) == b"v"
    client.function_delete(name)
    with pytest.raises(redis.ResponseError, match="Function not found"):
        client.fcall(f"{name}_set", 1, key("k"), "v")

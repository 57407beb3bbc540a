"""A real Redis and a Nearside before it, built from the sources at hand."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
START_LIMIT_S = 15


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(process, port):
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"{process.args} does not listen on {port}")


def start(args, port, folder):
    """Runs `args` until the test session ends; nothing of it is left then."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NEARSIDE_")}
    with open(pathlib.Path(folder) / "log", "ab") as log:
        process = subprocess.Popen(args, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until_listening(process, port)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def redis_port():
    """The port of a Redis of this session's own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nearside-redis-") as folder:
        args = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        yield from start(args, port, folder)


@pytest.fixture(scope="session")
def nearside_binary():
    """The program, built now: one that lay about could be a stale one."""
    command = ["cargo", "build", "--package", "nearside", "--bin", "nearside", "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith(b"{")]
    return [message["executable"] for message in messages if message.get("executable")][-1]


@pytest.fixture(scope="session")
def port(request, redis_port):
    """Where clients connect: Nearside, or with NEARSIDE_TEST_DIRECT=1 the Redis itself, to calibrate the tests."""
    if os.environ.get("NEARSIDE_TEST_DIRECT") == "1":
        yield redis_port
        return
    binary = request.getfixturevalue("nearside_binary")
    listen = free_port()
    with tempfile.TemporaryDirectory(prefix="nearside-") as folder:
        args = [binary, "--listen", f"127.0.0.1:{listen}", "--admin", "off", "--upstream", f"redis://127.0.0.1:{redis_port}"]
        yield from start(args, listen, folder)


@pytest.fixture(autouse=True)
def empty(redis_port):
    """Each test begins with no keys."""
    with socket.create_connection(("127.0.0.1", redis_port)) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"

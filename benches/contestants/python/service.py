"""A cache service as one writes it at home: redis-py's asyncio and a dict with a TTL, behind a small RESP server.

It knows GET, SET and PING. What it has once read it keeps for a minute, whoever changes it elsewhere.
"""

import argparse
import asyncio
import time

from redis.asyncio import BlockingConnectionPool, Redis

TTL_SECONDS = 60
UPSTREAM_CONNECTIONS = 50


class Service:
    def __init__(self, upstream):
        host, port = upstream.rsplit(":", 1)
        pool = BlockingConnectionPool(host=host, port=int(port), max_connections=UPSTREAM_CONNECTIONS, timeout=None)
        self.upstream = Redis(connection_pool=pool)
        self.cache = {}  # key to (value, when it expires)

    async def serve(self, reader, writer):
        """Answers one client. Replies to a pipeline leave together."""
        received = b""
        try:
            while chunk := await reader.read(1 << 16):
                commands, received = parse(received + chunk)
                replies = [await self.answer(command) for command in commands]
                writer.write(b"".join(replies))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def answer(self, command):
        match [command[0].upper(), *command[1:]]:
            case [b"GET", key]:
                return await self.get(key)
            case [b"SET", key, value]:
                await self.upstream.set(key, value)
                self.cache[key] = (value, time.monotonic() + TTL_SECONDS)
                return b"+OK\r\n"
            case [b"PING"]:
                return b"+PONG\r\n"
            case _:
                return b"-ERR unknown command '%s'\r\n" % command[0]

    async def get(self, key):
        cached = self.cache.get(key)
        if cached is not None and cached[1] > time.monotonic():
            return bulk(cached[0])
        value = await self.upstream.get(key)
        if value is None:
            return b"$-1\r\n"
        self.cache[key] = (value, time.monotonic() + TTL_SECONDS)
        return bulk(value)


def bulk(value):
    return b"$%d\r\n%s\r\n" % (len(value), value)


def parse(received):
    """The whole commands that it begins with, and the rest."""
    commands, at = [], 0
    while (parsed := parse_command(received, at)) is not None:
        command, at = parsed
        commands.append(command)
    return commands, received[at:]


def parse_command(received, at):
    line_end = received.find(b"\r\n", at)
    if line_end < 0:
        return None
    command, count = [], int(received[at + 1 : line_end])
    at = line_end + 2
    for _ in range(count):
        line_end = received.find(b"\r\n", at)
        if line_end < 0:
            return None
        start = line_end + 2
        end = start + int(received[at + 1 : line_end])
        if len(received) < end + 2:
            return None
        command.append(received[start:end])
        at = end + 2
    return command, at


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listen", default="127.0.0.1:6380")
    arguments.add_argument("--upstream", default="127.0.0.1:6379")
    given = arguments.parse_args()
    host, port = given.listen.rsplit(":", 1)
    service = Service(given.upstream)
    server = await asyncio.start_server(service.serve, host, int(port), backlog=4096)
    await server.serve_forever()


asyncio.run(main())

"""redis-py's asyncio clients, called as its other clients are: so the same tests are for both.

Coroutines run on an event loop in a thread of its own, however many threads of a test call them.
"""

import asyncio
import inspect
import threading

PATIENCE_S = 60


class Loop:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)


class Blocking:
    """A client, or what one of its methods gave: a pipeline, a lock, a script, a subscription."""

    def __init__(self, inner, loop):
        self._inner, self._loop = inner, loop

    def __getattr__(self, name):
        return self._blocking(getattr(self._inner, name))

    def __call__(self, *args, **kwargs):
        async def call():
            result = self._inner(*args, **kwargs)
            return await result if inspect.iscoroutine(result) else result

        return self._blocking(self._loop.run(call()))

    def __iter__(self):
        while True:
            try:
                yield self._loop.run(anext(self._inner))
            except StopAsyncIteration:
                return

    def __enter__(self):
        return self._blocking(self._loop.run(self._inner.__aenter__()))

    def __exit__(self, *exception):
        return self._loop.run(self._inner.__aexit__(*exception))

    def _blocking(self, value):
        is_redis = type(value).__module__.startswith("redis.")
        return Blocking(value, self._loop) if is_redis or callable(value) or inspect.isasyncgen(value) else value

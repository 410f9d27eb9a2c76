"""Plugins written with plain functions."""

import asyncio
import threading
import time

import pytest

from pipeline.errors import Overloaded
from pipeline.threaded import as_async
from pipeline.threads import Threads


@pytest.fixture
def threads():
    pool = Threads(2)
    yield pool
    pool.close()


async def test_more_than_may_wait_for_a_thread_are_refused(threads, monkeypatch):
    monkeypatch.setattr("pipeline.threads.MAX_WAITING", 3)
    free = threading.Event()
    calls = [asyncio.create_task(threads.run(free.wait, 10)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await threads.run(free.wait, 10)
    calls[-1].cancel()
    await asyncio.sleep(0)
    calls[-1] = asyncio.create_task(threads.run(free.wait, 10))
    await asyncio.sleep(0)
    free.set()
    assert all(await asyncio.gather(*calls))


class Plain:
    name = "plain"

    def __init__(self):
        self.closed = threading.Event()
        self.taken = 0

    def search(self, question):
        return threading.current_thread().name, question

    def stream(self, prompt):
        try:
            while True:
                self.taken += 1
                time.sleep(0.002)
                yield self.taken
                if prompt == "fail" and self.taken == 3:
                    raise ValueError("broken")
                if prompt == "short" and self.taken == 3:
                    return
        finally:
            self.closed.set()


def adapted(threads):
    plugin = Plain()
    return plugin, as_async(plugin, threads, ["search"], ["stream"])


async def test_a_plain_function_runs_in_a_thread(threads):
    _, plugin = adapted(threads)
    thread, question = await plugin.search("why?")
    assert thread.startswith("stagecast")
    assert question == "why?"


async def test_a_plain_generator_yields_as_an_async_one(threads):
    _, plugin = adapted(threads)
    assert [item async for item in plugin.stream("short")] == [1, 2, 3]


async def test_its_exception_comes_after_what_it_yielded(threads):
    _, plugin = adapted(threads)
    stream = plugin.stream("fail")
    assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)


async def test_a_reader_that_leaves_ends_the_generator(threads):
    plain, plugin = adapted(threads)
    stream = plugin.stream("endless")
    async for item in stream:
        if item == 5:
            break
    await stream.aclose()
    assert await asyncio.to_thread(plain.closed.wait, 5)
    taken = plain.taken
    await asyncio.sleep(0.05)
    assert plain.taken == taken


async def test_other_attributes_are_the_plugins_own(threads):
    plain, plugin = adapted(threads)
    assert plugin.name == "plain"
    plain.name = "other"
    assert plugin.name == "other"


async def test_an_async_plugin_is_left_as_it_is(threads):
    class Async:
        async def search(self, question):
            return question

        async def stream(self, prompt):
            yield prompt

    plugin = Async()
    assert as_async(plugin, threads, ["search"], ["stream"]) is plugin


async def test_a_cancelled_caller_goes_on_at_once_though_the_thread_does_not(threads):
    release = threading.Event()
    call = asyncio.create_task(threads.run(release.wait, 10))
    await asyncio.sleep(0.02)
    begun = time.monotonic()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert time.monotonic() - begun < 1
    release.set()

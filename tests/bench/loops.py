"""The event loop of the benchmark's own processes: uvloop where it is installed (group ``bench``), else asyncio's."""

import asyncio

try:
    import uvloop
except ImportError:
    new_loop, NAME = asyncio.new_event_loop, "asyncio"
else:
    new_loop, NAME = uvloop.new_event_loop, "uvloop"


def run(main):
    """Run a coroutine in a loop of this kind and return what it returns."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)

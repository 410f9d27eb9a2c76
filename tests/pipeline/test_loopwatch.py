"""The loop watch: whoever holds up the loop is named."""

import asyncio
import time

import structlog

from pipeline.loopwatch import LoopWatch


def hold():
    time.sleep(0.5)


async def test_a_plugin_that_blocks_the_loop_is_named_with_the_place_and_the_time():
    with structlog.testing.capture_logs() as logs, LoopWatch({__name__: "llm slug"}):
        hold()
        await asyncio.sleep(0.3)
    blocked, free = logs
    assert (blocked["event"], blocked["plugin"]) == ("loop.blocked", "llm slug")
    assert "test_loopwatch.py" in blocked["at"]
    assert free["blocked_ms"] >= 200


async def test_code_that_belongs_to_no_plugin_is_told_by_its_place():
    with structlog.testing.capture_logs() as logs, LoopWatch({"other": "llm other"}):
        hold()
        await asyncio.sleep(0.3)
    assert logs[0]["plugin"] is None

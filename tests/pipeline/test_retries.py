"""When an LLM is asked again, and for how long it is waited."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.errors import GenerationFailed, RunError
from pipeline.retries import BACK_OFF_S, JITTER_S, TryAgain, retry_after_s, until_answered, wait_before


class Attempts:
    """Returns or raises what it is told, one list an attempt, after the waits in it."""

    def __init__(self, *attempts):
        self.left = list(attempts)
        self.made = 0
        self.failed = asyncio.Event()

    async def __call__(self):
        self.made += 1
        *waits, result = self.left.pop(0)
        for wait_s in waits:
            await asyncio.sleep(wait_s)
        if isinstance(result, Exception):
            self.failed.set()
            raise result
        return result


def busy(retry_after="0"):
    return TryAgain(GenerationFailed("busy"), status=503, retry_after=retry_after)


async def test_an_answer_may_come_after_two_failures():
    attempts = Attempts([busy()], [busy()], ["a"])
    assert await until_answered(attempts) == "a"
    assert attempts.made == 3


async def test_the_third_failure_is_the_last():
    attempts = Attempts([busy()], [busy()], [busy()], ["too late"])
    with pytest.raises(GenerationFailed, match="busy"):
        await until_answered(attempts)
    assert attempts.made == 3


async def test_other_failures_are_not_tried_again():
    attempts = Attempts([RunError("no")], ["a"])
    with pytest.raises(RunError, match="no"):
        await until_answered(attempts)
    assert attempts.made == 1


async def test_what_caused_the_failure_is_kept_for_the_log():
    problem = busy("3600")
    problem.__cause__ = ValueError("why")
    with pytest.raises(GenerationFailed) as raised:
        await until_answered(Attempts([problem]))
    assert raised.value.__cause__ is problem.__cause__


async def test_an_attempt_that_would_end_too_late_is_not_made(monkeypatch):
    monkeypatch.setattr("pipeline.retries.TOTAL_S", 0.5)
    attempts = Attempts([0.3, busy()], ["a"])
    with pytest.raises(GenerationFailed):
        await until_answered(attempts)
    assert attempts.made == 1


async def test_who_leaves_while_it_is_waited_is_gone_at_once():
    attempts = Attempts([busy("5")], ["a"])
    task = asyncio.create_task(until_answered(attempts))
    await attempts.failed.wait()
    task.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert attempts.made == 1


@pytest.mark.parametrize("header", [None, "", "junk", "-1", "1e3", "nan", "inf", "١", "Wed, 99 Foo 2020 00:00:00 GMT"])
def test_a_wait_that_cannot_be_read_is_not_asked_for(header):
    assert retry_after_s(header) is None
    for retry, longest in enumerate(BACK_OFF_S, 1):
        waits = [wait_before(retry, header) or 0.0 for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


@pytest.mark.parametrize(("header", "seconds"), [("0", 0), ("2", 2), (" 5 ", 5), ("0.5", 0.5)])
def test_a_wait_in_seconds_is_kept_and_blurred(header, seconds):
    waits = [wait_before(1, header) or 0.0 for _ in range(50)]
    assert seconds <= min(waits) < max(waits) <= seconds + JITTER_S


def test_a_wait_until_a_date_is_kept():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    assert 1 < (retry_after_s(soon) or 0) <= 3
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 -0000") == 0


@pytest.mark.parametrize("header", ["6", "3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_wait_that_is_too_long_is_not_begun(header):
    assert wait_before(1, header) is None


def test_there_is_no_third_retry():
    assert wait_before(3, None) is None
    assert wait_before(3, "1") is None

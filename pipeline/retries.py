"""When an LLM that failed before its first token is asked again: shared by all that reach theirs over HTTP."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TypeVar

import structlog

from pipeline.errors import GenerationFailed, RunError

T = TypeVar("T")
log = structlog.get_logger()

STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that may pass: those that OpenAI's own client tries again, without the ones that no LLM sends."""
BACK_OFF_S = (0.5, 1.0)
"""The longest wait before each retry; the shortest is half of it."""
LONGEST_RETRY_AFTER_S = 5.0
"""Who asks for a longer wait is not asked again."""
JITTER_S = 0.25
"""On top of ``Retry-After`` at most, so that not all who were sent away come back in the same instant."""
TOTAL_S = 10.0
"""From the first call until the last may have failed, provided that it fails as fast as the one before."""

_BY_STATUS = {
    401: ("The language model's provider refused the key it was given.", False),
    403: ("The language model's provider does not permit this request.", False),
    404: ("The language model's provider does not know this model.", False),
    408: ("The language model did not answer in time.", True),
    409: ("The language model failed.", True),
    429: ("The language model's provider is at its limit; try again later.", True),
    504: ("The language model did not answer in time.", True),
}
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class TryAgain(Exception):
    """An attempt failed in a way that another may not meet.

    ``failure`` ends the run if there is no other attempt. ``status`` is that of the HTTP response, None when there was
    none; ``retry_after`` the header as it came.
    """

    def __init__(self, failure: RunError, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.status = status
        self.retry_after = retry_after


def refused(status: int, retry_after: str | None) -> RunError | TryAgain:
    """Return what to raise for an HTTP status that is no answer; ``retry_after`` is the header as it came."""
    message, retryable = _BY_STATUS.get(status) or _by_class(status)
    failure = GenerationFailed(message, retryable=retryable)
    return TryAgain(failure, status=status, retry_after=retry_after) if status in STATUSES else failure


def _by_class(status: int) -> tuple[str, bool]:
    if status < 400:
        return "The language model's address only leads to another one, which is not followed.", False
    if status < 500:
        return "The language model's provider refused the request.", False
    return "The language model failed.", True


async def until_answered(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what ``attempt`` returns; call it again, twice at most, when it raises :class:`TryAgain`.

    It returns with the first piece of an answer: readers see that, and would see it twice if it were asked for again.
    What it has opened it closes itself before it raises. A wait ends at once when its task is cancelled.

    Raises:
        RunError: The ``failure`` of the last attempt, its cause kept.
    """
    clock = asyncio.get_running_loop().time
    begun = clock()
    for number in count(1):
        asked = clock()
        try:
            return await attempt()
        except TryAgain as problem:
            wait_s, now = wait_before(number, problem.retry_after), clock()
            if wait_s is None or (now - begun) + wait_s + (now - asked) > TOTAL_S:
                raise problem.failure from problem.__cause__
            log.warning("llm.retry", attempt=number + 1, wait_s=round(wait_s, 3), status=problem.status)
        await asyncio.sleep(wait_s)
    raise AssertionError("the attempts have no end")


def wait_before(retry: int, header: str | None) -> float | None:
    """Return how many seconds to wait before the ``retry``-th retry (from 1); None when there should be none."""
    if retry > len(BACK_OFF_S):
        return None
    jitter = random.random()  # noqa: S311  # no secret
    asked_for = retry_after_s(header)
    if asked_for is None:
        return BACK_OFF_S[retry - 1] * (1 + jitter) / 2
    return None if asked_for > LONGEST_RETRY_AFTER_S else asked_for + jitter * JITTER_S


def retry_after_s(header: str | None) -> float | None:
    """Read ``Retry-After`` (RFC 9110, 10.2.3): seconds, or a date; None when it is neither. A past date is 0."""
    header = (header or "").strip()
    if _SECONDS.fullmatch(header):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())

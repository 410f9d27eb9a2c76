"""What the registry takes for a method that yields."""

from __future__ import annotations

import contextlib
from collections import abc
from collections.abc import AsyncGenerator, Awaitable

import pytest

from pipeline.registry import _yields


class Plugin:
    def plain(self):
        yield

    async def asynchronous(self) -> AsyncGenerator[str]:
        yield ""

    def handed_on(self) -> AsyncGenerator[str]:
        return self.asynchronous()

    def handed_on_from_a_module(self) -> abc.AsyncGenerator[str]:
        return self.asynchronous()

    def returns(self):
        return self.asynchronous()

    async def awaited(self) -> AsyncGenerator[str]:
        return self.asynchronous()

    def awaited_as_well(self) -> Awaitable[AsyncGenerator[str]]:
        return self.awaited()

    @contextlib.asynccontextmanager
    async def entered(self) -> AsyncGenerator[str]:
        yield ""


@pytest.mark.parametrize("name", ["plain", "asynchronous", "handed_on", "handed_on_from_a_module"])
def test_generators_yield_and_what_says_that_it_returns_one(name):
    assert _yields(getattr(Plugin(), name))


@pytest.mark.parametrize("name", ["returns", "awaited", "awaited_as_well", "entered"])
def test_others_would_fail_with_the_first_question(name):
    assert not _yields(getattr(Plugin(), name))

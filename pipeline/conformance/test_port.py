"""An installed plugin keeps its port; see ``conftest.py``."""

from __future__ import annotations

import asyncio
import importlib

from pipeline.conformance.checks import Check


def test_it_keeps_its_port(kind: str, name: str, check: Check) -> None:
    """One check, with a plugin made for it by the application, which this package knows nothing of otherwise."""
    checking, settings = importlib.import_module("api.checking"), importlib.import_module("api.settings")

    async def run() -> None:
        async with checking.ready(settings.load(), kind, name) as plugin:
            await check(kind, plugin)

    asyncio.run(run())

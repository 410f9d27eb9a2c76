"""The sample collection that an empty store is filled with."""

from __future__ import annotations

from pathlib import Path

import structlog

from api.ingest.ingest import ingest
from api.system import System

log = structlog.get_logger()

SAMPLE = Path(__file__).parent.parent / "sample"


async def load_sample(system: System) -> None:
    """Fill an empty store with the sample collection, unless the settings forbid it."""
    if not system.settings.sample or await system.documents.count():
        return
    stored = 0
    async for results in ingest(system, [SAMPLE]):
        stored += sum(result.status == "stored" for result in results)
    log.info("sample.loaded", documents=stored)

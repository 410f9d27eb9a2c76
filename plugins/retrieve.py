"""The stage ``retrieval``: finds candidates for the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pipeline.events import Event, RetrievalComplete, RetrievalCompleted, RetrievalStart
from pipeline.host import Host
from pipeline.ports import Run


class Retrieve:
    """Find the passages nearest the question; an empty result is not an error."""

    def __init__(self, host: Host) -> None:
        self._retriever = host.retriever
        self._limit = host.options.candidates

    async def run(self, run: Run) -> AsyncGenerator[Event]:
        """Leave the passages in ``run.passages``, best first."""
        yield RetrievalStart()
        run.passages = await self._retriever.search(run.query, self._limit, run.scope)
        yield RetrievalComplete(RetrievalCompleted(doc_count=len(run.passages)))

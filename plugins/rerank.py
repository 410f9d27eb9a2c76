"""The stage ``reranking``: keeps the best passages, in a better order."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pipeline.events import Event, RerankingComplete, RerankingCompleted, RerankingStart, RerankingStarted
from pipeline.host import Host
from pipeline.ports import Run


class Rerank:
    """Put the retrieved passages in order and keep as many as the LLM is given."""

    def __init__(self, host: Host) -> None:
        self._reranker = host.reranker
        self._limit = host.options.sources

    async def run(self, run: Run) -> AsyncGenerator[Event]:
        """Leave the best passages in ``run.passages``, best first."""
        yield RerankingStart(RerankingStarted(candidates=len(run.passages)))
        run.passages = await self._reranker.rerank(run.query, run.passages, self._limit)
        yield RerankingComplete(RerankingCompleted(selected=len(run.passages), method=self._reranker.method))

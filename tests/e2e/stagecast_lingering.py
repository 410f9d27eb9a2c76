"""A retriever and a reranker that never come to an end when the question asks for it: ``linger:<part>``."""

import asyncio

from plugins.flashrank_reranker import FlashRankReranker
from plugins.hybrid import HybridRetriever


async def linger(part, question):
    if f"linger:{part}" in question:
        await asyncio.Event().wait()


class LingeringRetriever(HybridRetriever):
    async def search(self, question, limit, scope):
        await linger("retrieval", question)
        return await super().search(question, limit, scope)


class LingeringReranker(FlashRankReranker):
    async def rerank(self, question, passages, limit):
        await linger("reranking", question)
        return await super().rerank(question, passages, limit)

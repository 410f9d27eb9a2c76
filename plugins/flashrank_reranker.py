class FlashRankReranker:
    method = "fused"
    def __init__(self, host): pass
    async def rerank(self, question, passages, limit): return list(passages[:limit])

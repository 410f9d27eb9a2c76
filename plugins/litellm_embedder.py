"""The embedder ``litellm``: any embedding model that LiteLLM knows."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError, ContractBroken, ModelUnavailable
from pipeline.host import Host

BATCH = 64
"""Texts in one request; Cohere takes 96, which is the fewest among the large providers."""
FRAME = 2
"""Tokens that models put around a text."""
PIECE = re.compile(r"[A-Za-z]{1,3}|[0-9]|[!-/:-@\[-`{-~]")


class LiteLLMEmbedder:
    """Embeds with the model that ``STAGECAST_EMBEDDING_MODEL`` names; vectors are scaled to length 1."""

    max_tokens = 300
    """As ``count_tokens`` estimates: even where that is at its worst, a text stays below 512, the smallest
    limit that is common."""
    timeout_s = 60.0
    """For one request with LiteLLM's repetitions."""

    def __init__(self, host: Host) -> None:
        """Take the settings, and import nothing yet.

        Raises:
            ConfigurationError: They name no model.
        """
        options = host.options
        if not options.embedding_model:
            raise ConfigurationError(
                "the embedder 'litellm' needs a model: set STAGECAST_EMBEDDING_MODEL, "
                "for example openai/text-embedding-3-small"
            )
        self.name = f"litellm/{options.embedding_model}"
        self.dimension = options.embedding_dimension
        """0 until a model has answered that was not told how long its vectors shall be."""
        self._model = options.embedding_model
        self._threads = host.threads
        self._litellm: Any = None
        self._arguments: dict[str, Any] = {
            "model": options.embedding_model,
            "api_base": options.llm_api_base,
            "timeout": self.timeout_s,
            "drop_params": True,
        }
        if options.embedding_dimension:
            self._arguments["dimensions"] = options.embedding_dimension
        keyless = options.llm_api_base and not os.environ.get("OPENAI_API_KEY")
        if keyless and self._model.startswith("openai/"):
            self._arguments["api_key"] = "none"  # LiteLLM insists on one, servers of one's own do not

    async def warm(self) -> None:
        """Import LiteLLM, and ask the model how long its vectors are if the settings do not say.

        Raises:
            ModelUnavailable: The model cannot be reached.
            ContractBroken: It answers with something else than vectors.
        """
        await self._import()
        if not self.dimension:
            await self.embed(["ready?"])

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, in order: shape ``(len(texts), dimension)``; long texts are cut.

        Raises:
            ModelUnavailable: The provider could not be reached, refused, or did not answer in ``timeout_s``.
            ContractBroken: It answered with too few vectors, or of another dimension than before.
        """
        found = [
            await self._embed([cut(text, self.max_tokens) for text in texts[first : first + BATCH]])
            for first in range(0, len(texts), BATCH)
        ]
        return np.concatenate(found) if found else np.zeros((0, self.dimension), np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return an estimate for each text, as the tokenizers of hosted models differ and are not at hand.

        It counts every three letters begun, every digit and every other mark as a token, and a character
        beyond ASCII as one less than its bytes in UTF-8. Measured against the tokenizers cl100k, o200k and
        those of BERT and Anthropic, that is too high for English (by half), code, tables, Russian, Chinese,
        Japanese and Hindi, and too low for random letters (1.7 times), Amharic (1.6), base64 (1.4) and Hebrew
        (1.2).
        """
        return [estimate(text) for text in texts]

    async def _import(self) -> None:
        """Import LiteLLM in a thread: that takes seconds."""
        if self._litellm is None:
            self._litellm = await self._threads.run(import_litellm)

    async def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = matrix(await self._ask(texts), self._model, len(texts), self.dimension)
        self.dimension = vectors.shape[1]
        return vectors

    async def _ask(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return the vectors that the provider sent, in the order of the texts."""
        await self._import()
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await self._litellm.aembedding(input=texts, **self._arguments)
            items = sorted(answer.data, key=lambda item: item["index"])
            return [np.array(list(item["embedding"]), np.float32) for item in items]
        except Exception as cause:  # LiteLLM raises whatever its many providers do
            raise ModelUnavailable(self._model) from cause


def estimate(text: str) -> int:
    """Return about how many tokens a text has; see :meth:`LiteLLMEmbedder.count_tokens`."""
    beyond_ascii = len(text.encode(errors="surrogatepass")) - len(text)
    return FRAME + len(PIECE.findall(text)) + beyond_ascii


def cut(text: str, limit: int) -> str:
    """Return as much of the beginning of ``text`` as ``estimate`` finds within ``limit``."""
    if estimate(text) <= limit:
        return text
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(text[:middle]) <= limit else (low, middle)
    return text[:low]


def matrix(rows: list[NDArray[np.float32]], model: str, count: int, dimension: int) -> NDArray[np.float32]:
    """Return what a model answered as unit vectors.

    Raises:
        ContractBroken: There are not ``count`` vectors of ``dimension`` numbers (0: of one size, whichever),
            or some have no direction.
    """
    if len(rows) != count:
        raise ContractBroken(f"the embedding model {model} answered {count} texts with {len(rows)} vectors")
    sizes = {len(row) for row in rows}
    if len(sizes) > 1 or (dimension and sizes != {dimension}):
        got, wanted = ", ".join(map(str, sorted(sizes))), dimension or "one size"
        raise ContractBroken(
            f"the embedding model {model} answered with vectors of {got} numbers, not of {wanted}; "
            "set STAGECAST_EMBEDDING_DIMENSION to what the model gives"
        )
    vectors = np.stack(rows)
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ContractBroken(f"the embedding model {model} answered with a vector that has no direction")
    return vectors / lengths


def import_litellm() -> Any:
    """Import LiteLLM without its download of a price list, which would be waited for without a network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm

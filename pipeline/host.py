"""What the application lends a plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from pipeline.errors import ConfigurationError
from pipeline.ports import LLM, Embedder, Reranker, Retriever
from pipeline.threads import Threads

T = TypeVar("T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that plugins may read; the application fills them from ``STAGECAST_*``."""

    data_dir: Path
    """Where models and other files may be kept."""
    candidates: int = 50
    """Passages that retrieval finds for reranking."""
    sources: int = 8
    """Passages that the LLM is given."""
    min_relevance: float = 0.25
    """A question whose best passage has a smaller cosine is not answered from the collection."""
    rerank_model: str = "ms-marco-TinyBERT-L-2-v2"
    embedding_model: str = ""
    embedding_dimension: int = 0
    """0: as the model answers."""
    llm_model: str = ""
    llm_api_base: str | None = None
    llm_temperature: float | None = None
    llm_max_tokens: int | None = None
    llm_client: Literal["auto", "litellm"] = "auto"
    """``auto``: providers that speak OpenAI's protocol are read directly; ``litellm``: all through LiteLLM's SDK."""
    flush_ms: float = 0.0
    """How long a bus may keep tokens back to tell several at once; 0: not at all."""
    history_tokens: int = 1500
    """How much of the conversation the LLM is given."""


class Host:
    """Lends plugins the settings, the thread pool, each other by port, and the application's services by type.

    Parts are made when first asked for, so a retriever may ask for the embedder and a stage for the retriever.
    """

    def __init__(
        self,
        options: Options,
        threads: Threads,
        parts: Mapping[str, Callable[[Host], object]],
        services: Mapping[type, object] | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        self.options = options
        self.given = given or {}
        """The variables that may be plugins' own settings (:mod:`pipeline.plugin_settings`)."""
        self.threads = threads
        self._makers = parts
        self._services = services or {}
        self._made: dict[str, object] = {}
        self._making: list[str] = []

    @property
    def embedder(self) -> Embedder:
        """The embedder in force."""
        return self._part("embedder")  # type: ignore[return-value]  # the registry has checked it against its port

    @property
    def retriever(self) -> Retriever:
        """The retriever in force."""
        return self._part("retriever")  # type: ignore[return-value]  # as above

    @property
    def reranker(self) -> Reranker:
        """The reranker in force."""
        return self._part("reranker")  # type: ignore[return-value]  # as above

    @property
    def llm(self) -> LLM:
        """The LLM in force."""
        return self._part("llm")  # type: ignore[return-value]  # as above

    def service(self, kind: type[T]) -> T:
        """Return what the application lends of exactly this type, for example its database engine.

        Raises:
            ConfigurationError: It lends none.
        """
        found = self._services.get(kind)
        if not isinstance(found, kind):
            lent = ", ".join(sorted(t.__name__ for t in self._services)) or "none"
            raise ConfigurationError(f"no service {kind.__name__} is lent to plugins; there are: {lent}")
        return found

    def made(self) -> dict[str, object]:
        """Return the parts made so far, by port."""
        return dict(self._made)

    def _part(self, port: str) -> object:
        if port in self._made:
            return self._made[port]
        if port in self._making:
            raise ConfigurationError("plugins need each other in a circle: " + " -> ".join([*self._making, port]))
        self._making.append(port)
        try:
            self._made[port] = self._makers[port](self)
        finally:
            self._making.pop()
        return self._made[port]

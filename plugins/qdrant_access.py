"""Ways to ask Qdrant: over HTTP where it is a server, in a thread where its client plays the server."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pipeline.errors import ConfigurationError, IndexInUse

TIMEOUT_S = 5
MEMORY = ":memory:"


class Qdrant(Protocol):
    """Does what ``qdrant_client.QdrantClient`` does."""

    failures: tuple[type[Exception], ...]
    """What :meth:`ask` raises when Qdrant fails."""

    async def ask(self, method: str, **arguments: Any) -> Any:
        """Call a method of the client.

        Raises:
            ConfigurationError: It cannot be opened; at the first call only.
        """
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...

    def unusable(self, problem: Exception) -> ConfigurationError:
        """Return what stops the start when Qdrant fails then."""
        ...


class Server:
    """A Qdrant server."""

    def __init__(self, library: Any, url: str, api_key: str) -> None:
        self.failures: tuple[type[Exception], ...] = (
            library.http.exceptions.ApiException,
            library.common.client_exceptions.QdrantException,
            json.JSONDecodeError,
        )
        self._url = url
        self._client = library.AsyncQdrantClient(
            url=url, api_key=api_key or None, timeout=TIMEOUT_S, check_compatibility=False
        )

    async def ask(self, method: str, **arguments: Any) -> Any:
        """Send a request and wait for the answer; a cancelled one is given up with its connection."""
        return await getattr(self._client, method)(**arguments)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def unusable(self, problem: Exception) -> ConfigurationError:
        """Name the server, without what may be secret in its address."""
        host = urlsplit(self._url).hostname
        return ConfigurationError(f"cannot use the Qdrant server {host} (STAGECAST_QDRANT_URL): {_reason(problem)}")


class Local:
    """Qdrant in this process, in a folder or in memory: one thread does all, for what it opens is not shared."""

    failures: tuple[type[Exception], ...] = (sqlite3.Error, OSError, RuntimeError, ValueError)

    def __init__(self, library: Any, folder: Path | None) -> None:
        self._folder = folder
        self._make: Callable[[], Any] = (
            partial(library.QdrantClient, path=str(folder)) if folder else partial(library.QdrantClient, MEMORY)
        )
        self._client: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant")

    async def ask(self, method: str, **arguments: Any) -> Any:
        """Do it as soon as all before is done; whoever is cancelled does not wait for that."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._do, method, arguments))

    async def close(self) -> None:
        """Give the folder to others."""
        if self._client is not None:
            await self.ask("close")
        self._thread.shutdown(wait=False)

    def unusable(self, problem: Exception) -> ConfigurationError:
        """Name the folder."""
        return ConfigurationError(
            f"cannot use Qdrant's folder {self._folder}: {_reason(problem)}; if it is broken, delete it: the next "
            "start copies what was in it from the database"
        )

    def _do(self, method: str, arguments: dict[str, Any]) -> Any:
        if self._client is None:
            self._client = self._opened()
        return getattr(self._client, method)(**arguments)

    def _opened(self) -> Any:
        try:
            return self._make()
        except RuntimeError as problem:
            if "already accessed" not in str(problem):
                raise
            raise IndexInUse(
                f"another process, a running server perhaps, has Qdrant's folder {self._folder} open, which is for one "
                "at a time; stop it or have it do this (POST /documents, `ask --url`), or let both use a Qdrant server "
                "(STAGECAST_QDRANT_URL)"
            ) from None


def _reason(problem: Exception) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__


def library() -> Any:
    """Return Qdrant's client library.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import qdrant_client  # noqa: PLC0415  # optional
    except ImportError as missing:
        raise ConfigurationError(
            f"the retriever qdrant: {missing.name} is not installed; add the extra `qdrant` (uv run --extra qdrant "
            "...), or choose another STAGECAST_RETRIEVER"
        ) from None
    return qdrant_client

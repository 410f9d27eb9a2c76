"""Who may call: keys, known by their digests only, and the owners behind them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping

import structlog

log = structlog.get_logger()

OWNER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
REFRESH_S = 2.0
"""A key that was removed by command opens nothing after this time."""
MISS_S = 0.5
"""A key that is not known is looked for in the store at once, but no more often than this."""


def digest_of(key: str) -> bytes:
    """Return what is kept of a key; keys are long and random, so that a plain SHA-256 cannot be searched through."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def parse_keys(listed: str) -> dict[bytes, str]:
    """Return the owner behind each key's digest from ``owner:key,owner:key``.

    A key without an owner is its own: it has what it made, and no other key does.

    Raises:
        ValueError: An entry is empty, or stands twice.
    """
    keys: dict[bytes, str] = {}
    for number, entry in enumerate(listed.split(","), 1):
        owner, colon, key = entry.strip().partition(":")
        if not colon or not OWNER.fullmatch(owner):
            key = entry.strip()
            owner = f"key-{digest_of(key).hex()[:12]}"
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"entry {number} is no key: printable characters without spaces are, as in alice:secret")
        if digest_of(key) in keys:
            raise ValueError(f"entry {number} has a key that stands before it already")
        keys[digest_of(key)] = owner
    return keys


class Access:
    """Knows the keys; those of the settings from the start, stored ones as of at most ``REFRESH_S`` ago.

    Once callers need keys they do until the process ends, even if the last key is removed.
    """

    def __init__(self, configured: Mapping[bytes, str], *, required: bool = False) -> None:
        self.required = required or bool(configured)
        self.known = False
        """Whether the stored keys have been read."""
        self._refreshing = asyncio.Lock()
        self._configured = dict(configured)
        self._keys = dict(configured)
        self._stored: Callable[[], Awaitable[dict[bytes, str]]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._looked = 0.0

    async def begin(self, stored: Callable[[], Awaitable[dict[bytes, str]]]) -> None:
        """Read the stored keys, and look after changes to them from now on."""
        self._stored = stored
        await self._refresh()
        self.known = True
        self._task = asyncio.create_task(self._look_after(), name="access")

    async def end(self) -> None:
        """Look after the keys no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def owner_of(self, key: str) -> str | None:
        """Return the owner of a key, None when it opens nothing."""
        digest = digest_of(key)
        owner = self._find(digest)
        loop_time = asyncio.get_running_loop().time()
        if owner is None and self._stored and loop_time - self._looked > MISS_S:
            self._looked = loop_time
            await self._refreshed()
            owner = self._find(digest)
        return owner

    def still_opens(self, key: str) -> bool:
        """Say whether a key that was good is still; without a look into the store."""
        return self._find(digest_of(key)) is not None

    def _find(self, digest: bytes) -> str | None:
        """Compare with every key, each in constant time."""
        found = None
        for known, owner in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._refreshed()

    async def _refreshed(self) -> None:
        try:
            async with self._refreshing:  # an older answer must not come behind a newer one
                await self._refresh()
        except Exception as problem:  # noqa: BLE001  # while the database is down, the keys that are known open
            log.warning("access.refresh_failed", error=type(problem).__name__)

    async def _refresh(self) -> None:
        assert self._stored
        stored = await self._stored()
        self._keys = stored | self._configured
        if self._keys and not self.required:
            self.required = True
            log.info("access.required", keys=len(self._keys))

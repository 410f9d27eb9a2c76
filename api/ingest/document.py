"""A document as it is read from a file, and what is required of it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, time
from typing import Any

import msgspec

from pipeline.blocks import blocks
from pipeline.errors import StagecastError
from pipeline.prose import inline
from pipeline.text import clean

MAX_ID_CHARS = 512
MAX_TITLE_CHARS = 500
MAX_URL_CHARS = 2048
MAX_METADATA_CHARS = 262_144
MAX_METADATA_DEPTH = 20
BIGGEST_INTEGER = 2**63 - 1

MARKS = re.compile(r"(#{1,6}\s|[-+*>|=]|```|~~~)|\d{1,9}(?=[.)]\s)")
"""What Markdown takes for a block of another kind at the start of a paragraph; the group is no number."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document, its text normalised: Markdown, one kind of line end, no NUL, no lone surrogates."""

    id: str
    title: str
    text: str
    url: str | None = None
    """A web address."""
    metadata: dict[str, Any] = {}
    """Whatever else was said of the document; JSON can hold it."""
    path: str
    """The file, with the line for JSON lines."""


class BadDocument(msgspec.Struct, frozen=True):
    """A file or a line that gives no document."""

    path: str
    """The file, with the line where there is one: ``corpus.jsonl:17``."""
    reason: str
    """In plain words that go on after the path: "is empty"."""


class Refused(StagecastError):
    """A file, or a line of it, gives no document; the message is the reason."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def document(text: str, fields: Mapping[Any, Any], *, path: str, default_title: str = "") -> Document:
    """Return a document of ``text``; ``id``, ``title`` and ``url`` are from ``fields``, the rest is metadata.

    A title that is missing is the text's first heading, else the default, else the id. A ``url`` that is no
    web address stays in the metadata.

    Raises:
        Refused: There is no text, the id cannot be used, or the metadata is too large.
    """
    text = normalised(text)
    path, default_title = clean(path), clean(default_title)
    if not text:
        raise Refused("has no text")
    metadata = dict(fields)
    name = _identifier(metadata.pop("id", None))
    title = _line(metadata.pop("title", None)) or _line(_first_heading(text)) or default_title or name
    url = _web_address(metadata.get("url"))
    if url or metadata.get("url") in (None, ""):
        metadata.pop("url", None)
    return Document(id=name, title=title, text=text, url=url, metadata=_plain(metadata), path=path)


def normalised(text: str) -> str:
    """Return the text cleaned, with one kind of line end, without blank lines around it."""
    text = clean(text).replace("\r\n", "\n").replace("\r", "\n")
    return text.strip("\n").rstrip() if text.strip() else ""


def decoded(data: bytes) -> str:
    """Return UTF-8 as text, without its byte order mark.

    Raises:
        Refused: It is empty or not UTF-8; the message names the byte, from 0.
    """
    if not data.strip():
        raise Refused("is empty")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Refused(f"is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}") from None


def escaped(paragraph: str) -> str:
    """Return a paragraph that was not Markdown, so that it stays one."""
    marks = MARKS.match(paragraph)
    at = 0 if marks is None or marks.group(1) else marks.end()
    return f"{paragraph[:at]}\\{paragraph[at:]}" if marks else paragraph


def _identifier(value: object) -> str:
    if value is None or value == "":
        raise Refused("has no id")
    if isinstance(value, bool) or not isinstance(value, str | int | float | date):
        raise Refused("has an id that is not text")
    name = clean(str(value)).strip()
    if not name or any(unicodedata.category(char) == "Cc" for char in name):
        raise Refused("has an id with control characters" if name else "has no id")
    if {".", ".."} & set(name.split("/")):
        raise Refused("has an id with a part . or .., which has no place in an address")
    if len(name) > MAX_ID_CHARS:
        raise Refused(f"has an id of {len(name)} characters; {MAX_ID_CHARS} are allowed")
    return name


def _line(value: object) -> str:
    """Return a title as one line."""
    line = " ".join(clean(str(value)).split()) if value is not None else ""
    return line if len(line) <= MAX_TITLE_CHARS else line[: MAX_TITLE_CHARS - 1] + "…"


def _first_heading(text: str) -> str | None:
    return next((inline(block.title) for block in blocks(text) if block.kind == "heading"), None)


def _web_address(value: object) -> str | None:
    address = value.strip() if isinstance(value, str) else ""
    is_plain = len(address) <= MAX_URL_CHARS and not re.search(r"[\s\x00-\x1f\ud800-\udfff]", address)
    return address if is_plain and address.lower().startswith(("http://", "https://")) else None


def _plain(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return metadata that JSON can hold."""
    plain = _Plain()
    return {plain.text(key): plain.value(value, 1) for key, value in fields.items()}


class _Plain:
    """Turns what YAML and JSON may hold into what JSON and PostgreSQL can store.

    The size is counted on the way: a few lines of YAML aliases can stand for gigabytes.
    """

    def __init__(self) -> None:
        self._chars = 0

    def value(self, value: object, depth: int) -> Any:  # JSON
        self._count(1)
        if depth > MAX_METADATA_DEPTH:
            raise Refused(f"has metadata nested more than {MAX_METADATA_DEPTH} deep")
        if isinstance(value, Mapping):
            return {self.text(key): self.value(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(entry, depth + 1) for entry in value]
        if isinstance(value, int) and abs(value) > BIGGEST_INTEGER:
            raise Refused("has a number in its metadata that is too large")
        is_json = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
        text = self.text(value)
        return value if is_json else text

    def text(self, value: object) -> str:
        text = clean(value.isoformat() if isinstance(value, date | time) else str(value))
        self._count(len(text))
        return text

    def _count(self, chars: int) -> None:
        self._chars += chars
        if self._chars > MAX_METADATA_CHARS:
            raise Refused(f"has more than {MAX_METADATA_CHARS // 1024} KB of metadata")

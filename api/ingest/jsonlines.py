"""JSON lines: a document a line, read as a stream."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from api.ingest.document import BadDocument, Document, Refused, decoded, document

MAX_LINE_BYTES = 50_000_000


def read_jsonlines(path: Path, _default_id: str) -> Iterator[Document | BadDocument]:
    """Yield a document of each line, or why it gives none; blank lines are passed over.

    ``_id`` or ``id``, ``title``, ``text`` and ``url`` are the document's own, what is under ``metadata`` and
    all the rest its metadata. A line with a title but no text has the title for text.

    Raises:
        Refused: There is no line, or the compressed file is broken.
    """
    number = 0
    try:
        with _opened(path) as file:
            for number, line in _lines(file):
                yield _entry(line, f"{path}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Refused("is broken from here on: not gzip, or cut off", number + 1) from None
    if not number:
        raise Refused("is empty")


def count_lines(path: Path) -> int:
    """Return how many documents and failures :func:`read_jsonlines` gives."""
    number = 0
    try:
        with _opened(path) as file:
            for _ in _lines(file):
                number += 1
    except (OSError, EOFError, zlib.error):
        number += 1
    return max(number, 1)


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number and the bytes of lines that are not blank; None instead of a line above the limit."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        rest = line
        while not is_whole and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        if line.strip():
            yield number, line if is_whole else None


def _entry(line: bytes | None, path: str) -> Document | BadDocument:
    try:
        if line is None:
            raise Refused(f"is longer than {MAX_LINE_BYTES // 1_000_000} MB")
        return _document(_object(decoded(line.rstrip(b"\r\n"))), path)
    except Refused as refused:
        return BadDocument(path, str(refused))


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Refused(f"is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Refused("is not JSON that can be read: nested too deeply, or a number too large") from None
    if not isinstance(value, dict):
        raise Refused("is not a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"is not JSON: {name} is no number")


def _document(entry: dict[str, Any], path: str) -> Document:
    nested = entry.pop("metadata", None) or {}
    if not isinstance(nested, dict):
        nested = {"metadata": nested}
    own = {"id": entry.pop("_id", None) or entry.get("id"), "title": entry.get("title")}
    text, title = entry.pop("text", None) or "", own["title"] or ""
    if not isinstance(text, str) or not isinstance(title, str):
        raise Refused("has a text or a title that is not text")
    if title.strip() and not text.strip():
        text = f"# {title}"
    return document(text, {**nested, **entry, **own}, path=path)

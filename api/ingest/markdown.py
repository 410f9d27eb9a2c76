"""Markdown with front matter, and plain text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from api.ingest.document import Document, Refused, decoded, document

MAX_FRONT_MATTER_CHARS = 65_536


def read_markdown(path: Path, default_id: str) -> Iterator[Document]:
    """Yield the document; front matter between ``---`` lines gives its id, title, url and metadata.

    Raises:
        Refused: It is empty, not UTF-8, or its front matter is not YAML.
    """
    fields, text = front_matter(decoded(path.read_bytes()))
    if fields.get("id") in (None, ""):
        fields["id"] = default_id
    yield document(text, fields, path=str(path), default_title=path.stem)


def read_text(path: Path, default_id: str) -> Iterator[Document]:
    """Yield the document; the text is taken for Markdown, since most text is.

    Raises:
        Refused: It is empty or not UTF-8.
    """
    text = decoded(path.read_bytes())
    yield document(text, {"id": default_id}, path=str(path), default_title=path.stem)


def front_matter(text: str) -> tuple[dict[Any, Any], str]:
    """Return the fields of the front matter, and the text behind it.

    Two rules with prose between them are no front matter.

    Raises:
        Refused: It is not YAML, or above 64 KB.
    """
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return {}, text
    end = next((i for i, line in enumerate(lines) if i and line.rstrip() in ("---", "...")), None)
    if end is None:
        return {}, text
    fields = _fields("\n".join(lines[1:end]))
    return ({}, text) if fields is None else (fields, "\n".join(lines[end + 1 :]))


def _fields(source: str) -> dict[Any, Any] | None:
    if len(source) > MAX_FRONT_MATTER_CHARS:
        raise Refused(f"has more than {MAX_FRONT_MATTER_CHARS // 1024} KB of front matter")
    try:
        fields = yaml.safe_load(source)
    except yaml.MarkedYAMLError as error:
        raise Refused(f"has broken front matter: {error.problem}", _line_number(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(f"has broken front matter: {str(error).splitlines()[0]}") from None
    return fields if isinstance(fields, dict) else {} if fields is None else None


def _line_number(error: yaml.MarkedYAMLError) -> int | None:
    """Return the line in the file: YAML counts from 0, and ``---`` comes before."""
    return error.problem_mark.line + 2 if error.problem_mark else None

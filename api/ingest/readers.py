"""Files found and read, each by its suffix; a bad one is reported and never stops the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from api.ingest.document import BadDocument, Document, Refused
from api.ingest.jsonlines import count_lines, read_jsonlines
from api.ingest.markdown import read_markdown, read_text
from pipeline.text import clean

__all__ = ["SUFFIXES", "BadDocument", "Document", "count", "find", "read"]

MAX_FILE_BYTES = 50_000_000
"""Of all but JSON lines, which are read as a stream."""

Reader = Callable[[Path, str], Iterator[Document | BadDocument]]


def _read_webpage(path: Path, default_id: str) -> Iterator[Document | BadDocument]:
    from api.ingest.webpage import read_webpage  # noqa: PLC0415  # Beautiful Soup takes a while to import

    return read_webpage(path, default_id)


def _read_pdf(path: Path, default_id: str) -> Iterator[Document | BadDocument]:
    from api.ingest.pdf import read_pdf  # noqa: PLC0415  # pypdf takes a while to import

    return read_pdf(path, default_id)


READERS: dict[str, Reader] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".html": _read_webpage,
    ".htm": _read_webpage,
    ".pdf": _read_pdf,
    ".jsonl": read_jsonlines,
    ".ndjson": read_jsonlines,
    ".jsonl.gz": read_jsonlines,
    ".ndjson.gz": read_jsonlines,
}
SUFFIXES = tuple(READERS)


def find(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files at and below ``paths``, each once, with the folder that its id is relative to.

    Folders are walked in order of name; in them hidden files and unknown suffixes are passed over. What is
    named itself is always yielded, so that :func:`read` can say what is wrong with it.
    """
    seen: set[Path] = set()
    for path in paths:
        found = ((file, path) for file in _below(path)) if path.is_dir() else iter([(path, Path())])
        for file, root in found:
            if file.absolute() not in seen:
                seen.add(file.absolute())
                yield file, root


def read(path: Path, *, root: Path | None = None) -> Iterator[Document | BadDocument]:
    """Yield the documents of one file, and what of it gives none; never raises for what is in the file.

    A document without an id of its own has its path for id: relative to ``root``, parts joined by ``/``.
    """
    try:
        yield from _reader(path)(path, _relative(path, root))
    except Refused as refused:
        yield BadDocument(clean(str(path)) if refused.line is None else f"{path}:{refused.line}", str(refused))
    except OSError as error:
        yield BadDocument(clean(str(path)), f"cannot be read: {error.strerror or type(error).__name__}")
    except Exception as fault:  # noqa: BLE001  # parsers raise what they like for what is in a file
        yield BadDocument(clean(str(path)), f"cannot be read: {type(fault).__name__}")


def count(path: Path) -> int:
    """Return how many documents and failures :func:`read` gives: one a file, one a line of JSON lines."""
    return count_lines(path) if READERS.get(_suffix(path) or "") is read_jsonlines else 1


def _below(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)
        elif _suffix(entry) and entry.is_file():
            yield entry


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _reader(path: Path) -> Reader:
    if not path.exists():
        raise Refused("does not exist")
    if not path.is_file():
        raise Refused("is a folder that cannot be read" if path.is_dir() else "is not a regular file")
    suffix = _suffix(path)
    if suffix is None:
        raise Refused(f"is of an unsupported kind; supported are {', '.join(SUFFIXES)}")
    reader = READERS[suffix]
    if reader is not read_jsonlines and path.stat().st_size > MAX_FILE_BYTES:
        raise Refused(f"is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    return reader


def _relative(path: Path, root: Path | None) -> str:
    if root == Path():
        here, there = Path.cwd(), path.absolute()
        path = there.relative_to(here) if there.is_relative_to(here) else there.relative_to(there.anchor)
    elif root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    return clean(path.as_posix())

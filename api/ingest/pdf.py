"""PDF: the text of its pages, put together to paragraphs again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError

from api.ingest.document import Document, Refused, document, escaped

BULLET = re.compile(r"[•◦▪‣●○·–\uf0b7\uf0a7][ \t]+")
PAGE_NUMBER = re.compile(r"\s*(?:[Pp]age\s+)?\d{1,4}(?:\s+(?:of|/)\s+\d{1,4})?\s*")
NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2})*\.?[ \t]+[A-Z]")
SHORT = 0.75
"""Of the usual width: a shorter line may end its paragraph."""
USUAL = 0.8
"""Of the lines are no longer than the usual width."""


def read_pdf(path: Path, default_id: str) -> Iterator[Document]:
    """Yield the document; its title is that of the PDF's own metadata, else the file's name.

    Raises:
        Refused: It is broken, needs a password, or has no text, as scanned pages have none.
    """
    title, pages = _contents(path)
    text = "\n\n".join(paragraphs(pages))
    if not text:
        raise Refused("has no text; its pages may be scanned images")
    yield document(
        text, {"id": default_id, "title": title, "pages": len(pages)}, path=str(path), default_title=path.stem
    )


def _contents(path: Path) -> tuple[str | None, list[str]]:
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    if not path.stat().st_size:
        raise Refused("is empty")
    try:
        with path.open("rb") as file:
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Refused("is encrypted: it needs a password")
            return _title(reader), [page.extract_text() for page in reader.pages]
    except (DependencyError, FileNotDecryptedError):
        raise Refused("is encrypted") from None
    except (Refused, OSError):
        raise
    except Exception as error:  # a broken PDF breaks pypdf in any way
        raise Refused(f"is not a PDF that can be read: {type(error).__name__}") from error


def _title(reader: PdfReader) -> str | None:
    title = reader.metadata.title if reader.metadata else None
    return title if title and title.strip().lower() != "untitled" else None


def paragraphs(pages: list[str]) -> list[str]:
    """Return the paragraphs of pages whose lines are as they were printed, over the page breaks.

    Words that were hyphenated between lines are joined; lines with a bullet become items.
    """
    lines = [" ".join(line.split()) for line in chain.from_iterable(map(_printed, pages))]
    widths = sorted(len(line) for line in lines if line)
    usual = widths[int(USUAL * (len(widths) - 1))] if widths else 0
    found: list[str] = []
    before = ""
    for line in lines:
        if line and before and not _begins(before, line, SHORT * usual):
            found[-1] = _joined(found[-1], line)
        elif line:
            found.append(BULLET.sub("- ", line) if BULLET.match(line) else escaped(line))
        before = line
    return found


def _printed(page: str) -> list[str]:
    """Return the lines of a page without its number, and a blank one if its last sentence ends with it."""
    lines = page.strip().split("\n")
    if PAGE_NUMBER.fullmatch(lines[0]):
        del lines[0]
    if lines and PAGE_NUMBER.fullmatch(lines[-1]):
        del lines[-1]
    return [*lines, ""] if lines and lines[-1].rstrip().endswith((".", "!", "?")) else lines


def _begins(before: str, line: str, short: float) -> bool:
    """Return whether a line begins a paragraph, a heading or an item."""
    if BULLET.match(line):
        return True
    if len(before) < short:
        return before[-1] in ".!?:" or not line[0].islower()
    return before[-1] in ".!?:" and len(line) < short and bool(NUMBERED.match(line))


def _joined(text: str, line: str) -> str:
    is_hyphenated = len(text) > 1 and text[-1] == "-" and text[-2].islower() and line[0].islower()
    return text[:-1] + line if is_hyphenated else f"{text} {line}"

"""Uploaded files, kept in a temporary folder for as long as they are read."""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from api.ingest.readers import BadDocument, Document, count, read
from pipeline.text import clean
from pipeline.threads import Threads

MAX_NAME_BYTES = 255
"""Of a file's name, to most file systems."""
UNNAMED = "unnamed"


class Spool:
    """The files of one upload, each in a folder of its own, so that two may have one name."""

    def __init__(self, threads: Threads) -> None:
        self.files: list[Path] = []
        self._threads = threads
        self._folder = Path(tempfile.mkdtemp(prefix="stagecast-upload-"))

    def create(self, name: str) -> BinaryIO:
        """Return a new file to write to; of the name that it was sent with, what is harmless is kept."""
        folder = self._folder / str(len(self.files))
        folder.mkdir()
        self.files.append(folder / harmless(name))
        return self.files[-1].open("xb")

    async def write(self, file: BinaryIO, piece: bytes) -> None:
        """Write to one of the files; disks may be slow."""
        await self._threads.run(file.write, piece)

    def count(self) -> int:
        """Return how many documents and failures :meth:`items` gives."""
        return sum(count(file) for file in self.files)

    def items(self) -> Iterator[Document | BadDocument]:
        """Yield what is in the files, under the names that they were sent with."""
        for file in self.files:
            for item in read(file, root=file.parent):
                yield msgspec.structs.replace(item, path=item.path.rpartition("/")[2])

    async def remove(self) -> None:
        """Remove the files; whoever reads them even now finds nothing more."""
        await self._threads.run(shutil.rmtree, self._folder, ignore_errors=True)


def harmless(name: str) -> str:
    """Return the last part of a name, on whatever system it was made, as one that hides and overwrites nothing.

    Of one that is too long the end is kept: there is the suffix.
    """
    base = re.split(r"[/\\]", clean(name))[-1]
    visible = "".join(char for char in base if unicodedata.category(char) != "Cc")
    kept = visible.strip().encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    return kept.lstrip(". ") or UNNAMED

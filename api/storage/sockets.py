"""The Unix socket of the embedded server: its folder, and as much of PostgreSQL's protocol as a start needs."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from api.storage.accounts import Account, own

PORT = 5432
"""Part of the socket's name; nothing listens on the network."""
USER = "stagecast"
READY = ""
NO_SUCH_DATABASE = "3D000"
_PREFIX = "stagecast-"
_PROTOCOL_3 = 196608


@contextmanager
def private_folder(note: Path, account: Account | None) -> Iterator[Path]:
    """Lend a new folder for sockets that only we and ``account`` may enter, its path written to the file ``note``.

    Its path is short, as the system allows a socket 107 bytes at most. The one that ``note`` named is removed.
    """
    if former := noted(note):
        _remove(former, account)
    root = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None  # noqa: S108 - mkdtemp makes it private
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    try:
        own(folder, account)
        draft = note.with_suffix(".new")
        draft.write_bytes(os.fsencode(folder))
        draft.replace(note)
        yield folder
    finally:
        note.unlink(missing_ok=True)
        _remove(folder, account)


def clear(folder: Path) -> None:
    """Remove the socket of a dead server, and its lock."""
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (folder / name).unlink(missing_ok=True)


def noted(note: Path) -> Path | None:
    """Return the folder that ``note`` names, None if there is none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return Path(os.fsdecode(note.read_bytes()))
    return None


def url(folder: Path, database: str) -> str:
    """Return the SQLAlchemy URL of ``database``; it names the port too, lest PGPORT be asked."""
    return f"postgresql+asyncpg://{USER}@/{database}?host={quote(str(folder), safe='')}&port={PORT}"


def state(folder: Path, database: str, statement: str | None = None, *, timeout_s: float = 10.0) -> str | None:
    """Connect to ``database``, run ``statement`` there if there is one, and return how the server took it.

    Returns:
        ``READY``; or the SQLSTATE with which it refused, such as 57P03 while it starts; or None if nobody answers.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(folder / f".s.PGSQL.{PORT}"))
            return _talk(connection, database, statement)
        except OSError:
            return None


def _remove(folder: Path, account: Account | None) -> None:
    # In a folder that everybody can write, only the owner tells ours from somebody else's of the same name.
    owners = (os.geteuid(), account.uid if account else os.geteuid())
    with suppress(OSError):
        if folder.name.startswith(_PREFIX) and folder.lstat().st_uid in owners:
            shutil.rmtree(folder)


def _talk(connection: socket.socket, database: str, statement: str | None) -> str | None:
    names = f"user\0{USER}\0database\0{database}\0\0".encode()
    connection.sendall(_message(b"", struct.pack("!i", _PROTOCOL_3) + names))
    with connection.makefile("rb") as answers:
        answer = _outcome(answers)
        if answer == READY and statement is not None:
            connection.sendall(_message(b"Q", statement.encode() + b"\0"))
            answer = _outcome(answers)
    if answer == READY:
        connection.sendall(_message(b"X", b""))
    return answer


def _message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(payload)) + payload


def _outcome(answers: BinaryIO) -> str | None:
    while header := answers.read(5):
        kind, size = struct.unpack("!ci", header)
        payload = answers.read(size - 4)
        if kind == b"E":
            return next(field[1:].decode() for field in payload.split(b"\0") if field[:1] == b"C")
        if kind == b"Z":
            return READY
    return None

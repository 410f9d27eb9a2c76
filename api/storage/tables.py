"""The tables; their changes are in ``alembic/versions``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonObject = dict[str, Any]

VECTOR_INDEX = "ix_chunk_embedding"
"""Made when the store is given its embedder, since it needs the vectors' dimension; not part of the migrations."""


ONE_RUN_A_SESSION = "uq_run_session_id_running"
ONE_RUN_A_KEY = "uq_run_idempotency_key"


class Base(DeclarativeBase):
    """What all tables share: names for constraints, so that migrations can find them, and types."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, datetime: DateTime(timezone=True), JsonObject: JSONB, list[JsonObject]: JSONB}  # noqa: RUF012  # SQLAlchemy's own name and form


class ApiKey(Base):
    """A key that callers may show; several may have one owner, so that one can be changed for another."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    """SHA-256 of the key, which is kept nowhere."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Session(Base):
    """A conversation; its id is the client's, so that two owners may choose the same."""

    __tablename__ = "session"
    __table_args__ = (Index(None, "owner", "updated_at"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    """Of sessions, runs and documents: the name of the caller's key; empty where callers need none."""
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Run(Base):
    """One question and its answer."""

    __tablename__ = "run"
    __table_args__ = (
        CheckConstraint("status in ('running', 'completed', 'cancelled', 'error')", name="status"),
        ForeignKeyConstraint(["owner", "session_id"], ["session.owner", "session.id"], ondelete="CASCADE"),
        Index(None, "owner", "session_id"),
        Index(ONE_RUN_A_SESSION, "owner", "session_id", unique=True, postgresql_where=text("status = 'running'")),
        Index(ONE_RUN_A_KEY, "owner", "idempotency_key", unique=True),
        Index("ix_run_running", "worker", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    session_id: Mapped[str]
    message_id: Mapped[str]
    status: Mapped[str]
    sources: Mapped[list[JsonObject]] = mapped_column(server_default="[]")
    stages: Mapped[JsonObject] = mapped_column(server_default="{}")
    elapsed_ms: Mapped[float | None]
    first_token_ms: Mapped[float | None]
    token_count: Mapped[int | None]
    finish_reason: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    error: Mapped[JsonObject | None]
    events: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The frames as they were sent, compressed; null while the run is under way and after its retention."""
    recording: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What each stage left for the next, compressed; null as ``events`` is, and where it could not be kept."""
    worker: Mapped[int] = mapped_column(BigInteger)
    """Key of the advisory lock that the run's process holds for as long as it lives."""
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Message(Base):
    """A turn of a conversation; ``status`` tells whether an answer is whole."""

    __tablename__ = "message"
    __table_args__ = (
        CheckConstraint("role in ('user', 'assistant')", name="role"),
        CheckConstraint("status in ('completed', 'cancelled', 'error')", name="status"),
        ForeignKeyConstraint(["owner", "session_id"], ["session.owner", "session.id"], ondelete="CASCADE"),
        Index(None, "owner", "session_id", "number"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity())
    owner: Mapped[str]
    session_id: Mapped[str]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    role: Mapped[str]
    content: Mapped[str]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Document(Base):
    """A document as it was read; ``text`` is Markdown. What has no owner may be read by everybody."""

    __tablename__ = "document"

    owner: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    url: Mapped[str | None]
    text: Mapped[str]
    meta: Mapped[JsonObject]
    path: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of all that was read, to skip unchanged documents."""
    chunk_count: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(Computed("octet_length(text)", persisted=True))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Chunk(Base):
    """A piece of a document, the unit of retrieval."""

    __tablename__ = "chunk"
    __table_args__ = (
        ForeignKeyConstraint(["owner", "document_id"], ["document.owner", "document.id"], ondelete="CASCADE"),
        Index(None, "owner", "document_id"),
        Index("ix_chunk_private", "id", "owner", postgresql_where=text("owner <> ''")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner: Mapped[str]
    document_id: Mapped[str]
    position: Mapped[int]
    heading: Mapped[str]
    text: Mapped[str]
    embedding: Mapped[Any] = mapped_column(HALFVEC())
    sentences: Mapped[bytes] = mapped_column(LargeBinary)
    """Vectors of the sentences of ``text``, in order, as float16."""


class Posting(Base):
    """How often a term stands in a chunk."""

    __tablename__ = "posting"
    __table_args__ = (
        PrimaryKeyConstraint("term", "chunk_id", postgresql_include=["tf", "length"]),
        Index(None, "chunk_id"),
    )

    term: Mapped[str]
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunk.id", ondelete="CASCADE"))
    tf: Mapped[int] = mapped_column(SmallInteger)
    length: Mapped[int]
    """Terms of the chunk with title and heading, repetitions counted; here, and in the primary key's index with ``tf``,
    so that a query reads that index only."""


class Term(Base):
    """In how many chunks a term stands."""

    __tablename__ = "term"

    term: Mapped[str] = mapped_column(primary_key=True)
    chunks: Mapped[int]


class Store(Base):
    """The one row that says what the chunks were embedded with, and how many there are."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    embedder: Mapped[str]
    dimension: Mapped[int]
    chunks: Mapped[int] = mapped_column(BigInteger, server_default="0")
    length: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Sum of the chunks' lengths."""

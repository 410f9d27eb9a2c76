"""owners of sessions, runs and documents, and the keys that callers show

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RUNNING = sa.text("status = 'running'")
OWNED = ("session", "run", "message", "document", "chunk")
REFERENCES = (("run", "session"), ("message", "session"), ("chunk", "document"))
"""Tables, and those that they refer to by owner and id."""


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_key_digest")),
    )
    for table in OWNED:
        op.add_column(table, sa.Column("owner", sa.Text(), nullable=False, server_default=""))
        op.alter_column(table, "owner", server_default=None)
    for table, target in REFERENCES:
        op.drop_constraint(op.f(f"fk_{table}_{target}_id"), table)
    for target in ("session", "document"):
        op.drop_constraint(op.f(f"pk_{target}"), target)
        op.create_primary_key(op.f(f"pk_{target}"), target, ["owner", "id"])
    for table, target in REFERENCES:
        op.create_foreign_key(
            op.f(f"fk_{table}_owner_{target}_id"),
            table,
            target,
            ["owner", f"{target}_id"],
            ["owner", "id"],
            ondelete="CASCADE",
        )
    _index("session", "updated_at")
    _index("run", "session_id")
    _index("message", "session_id", "number")
    _index("chunk", "document_id")
    op.create_index("ix_chunk_private", "chunk", ["id", "owner"], postgresql_where=sa.text("owner <> ''"))
    op.drop_index("uq_run_session_id_running", table_name="run")
    op.create_index("uq_run_session_id_running", "run", ["owner", "session_id"], unique=True, postgresql_where=RUNNING)
    op.drop_index("uq_run_idempotency_key", table_name="run")
    op.create_index("uq_run_idempotency_key", "run", ["owner", "idempotency_key"], unique=True)


def _index(table: str, *columns: str) -> None:
    """Put the owner in front of an index."""
    op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
    op.create_index(op.f(f"ix_{table}_owner_{'_'.join(columns)}"), table, ["owner", *columns])


def downgrade() -> None:
    """Give up what has an owner: ids may be the same for two of them."""
    op.drop_table("api_key")
    for table in ("session", "document"):
        op.execute(f"delete from {table} where owner <> ''")  # noqa: S608  # two names of ours
    for table, target in REFERENCES:
        op.drop_constraint(op.f(f"fk_{table}_owner_{target}_id"), table)
    for table in OWNED:  # with the column go its indexes and primary keys
        op.drop_column(table, "owner")
    for target in ("session", "document"):
        op.create_primary_key(op.f(f"pk_{target}"), target, ["id"])
    for table, target in REFERENCES:
        op.create_foreign_key(
            op.f(f"fk_{table}_{target}_id"), table, target, [f"{target}_id"], ["id"], ondelete="CASCADE"
        )
    op.create_index(op.f("ix_session_updated_at"), "session", ["updated_at"])
    op.create_index(op.f("ix_run_session_id"), "run", ["session_id"])
    op.create_index(op.f("ix_message_session_id_number"), "message", ["session_id", "number"])
    op.create_index(op.f("ix_chunk_document_id"), "chunk", ["document_id"])
    op.create_index("uq_run_session_id_running", "run", ["session_id"], unique=True, postgresql_where=RUNNING)
    op.create_index("uq_run_idempotency_key", "run", ["idempotency_key"], unique=True)

"""runs that can be replayed, sessions with titles

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

RUNNING = sa.text("status = 'running'")


def upgrade() -> None:
    op.execute("update run set status = 'error' where status = 'running'")
    op.add_column("run", sa.Column("events", sa.LargeBinary(), nullable=True))
    op.add_column("run", sa.Column("worker", sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("run", "worker", server_default=None)
    op.add_column("run", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("request_digest", sa.LargeBinary(), nullable=True))
    op.add_column("run", sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("session", sa.Column("title", sa.Text(), nullable=False, server_default=""))
    op.alter_column("session", "title", server_default=None)
    op.create_index(op.f("ix_session_updated_at"), "session", ["updated_at"], unique=False)
    op.create_index("ix_run_running", "run", ["worker"], unique=False, postgresql_where=RUNNING)
    op.create_index("uq_run_idempotency_key", "run", ["idempotency_key"], unique=True)
    op.create_index("uq_run_session_id_running", "run", ["session_id"], unique=True, postgresql_where=RUNNING)


def downgrade() -> None:
    op.drop_index(op.f("ix_session_updated_at"), table_name="session")
    op.drop_column("session", "title")
    op.drop_index("uq_run_session_id_running", table_name="run")
    op.drop_index("uq_run_idempotency_key", table_name="run")
    op.drop_index("ix_run_running", table_name="run")
    for column in ("finished_at", "request_digest", "idempotency_key", "worker", "events"):
        op.drop_column("run", column)

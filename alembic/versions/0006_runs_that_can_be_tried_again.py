"""what each stage of a run left for the next, so that later stages can be tried again

Revision: 0006, after 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table run add column recording bytea")


def downgrade() -> None:
    op.execute("alter table run drop column recording")

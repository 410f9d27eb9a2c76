"""postings read from their index alone

Revision: 0004, after 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = "alter table posting drop constraint pk_posting, add constraint pk_posting primary key (term, chunk_id)"


def upgrade() -> None:
    op.execute(f"{KEY} include (tf, length)")


def downgrade() -> None:
    op.execute(KEY)

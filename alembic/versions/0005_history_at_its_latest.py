"""a conversation that is read when its next run is stored, not as it was when the statement began

Revision: 0005, after 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TURNS_BEFORE = """
create function turns_before(run_id text, owner text, session_id text, most int)
returns table (role text, content text, whole bool) language plpgsql volatile as $$
begin
    return query select m.role, m.content, m.status = 'completed' from message m
        where m.owner = turns_before.owner and m.session_id = turns_before.session_id
              and m.run_id <> turns_before.run_id and m.content <> ''
        order by m.number desc limit most;
end
$$
"""
"""Latest first. A volatile function sees what was stored up to its call, a statement only what was before itself."""


def upgrade() -> None:
    op.execute(TURNS_BEFORE)


def downgrade() -> None:
    op.execute("drop function turns_before")

"""postings that are read from their index alone, and in which titles count twice

Revision: 0004, after 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

POSTINGS = """
insert into posting (term, chunk_id, tf, length)
select lexeme, id, least(tf, 32767), sum(tf) over (partition by id)
  from (select c.id, t.lexeme, cardinality(t.positions) as tf
          from chunk c join document d on d.owner = c.owner and d.id = c.document_id,
               unnest(to_tsvector('english', concat_ws(' ', {title}, c.heading, c.text))) as t) as terms
"""


def upgrade() -> None:
    _write_postings("d.title, d.title", "include (tf, length)")


def downgrade() -> None:
    _write_postings("d.title", "")


def _write_postings(title: str, include: str) -> None:
    op.execute("truncate posting, term")
    op.execute("alter table posting drop constraint pk_posting")
    op.execute(POSTINGS.format(title=title))
    op.execute(f"alter table posting add constraint pk_posting primary key (term, chunk_id) {include}")
    op.execute("insert into term (term, chunks) select term, count(*) from posting group by term")
    op.execute(
        "update store set length = (select coalesce(sum(length), 0) "
        "from (select distinct chunk_id, length from posting) as chunks)"
    )

"""Migrations: up, down, and no drift between them and the tables."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import inspect, text

from api.storage import database, migrate
from api.storage.documents import Documents
from api.storage.tables import VECTOR_INDEX, Base
from pipeline.fakes import FakeEmbedder


@pytest.fixture
async def engine(new_database_async):
    engine = database.connect(await new_database_async(), 3)
    yield engine
    await engine.dispose()


def tables(connection):
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def drift(connection):
    assert connection.dialect.ischema_names["halfvec"] is HALFVEC
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_object": lambda _o, name, *_: name != VECTOR_INDEX,
        },
    )
    return compare_metadata(context, Base.metadata)


async def test_an_upgrade_makes_all_tables_and_a_second_one_changes_nothing(engine):
    await migrate.upgrade(engine)
    await migrate.upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(tables) == set(Base.metadata.tables)


async def test_the_migrations_make_exactly_the_tables_that_the_code_describes(engine):
    await migrate.upgrade(engine)
    await Documents(engine).bind(FakeEmbedder())
    async with engine.connect() as connection:
        assert await connection.run_sync(drift) == []


async def test_a_column_that_no_migration_made_is_seen_as_drift(engine):
    await migrate.upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("alter table run add column surprise int"))
        assert await connection.run_sync(drift)


async def test_a_downgrade_leaves_no_table_and_can_be_undone(engine):
    await migrate.upgrade(engine)
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: command.downgrade(migrate.config(sync), "base"))
        await connection.commit()
        assert await connection.run_sync(tables) == set()
    await migrate.upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(tables) == set(Base.metadata.tables)


async def test_a_database_without_pgvector_is_refused_with_the_remedy(engine, monkeypatch):
    monkeypatch.setattr(migrate, "OLDEST_PGVECTOR", (99, 0))
    with pytest.raises(migrate.PgvectorMissing, match="create extension vector"):
        await migrate.upgrade(engine)


async def test_postings_are_read_from_an_index_that_has_all_of_them(engine):
    await migrate.upgrade(engine)
    asked = "select tf, length from posting where term = 'headache'"
    async with engine.connect() as connection:
        await connection.execute(text("set enable_seqscan = off"))
        await connection.execute(text("set enable_bitmapscan = off"))
        assert "Index Only Scan" in await connection.scalar(text(f"explain {asked}"))

"""Migrations: up, down, and no drift between them and the tables."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import inspect, text

from api.ingest.document import Document
from api.ingest.writer import Prepared, writer
from api.storage import database, migrate
from api.storage.documents import Documents
from api.storage.tables import VECTOR_INDEX, Base
from pipeline.chunking import Chunk
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


async def test_tables_of_a_newer_version_are_told_and_left_alone(engine):
    await migrate.upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(migrate.NewerTables, match=r"newer version.*9999"):
        await migrate.upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(text("select version_num from alembic_version")) == "9999"


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
    async with engine.connect() as connection:
        for other in ("seqscan", "bitmapscan"):
            await connection.execute(text(f"set enable_{other} = off"))
        asked = "explain select tf, length from posting where term = 'headache'"
        assert "Index Only Scan" in await connection.scalar(text(asked))


async def postings(connection):
    kept = []
    for wanted in ("posting order by term, chunk_id", "term where chunks > 0 order by term", "store"):
        kept.append((await connection.execute(text(f"select * from {wanted}"))).all())
    return kept


async def test_a_store_of_before_has_its_titles_counted_twice_and_is_like_a_new_one(engine):
    await migrate.upgrade(engine)
    await Documents(engine).bind(FakeEmbedder())
    document = Document(id="aspirin", title="Aspirin and blood", text="It thins the blood.", path="")
    chunks = [Chunk(0, "", "It thins the blood."), Chunk(1, "Harm", "It upsets the stomach.")]
    vectors = await FakeEmbedder().embed([chunk.text for chunk in chunks])
    async with writer(engine) as store:
        await store.replace([Prepared(document, b"", chunks, vectors, [vectors[:1], vectors[1:]])])
    twice = "select tf from posting where term = 'blood' order by chunk_id"
    async with engine.connect() as connection:
        new = await postings(connection)
        assert list((await connection.execute(text(twice))).scalars()) == [3, 2]
        await connection.run_sync(lambda sync: command.downgrade(migrate.config(sync), "0003"))
        await connection.commit()
        assert list((await connection.execute(text(twice))).scalars()) == [2, 1]
    await migrate.upgrade(engine)
    async with engine.connect() as connection:
        assert await postings(connection) == new

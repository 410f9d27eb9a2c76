"""The retriever on a real PostgreSQL: what it scores, what it reads, and how often it asks."""

import math
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from api.ingest.document import Document
from api.ingest.writer import Prepared, writer
from api.storage import database, migrate
from api.storage.documents import Documents
from api.storage.patience import LimitedEngine
from api.storage.tables import VECTOR_INDEX
from pipeline.chunking import Chunk, embedded_text
from pipeline.fakes import FakeEmbedder
from pipeline.host import Host, Options
from pipeline.passages import embed_chunks
from pipeline.ports import Database, Scope
from pipeline.threads import Threads
from plugins import hybrid
from plugins.hybrid import HybridRetriever
from plugins.hybrid_queries import HYBRID, K1, B, statement

TEXTS = {
    "aspirin": ("Aspirin", "Aspirin thins the blood. Aspirin may upset the stomach."),
    "warfarin": ("Warfarin", "Warfarin thins the blood; an INR test guides it."),
    "migraine": ("Migraine", "A migraine is a headache with nausea, often on one side."),
    "insulin": ("Insulin", "Insulin lowers blood sugar."),
}


@pytest.fixture
async def engine(new_database_async):
    engine = database.connect(await new_database_async(), 2)
    await migrate.upgrade(engine)
    await Documents(engine).bind(FakeEmbedder())
    yield engine
    await engine.dispose()


@pytest.fixture
def retriever(engine):
    threads = Threads(1)
    yield HybridRetriever(
        Host(
            Options(data_dir=Path()), threads, {"embedder": lambda _: FakeEmbedder()}, {Database: LimitedEngine(engine)}
        )
    )
    threads.close()


async def store(engine, texts, owner="", **metadata):
    pieces = [(title, Chunk(0, "", content)) for title, content in texts.values()]
    vectors, sentences = await embed_chunks(FakeEmbedder(), pieces)
    documents = [
        Document(id=key, title=title, text=piece.text, metadata=metadata, path="")
        for key, (title, piece) in zip(texts, pieces, strict=True)
    ]
    ready = [
        Prepared(document, b"", [piece], vectors[n : n + 1], [sentences[n]])
        for n, (document, (_, piece)) in enumerate(zip(documents, pieces, strict=True))
    ]
    async with writer(engine, owner) as into:
        await into.replace(ready)


async def lexemes(engine, content):
    """Return how often each term stands in a text, as PostgreSQL finds them."""
    asked = text("select lexeme, cardinality(positions) from unnest(to_tsvector('english', :content))")
    async with engine.connect() as connection:
        return dict((await connection.execute(asked, {"content": content})).all())


async def test_a_passage_has_bm25_as_it_is_defined_and_the_cosine(engine, retriever):
    await store(engine, TEXTS)
    question = "Does aspirin thin blood?"
    terms = {key: await lexemes(engine, f"{title} {title} {content}") for key, (title, content) in TEXTS.items()}
    mean = sum(sum(found.values()) for found in terms.values()) / len(terms)
    query = (await FakeEmbedder().embed([question]))[0]
    found = {passage.document_id: passage for passage in await retriever.search(question, 10, Scope())}
    assert set(found) == set(TEXTS)
    for key, (title, content) in TEXTS.items():
        bm25, length = 0.0, sum(terms[key].values())
        for term in await lexemes(engine, question):
            having = sum(term in other for other in terms.values())
            idf = math.log(1 + (len(terms) - having + 0.5) / (having + 0.5))
            tf = terms[key].get(term, 0)
            bm25 += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / mean))
        assert found[key].scores["lexical"] == pytest.approx(bm25)
        vector = (await FakeEmbedder().embed([embedded_text(title, "", content)]))[0]
        assert found[key].scores["dense"] == pytest.approx(float(vector @ query), abs=2e-3)
        assert found[key].score == found[key].scores["fused"]


async def test_fewer_passages_are_the_first_of_more(engine, retriever):
    await store(engine, {f"d{n}": (f"Title {n}", f"blood number {n} and word{n % 7}") for n in range(80)})
    many = await retriever.search("blood of word3", 60, Scope())
    few = await retriever.search("blood of word3", 5, Scope())
    assert len(many) == 60
    assert [p.score for p in many] == sorted((p.score for p in many), reverse=True)
    fifty = await retriever.search("blood of word3", hybrid.DEPTH, Scope())
    assert few == fifty[:5]


async def test_only_what_the_asker_may_read_and_what_passes_the_filters_is_found(engine, retriever):
    await store(engine, TEXTS, kind=["drug", "advice"])
    for owner in ("alice", "bob"):
        await store(engine, {owner: (owner, "Aspirin thins the blood.")}, owner=owner, kind="note")

    async def ids(**scope):
        return {passage.document_id for passage in await retriever.search("aspirin blood", 10, Scope(**scope))}

    assert await ids() == set(TEXTS)
    assert await ids(owner="alice") == {*TEXTS, "alice"}
    assert await ids(owner="alice", filters={"kind": "note"}) == {"alice"}
    assert await ids(owner="alice", filters={"kind": "drug"}) == set(TEXTS)
    assert await ids(filters={"kind": "no such"}) == set()
    assert await ids(owner="alice", filters={"kind": "note", "year": 2024}) == set()


async def test_an_empty_collection_and_a_question_without_words_find_nothing_or_the_nearest(engine, retriever):
    assert await retriever.search("aspirin", 10, Scope()) == []
    await store(engine, TEXTS)
    found = await retriever.search("?!", 10, Scope())
    assert len(found) == len(TEXTS)
    assert {passage.scores["lexical"] for passage in found} == {0.0}


async def test_a_search_is_one_round_trip_to_the_database(engine, retriever, monkeypatch):
    sent = []
    await store(engine, TEXTS)
    await retriever.search("aspirin", 10, Scope())
    async with engine.connect() as connection:
        transport = (await connection.get_raw_connection()).driver_connection._transport
    write = transport.write

    def counted(message):
        sent.append(message)
        write(message)

    monkeypatch.setattr(transport, "write", counted)
    assert await retriever.search("blood", 10, Scope())
    assert len(sent) == 1


async def test_in_a_large_collection_both_indexes_are_read_whatever_the_question(engine, retriever):
    await store(engine, TEXTS)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "insert into chunk (document_id, owner, position, heading, text, embedding, sentences) "
                "select 'aspirin', '', n, '', 'x', "
                "array(select random() + 0 * n from generate_series(1, 64))::real[]::halfvec(64), '' "
                "from generate_series(1, 5000) as n"
            )
        )
        await connection.execute(
            text("insert into posting select 'w' || n % 500, id, 1, 10 from chunk, generate_series(1, 20) as n")
        )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("vacuum analyze"))
        query = statement(HYBRID, 64, hybrid.DEPTH, 0)
        found = await connection.exec_driver_sql(f"explain (generic_plan) {query}", ("w1", [0.5] * 64, ""))
        plan = found.scalars().all()
    shown = "\n".join(plan)
    assert f"using {VECTOR_INDEX}" in shown
    assert "Index Only Scan using pk_posting" in shown
    assert "Seq Scan on posting" not in shown


async def test_the_vectors_of_sentences_are_read_as_they_were_stored(engine, retriever):
    await store(engine, TEXTS)
    passages = await retriever.search("aspirin", 10, Scope())
    for passage, vectors in zip(passages, await retriever.sentence_vectors(passages), strict=True):
        _, (own,) = await embed_chunks(FakeEmbedder(), [(passage.title, Chunk(0, "", passage.text))])
        assert np.allclose(vectors, own, atol=1e-3)
    async with writer(engine) as into:
        await into._remove(["aspirin"])
    left = await retriever.sentence_vectors(passages)
    assert [len(vectors) > 0 for vectors in left] == [passage.document_id != "aspirin" for passage in passages]

"""The retriever ``qdrant`` beside a real PostgreSQL: in memory, in a folder, and on a server's routes."""

import asyncio
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient
from sqlalchemy import text

from api.ingest.document import Document
from api.ingest.writer import Prepared, writer
from api.storage import database, indexing, migrate
from api.storage.documents import Documents
from api.storage.indexing import catch_up
from api.storage.patience import LimitedEngine
from pipeline import registry
from pipeline.chunking import Chunk
from pipeline.errors import BadSetting, ConfigurationError, ModelUnavailable
from pipeline.fakes import FakeEmbedder
from pipeline.host import Host, Options
from pipeline.passages import embed_chunks
from pipeline.ports import Database, IndexedChunk, Scope
from pipeline.threads import Threads
from plugins.hybrid import HybridRetriever
from tests.qdrant_server import QdrantServer

TEXTS = {
    "aspirin": ["Aspirin thins the blood.", "Aspirin may upset the stomach.", "Aspirin is old."],
    "warfarin": ["Warfarin thins the blood; an INR test guides it."],
    "migraine": ["A migraine is a headache with nausea, often on one side."],
    "insulin": ["Insulin lowers blood sugar."],
}
EVERY = Scope()


@pytest.fixture
async def engine(new_database_async):
    engine = database.connect(await new_database_async(), 2)
    await migrate.upgrade(engine)
    await Documents(engine).bind(FakeEmbedder())
    yield engine
    await engine.dispose()


@pytest.fixture
def far_end():
    with QdrantServer() as server:
        yield server


@pytest.fixture
def host_of(tmp_path):
    """Return a function that makes the host of a database's engine, with settings of the retriever's own."""
    threads = Threads(2)

    def make(engine, embedder=FakeEmbedder, **settings):
        given = {f"STAGECAST_QDRANT_{name.upper()}": value for name, value in settings.items()}
        parts = {"embedder": lambda _: embedder()}
        return Host(Options(data_dir=tmp_path), threads, parts, {Database: LimitedEngine(engine)}, given)

    yield make
    threads.close()


@asynccontextmanager
async def opened(host):
    """Lend a retriever that has been asked what it holds."""
    retriever = registry.make("retriever", "qdrant", host)
    try:
        await retriever.held_chunks()
        yield retriever
    finally:
        await retriever.close()


@pytest.fixture
async def retriever(engine, host_of):
    async with opened(host_of(engine, url=":memory:")) as made:
        yield made


@pytest.fixture(params=["memory", "folder", "server"])
async def any_retriever(request, engine, host_of, far_end):
    settings = {"memory": {"url": ":memory:"}, "folder": {}, "server": {"url": far_end.url}}
    async with opened(host_of(engine, **settings[request.param])) as made:
        yield made


async def store(engine, retriever, texts=TEXTS, owner="", **metadata):
    """Store documents, each of the chunks that are its texts."""
    ready = []
    for key, pieces in texts.items():
        chunks = [Chunk(n, "Use", piece) for n, piece in enumerate(pieces)]
        vectors, sentences = await embed_chunks(FakeEmbedder(), [(key.title(), chunk) for chunk in chunks])
        document = Document(
            id=key, title=key.title(), url=f"https://e.org/{key}", text=" ".join(pieces), metadata=metadata, path=""
        )
        ready.append(Prepared(document, b"", chunks, vectors, sentences))
    async with writer(engine, owner, retriever) as into:
        await into.replace(ready)


async def stored_ids(engine):
    async with engine.connect() as connection:
        return sorted(await connection.scalars(text("select id from chunk")))


async def held_ids(retriever):
    return sorted((await retriever.held_chunks()).tolist())


async def found(retriever, question="aspirin blood", limit=10, **scope):
    return {passage.document_id for passage in await retriever.search(question, limit, Scope(**scope))}


async def test_passages_are_those_that_the_vectors_in_the_database_would_find(engine, host_of, any_retriever):
    await store(engine, any_retriever, year=1899)
    expected = await HybridRetriever(host_of(engine)).parts["dense"].search("Does aspirin thin blood?", 4, EVERY)
    passages = await any_retriever.search("Does aspirin thin blood?", 4, EVERY)
    assert len(passages) == 4
    assert [p.chunk_id for p in passages] == [p.chunk_id for p in expected]
    for one, other in zip(passages, expected, strict=True):
        assert one.scores.keys() == {"dense"}
        assert one.score == one.scores["dense"] == pytest.approx(other.score, abs=2e-3)
        names = ("document_id", "title", "url", "heading", "position", "text", "metadata")
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert await any_retriever.search("Does aspirin thin blood?", 4, EVERY) == passages


METADATA = {
    "kind": ["drug", "advice"],
    "year": 1899,
    "dose": 0.5,
    "whole": 2.0,
    "old": True,
    "one": "1",
    "a.b[0]": "dotted",
    'quo"te': "ü",
    "nested": {"kind": "inner"},
    "lists": [["deep"], 7, None],
    "none": None,
}


FILTERS: list[tuple[dict[str, str | int | float | bool], bool]] = [
    ({"kind": "drug"}, True),
    ({"kind": "advice", "year": 1899}, True),
    ({"kind": "drug", "year": 1900}, False),
    ({"kind": "dru"}, False),
    ({"year": 1899.0}, True),
    ({"year": "1899"}, False),
    ({"dose": 0.5}, True),
    ({"whole": 2}, True),
    ({"old": True}, True),
    ({"old": 1}, False),
    ({"one": 1}, False),
    ({"a.b[0]": "dotted"}, True),
    ({'quo"te': "ü"}, True),
    ({"nested": "inner"}, False),
    ({"nested.kind": "inner"}, False),
    ({"lists": "deep"}, False),
    ({"lists": 7}, True),
    ({"none": "None"}, False),
    ({"nothing": ""}, False),
]
"""Each with whether a document of that metadata has it."""


async def test_filters_mean_what_they_mean_for_hybrid(engine, host_of, any_retriever):
    await store(engine, any_retriever, {"with": ["Aspirin thins the blood."]}, **METADATA)
    await store(engine, any_retriever, {"without": ["Aspirin thins the blood."]})
    for filters, has_them in FILTERS:
        expected = {"with"} if has_them else set()
        assert await found(HybridRetriever(host_of(engine)), filters=filters) == expected, filters
        assert await found(any_retriever, filters=filters) == expected, filters


async def test_only_what_the_asker_may_read_is_found(engine, any_retriever):
    await store(engine, any_retriever)
    for owner in ("alice", "bob"):
        await store(engine, any_retriever, {owner: ["Aspirin thins the blood."]}, owner=owner, kind="note")
    assert await found(any_retriever) == set(TEXTS)
    assert await found(any_retriever, owner="alice") == {*TEXTS, "alice"}
    assert await found(any_retriever, owner="alice", filters={"kind": "note"}) == {"alice"}


async def test_chunks_of_others_take_nobodys_place(engine, any_retriever):
    for owner in ("alice", "bob"):
        await store(engine, any_retriever, {f"{owner}{n}": ["aspirin blood"] for n in range(20)}, owner=owner)
    await store(engine, any_retriever)
    passages = await any_retriever.search("aspirin blood", 3, Scope(owner="carol"))
    assert [passage.document_id in TEXTS for passage in passages] == [True] * 3
    assert len(await any_retriever.search("aspirin blood", 30, Scope(owner="bob"))) == 26


async def test_an_empty_index_finds_nothing(any_retriever):
    assert await any_retriever.search("aspirin", 5, EVERY) == []


async def test_a_replaced_document_leaves_no_old_chunk_in_the_index(engine, any_retriever):
    await store(engine, any_retriever)
    before = await stored_ids(engine)
    await store(engine, any_retriever, {"aspirin": ["Aspirin is new."]})
    after = await stored_ids(engine)
    assert len(after) == len(before) - 2
    assert await held_ids(any_retriever) == after
    texts = {passage.text for passage in await any_retriever.search("aspirin", 10, EVERY)}
    assert "Aspirin is new." in texts
    assert not texts & set(TEXTS["aspirin"])


async def test_a_deleted_document_is_in_the_index_no_more(engine, any_retriever):
    await store(engine, any_retriever)
    await store(engine, any_retriever, {"aspirin": ["Hers."]}, owner="alice")
    assert await Documents(engine, "", any_retriever).delete("aspirin")
    assert await held_ids(any_retriever) == await stored_ids(engine)
    assert "aspirin" not in await found(any_retriever)
    assert "aspirin" in await found(any_retriever, owner="alice")


async def test_documents_are_not_stored_when_the_index_cannot_be_reached(engine, host_of, far_end):
    async with opened(host_of(engine, url=far_end.url)) as retriever:
        await store(engine, retriever)
        before = await stored_ids(engine)
        far_end.broken = True
        with pytest.raises(ModelUnavailable, match="Qdrant"):
            await store(engine, retriever, {"aspirin": ["Aspirin is new."], "more": ["More blood."]})
        assert await stored_ids(engine) == before
        with pytest.raises(ModelUnavailable, match="Qdrant"):
            await retriever.search("aspirin", 5, EVERY)
        far_end.broken = False
        assert await found(retriever) == set(TEXTS)
        await store(engine, retriever, {"aspirin": ["Aspirin is new."], "more": ["More blood."]})
        assert await held_ids(retriever) == await stored_ids(engine)


async def test_a_document_is_deleted_though_the_index_cannot_be_reached_and_is_not_found(engine, host_of, far_end):
    async with opened(host_of(engine, url=far_end.url)) as retriever:
        await store(engine, retriever)
        far_end.broken = True
        assert await Documents(engine, "", retriever).delete("aspirin")
        far_end.broken = False
        assert await found(retriever) == set(TEXTS) - {"aspirin"}
        await catch_up(engine, retriever)
        assert await held_ids(retriever) == await stored_ids(engine)


class Crashing:
    """Takes chunks in, and lets everything end before they are stored."""

    def __init__(self, retriever):
        self.remove_chunks = retriever.remove_chunks
        self._retriever = retriever

    async def add_chunks(self, chunks):
        await self._retriever.add_chunks(chunks)
        raise ModelUnavailable("x")


async def test_what_was_added_and_then_not_stored_is_not_found_and_takes_nobodys_place(engine, retriever):
    await store(engine, retriever)
    for n in range(3):
        with pytest.raises(ModelUnavailable):
            await store(engine, Crashing(retriever), {f"lost{n}-{m}": ["aspirin blood"] for m in range(10)})
    with pytest.raises(ModelUnavailable):
        await store(engine, Crashing(retriever), {"aspirin": ["aspirin blood"]})
    assert len(await held_ids(retriever)) == 31 + len(await stored_ids(engine))
    passages = await retriever.search("aspirin blood", 3, EVERY)
    assert len(passages) == 3
    assert {p.document_id for p in passages} <= set(TEXTS)
    assert await found(retriever, limit=40) == set(TEXTS)
    await catch_up(engine, retriever)
    assert await held_ids(retriever) == await stored_ids(engine)


async def test_what_was_stored_without_the_index_is_copied_as_it_would_have_been_added(engine, any_retriever):
    await store(engine, any_retriever, kind="drug")
    expected = await any_retriever.search("aspirin blood", 10, Scope(filters={"kind": "drug"}))
    await any_retriever.remove_chunks([passage.chunk_id for passage in expected])
    await store(engine, None, {"later": ["Aspirin came later."], "insulin": ["Replaced."]}, owner="alice", kind="drug")
    assert await any_retriever.search("aspirin blood", 10, EVERY) == []
    await catch_up(engine, any_retriever)
    copied = await any_retriever.search("aspirin blood", 10, Scope(filters={"kind": "drug"}))
    assert [p.chunk_id for p in copied] == [p.chunk_id for p in expected]
    assert [p.score for p in copied] == pytest.approx([p.score for p in expected], abs=2e-3)
    assert await found(any_retriever, owner="alice", filters={"kind": "drug"}) == {*TEXTS, "later"}
    assert await held_ids(any_retriever) == await stored_ids(engine)


async def test_many_chunks_are_copied_and_removed_in_pieces(engine, retriever, monkeypatch):
    monkeypatch.setattr(indexing, "BATCH", 7)
    await store(engine, None, {f"d{n}": [f"number {n}", "another"] for n in range(20)})
    await catch_up(engine, retriever)
    assert len(await held_ids(retriever)) == 40
    assert await held_ids(retriever) == await stored_ids(engine)


async def test_a_chunk_that_another_process_is_about_to_store_is_left_in_the_index(engine, retriever):
    added, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Crashing):
        async def add_chunks(self, chunks):
            await self._retriever.add_chunks(chunks)
            added.set()
            await go_on.wait()

    storing = asyncio.create_task(store(engine, Slow(retriever)))
    await added.wait()
    catching_up = asyncio.create_task(catch_up(engine, retriever))
    await asyncio.wait({catching_up}, timeout=0.3)
    assert not catching_up.done()
    go_on.set()
    await asyncio.gather(storing, catching_up)
    assert await held_ids(retriever) == await stored_ids(engine) != []


async def test_each_database_has_a_collection_of_its_own(engine, host_of, new_database_async):
    other = database.connect(await new_database_async(), 2)
    await migrate.upgrade(other)
    await Documents(other).bind(FakeEmbedder())
    async with opened(host_of(engine)) as retriever:
        await store(engine, retriever)
    async with opened(host_of(other)) as retriever:
        assert await held_ids(retriever) == []
    async with opened(host_of(engine)) as retriever:
        assert await held_ids(retriever) == await stored_ids(engine)
    await other.dispose()


async def test_an_embedder_of_another_dimension_gets_a_collection_made_anew(engine, host_of):
    class Narrow(FakeEmbedder):
        dimension = 8

    async with opened(host_of(engine)) as retriever:
        await store(engine, retriever)
    async with opened(host_of(engine, Narrow)) as retriever:
        assert await held_ids(retriever) == []
        vector = (await Narrow().embed(["x"]))[0]
        chunk = IndexedChunk(
            chunk_id=1, owner="", document_id="d", title="", url=None, heading="", position=0, text="x", metadata={},
            vector=vector,
        )  # fmt: skip
        await retriever.add_chunks([chunk])
        assert await held_ids(retriever) == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaves its lock's file open
async def test_a_folder_that_another_process_has_open_stops_the_start_with_the_remedy(engine, host_of, tmp_path):
    other = QdrantClient(path=str(tmp_path / "qdrant"))
    try:
        with pytest.raises(ConfigurationError, match="STAGECAST_QDRANT_URL"):
            async with opened(host_of(engine)):
                pass
    finally:
        other.close()
    async with opened(host_of(engine)) as retriever:
        assert await held_ids(retriever) == []


async def test_a_folder_that_is_broken_stops_the_start_with_the_remedy(engine, host_of, tmp_path):
    (tmp_path / "qdrant").mkdir()
    (tmp_path / "qdrant" / "meta.json").write_text("")
    with pytest.raises(ConfigurationError, match="delete it"):
        async with opened(host_of(engine)):
            pass


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_a_server_is_shown_the_key_and_one_that_refuses_it_stops_the_start(engine, host_of, far_end):
    far_end.api_key = "secret"
    async with opened(host_of(engine, url=far_end.url, api_key="secret")) as retriever:
        assert await held_ids(retriever) == []
    with pytest.raises(ConfigurationError, match="401"):
        async with opened(host_of(engine, url=far_end.url)):
            pass


async def test_a_server_that_cannot_be_reached_stops_the_start_without_showing_secrets(engine, host_of):
    with pytest.raises(ConfigurationError, match="STAGECAST_QDRANT_URL") as refused:
        async with opened(host_of(engine, url="http://u:hunter2@127.0.0.1:1")):
            pass
    assert "127.0.0.1" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{"url": "qdrant.example"}, {"url": "ftp://hunter2"}, {"collection": "no/slash"}, {"collection": ""}]
)
async def test_a_setting_that_does_not_fit_is_told_and_an_address_is_not_shown(engine, host_of, settings):
    with pytest.raises(BadSetting, match="STAGECAST_QDRANT_") as refused:
        registry.make("retriever", "qdrant", host_of(engine, **settings))
    assert "hunter2" not in str(refused.value)


async def test_without_the_client_the_remedy_is_named(engine, host_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ConfigurationError, match="--extra qdrant"):
        registry.make("retriever", "qdrant", host_of(engine))


async def test_a_cancelled_search_does_not_wait_for_what_is_at_work(engine, retriever):
    go_on = threading.Event()
    busy = retriever._qdrant._thread.submit(go_on.wait)
    searching = asyncio.create_task(retriever.search("aspirin", 5, EVERY))
    await asyncio.wait({searching}, timeout=0.2)
    searching.cancel()
    done, _ = await asyncio.wait({searching}, timeout=0.1)
    go_on.set()
    assert done == {searching}
    assert await asyncio.wrap_future(busy)
    assert await retriever.search("aspirin", 5, EVERY) == []


async def test_the_vectors_of_sentences_are_those_that_are_stored(engine, retriever):
    await store(engine, retriever)
    passages = await retriever.search("aspirin", 3, EVERY)
    for passage, vectors in zip(passages, await retriever.sentence_vectors(passages), strict=True):
        _, (own,) = await embed_chunks(FakeEmbedder(), [(passage.title, Chunk(0, "Use", passage.text))])
        assert np.allclose(vectors, own, atol=1e-3)


def test_a_retriever_with_some_of_the_methods_of_an_index_stops_the_start():
    class Half:
        async def search(self, question, limit, scope):
            return []

        async def add_chunks(self, chunks):
            pass

    threads = Threads(1)
    host = Host(Options(data_dir=Path()), threads, {"retriever": lambda _: Half()})
    with pytest.raises(ConfigurationError, match="held_chunks, remove_chunks"):
        indexing.indexed(host)
    threads.close()

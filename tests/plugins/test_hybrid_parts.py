"""The retriever's two searches, each alone, on a real store."""

import pytest

from api.ingest.document import Document
from api.ingest.ingest import ingest_items
from api.settings import Settings
from api.system import running
from pipeline.ports import Scope

BIRDS = [
    Document(id="owl", title="Owls", text="Owls hunt mice at night.", metadata={"kind": "bird"}, path="owl"),
    Document(
        id="duck", title="Ducks", text="Ducks swim on ponds at night too.", metadata={"kind": "bird"}, path="duck"
    ),
    Document(id="cat", title="Cats", text="Cats hunt mice, mice and more mice.", metadata={"kind": "pet"}, path="cat"),
]
HERS = [Document(id="hers", title="Mice", text="Mice hide when cats hunt mice.", path="hers")]


@pytest.fixture
async def retriever(new_database_async, tmp_path):
    settings = Settings(database_url=await new_database_async(), data_dir=tmp_path, sample=False)
    async with running(settings) as system:
        for owner, documents in (("", BIRDS), ("alice", HERS)):
            async for results in ingest_items(system, iter(documents), owner=owner):
                assert {result.status for result in results} == {"stored"}
        yield system.host.retriever


def ids(passages):
    return [passage.document_id for passage in passages]


async def test_each_part_orders_by_its_own_score_which_the_whole_knows_too(retriever):
    whole = {p.document_id: p.scores for p in await retriever.search("who hunts mice", 10, Scope())}
    for name, part in retriever.parts.items():
        found = await part.search("who hunts mice", 10, Scope())
        scores = [passage.scores[name] for passage in found]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([whole[passage.document_id][name] for passage in found], abs=1e-3)
        assert all(set(passage.scores) == {name} for passage in found)
        within = scores if name == "dense" else [score / (1 + score) for score in scores]
        assert [passage.score for passage in found] == pytest.approx(within)


async def test_words_find_only_what_has_them_and_vectors_find_everything(retriever):
    assert set(ids(await retriever.parts["lexical"].search("mice", 10, Scope()))) == {"owl", "cat"}
    assert await retriever.parts["lexical"].search("submarine", 10, Scope()) == []
    assert len(await retriever.parts["dense"].search("submarine", 10, Scope())) == 3
    assert len(await retriever.parts["dense"].search("submarine", 2, Scope())) == 2


@pytest.mark.parametrize("name", ["dense", "lexical"])
async def test_each_part_keeps_to_the_scope(retriever, name):
    part = retriever.parts[name]
    assert "hers" not in ids(await part.search("mice", 10, Scope()))
    assert "hers" in ids(await part.search("mice", 10, Scope(owner="alice")))
    assert ids(await part.search("mice at night", 10, Scope(filters={"kind": "pet"}))) == ["cat"]

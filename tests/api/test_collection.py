"""Documents, search, health and the list of plugins over HTTP."""

import httpx


def test_health_answers_with_the_version(server):
    assert httpx.get(f"{server.url}/health").json() == {"status": "healthy", "version": "0.1.0"}


def test_search_shows_the_scores_of_every_part_best_first(server):
    found = httpx.post(f"{server.url}/search", json={"query": "restless legs after antipsychotics", "limit": 5}).json()
    assert len(found["passages"]) == 5
    for passage in found["passages"]:
        assert {"dense", "lexical", "fused"} <= passage["scores"].keys()
        assert 0 <= passage["score"] <= 1
    scores = [passage["score"] for passage in found["passages"]]
    assert scores == sorted(scores, reverse=True)


def test_search_finds_by_words_and_by_meaning(server):
    by_word = httpx.post(f"{server.url}/search", json={"query": "Abilify", "limit": 1}).json()
    by_meaning = httpx.post(f"{server.url}/search", json={"query": "cannot fall asleep", "limit": 3}).json()
    assert by_word["passages"][0]["document_id"] == "aripiprazole"
    assert "insomnia" in [passage["document_id"] for passage in by_meaning["passages"]]


def test_filters_match_values_and_members_of_lists(server):
    body = {"query": "sleep", "limit": 50, "filters": {"kind": "medicine", "topics": "antipsychotics"}}
    found = httpx.post(f"{server.url}/search", json=body).json()["passages"]
    assert found
    assert all("antipsychotics" in passage["metadata"]["topics"] for passage in found)
    nothing = httpx.post(f"{server.url}/search", json=body | {"filters": {"kind": "'; drop table chunk"}})
    assert nothing.json()["passages"] == []


def test_the_collection_is_listed_in_pages(server):
    first = httpx.get(f"{server.url}/documents?limit=10").json()
    second = httpx.get(f"{server.url}/documents?limit=10&offset=10").json()
    assert first["total"] >= 60
    titles = [row["title"] for row in first["documents"] + second["documents"]]
    assert titles == sorted(titles)
    assert first["documents"][0].keys() >= {"id", "title", "url", "metadata", "size_bytes", "chunk_count", "updated_at"}


def test_a_document_is_shown_with_its_text_and_chunks(server):
    document = httpx.get(f"{server.url}/documents/aripiprazole").json()
    assert document["title"] == "Aripiprazole"
    assert "akathisia" in document["text"]
    assert [chunk["position"] for chunk in document["chunks"]] == list(range(document["chunk_count"]))


def test_every_sample_article_says_that_it_is_no_advice(server):
    rows = httpx.get(f"{server.url}/documents?limit=1000").json()["documents"]
    samples = [row["id"] for row in rows if row["metadata"].get("language") == "en"]
    assert len(samples) >= 60
    for name in samples[::10]:
        assert "not medical advice" in httpx.get(f"{server.url}/documents/{name}").json()["text"]


def test_plugins_shows_the_pipeline_in_force_and_what_is_installed(server):
    shown = httpx.get(f"{server.url}/plugins").json()
    assert [row["name"] for row in shown["pipeline"] if row["kind"] == "stage"] == [
        "condense", "retrieval", "reranking", "generation",
    ]  # fmt: skip
    parts = {row["kind"]: row for row in shown["pipeline"]}
    assert parts["llm"]["detail"]["model"] == "extractive"
    assert parts["reranker"]["detail"]["method"]
    assert parts["embedder"]["distribution"].startswith("stagecast ")
    assert {row["name"] for row in shown["installed"]} >= {"litellm", "minilm"}


def test_the_schema_describes_every_event(server):
    schema = httpx.get(f"{server.url}/schema/openapi.json").json()
    events = schema["components"]["schemas"]["Event"]
    assert len(events["oneOf"]) == 17
    token = schema["components"]["schemas"]["Token"]
    assert token["properties"].keys() == {"type", "content", "timestamp"}
    answer = schema["paths"]["/chat"]["post"]["responses"]["200"]["content"]
    assert answer["text/event-stream"]["schema"]["$ref"].endswith("/Event")
    assert "application/json" in answer

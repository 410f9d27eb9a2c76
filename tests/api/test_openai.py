"""The routes for clients of OpenAI's API, asked by OpenAI's own packages."""

import json
import shutil
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.faulty_llm import TOKENS

HERE = Path(__file__).parent
ANSWER = "".join(TOKENS)


def client_of(server, key="none"):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def client(llm_server):
    with client_of(llm_server) as client:
        yield client


def user(text):
    return {"role": "user", "content": text}


def complete(client, *messages, **options):
    return client.chat.completions.create(model="stagecast", messages=list(messages), **options)


def test_an_answer_is_streamed_token_by_token_with_its_sources(client):
    chunks = list(complete(client, user("What is aripiprazole?"), stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].model_extra["sources"][0]["title"] == "Aripiprazole"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == TOKENS
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_what_the_model_counted_is_told_when_asked_for(client):
    chunks = list(complete(client, user("aripiprazole"), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.total_tokens) == (11, 18)


def test_an_answer_in_one_piece(client):
    whole = complete(client, user("What is aripiprazole?"))
    [choice] = whole.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert whole.usage.completion_tokens == 7
    assert whole.model_extra["sources"][0]["n"] == 1


def test_a_run_of_it_is_stored_like_any_other(client, llm_server):
    run_id = complete(client, user("What is aripiprazole?")).id.removeprefix("chatcmpl-")
    stored = httpx.get(f"{llm_server.url}/runs/{run_id}").json()
    assert (stored["status"], stored["answer"]) == ("completed", ANSWER)


def test_the_conversation_in_the_request_is_in_the_prompt_and_instructions_are_not(client, llm):
    marker = uuid.uuid4().hex
    complete(
        client,
        {"role": "system", "content": "Speak like a pirate."},
        user([{"type": "text", "text": "What is aripiprazole?"}]),
        {"role": "assistant", "content": "A medicine."},
        user(f"What are the side effects of aripiprazole? {marker}"),
    )
    request = next(r for r in reversed(llm.requests) if marker in r["messages"][-1]["content"])
    said = [(message["role"], message["content"]) for message in request["messages"][1:]]
    assert said[:2] == [("user", "What is aripiprazole?"), ("assistant", "A medicine.")]
    assert "pirate" not in json.dumps(request)


def test_a_failing_model_is_an_error_before_and_within_the_stream(client):
    with pytest.raises(openai.InternalServerError) as refused:
        complete(client, user("llm:status500"))
    assert (refused.value.status_code, refused.value.code) == (502, "GENERATION_ERROR")
    told = []
    with pytest.raises(openai.APIError) as broken:
        told.extend(complete(client, user("llm:truncated"), stream=True))
    assert broken.value.code == "UPSTREAM_TRUNCATED"


def test_what_no_retry_can_help_is_not_asked_again(llm_server, llm):
    marker = uuid.uuid4().hex
    persistent = openai.OpenAI(base_url=f"{llm_server.url}/v1", api_key="none")
    with persistent, pytest.raises(openai.InternalServerError):
        complete(persistent, user(f"llm:status401 {marker}"))
    assert len(llm.calls_about(marker)) == 1


def test_a_stopped_answer_in_one_piece_is_not_asked_again(llm_server, llm):
    marker = uuid.uuid4().hex
    with openai.OpenAI(base_url=f"{llm_server.url}/v1", api_key="none") as persistent, ThreadPoolExecutor(1) as thread:
        asking = thread.submit(complete, persistent, user(f"llm:slow {marker}"))
        while not llm.calls_about(marker):
            time.sleep(0.01)
        session = httpx.get(f"{llm_server.url}/sessions?limit=1").json()["sessions"][0]["id"]
        messages = httpx.get(f"{llm_server.url}/sessions/{session}/messages").json()["messages"]
        assert marker in messages[0]["content"]
        httpx.post(f"{llm_server.url}/runs/{messages[0]['run_id']}/cancel")
        with pytest.raises(openai.InternalServerError) as stopped:
            asking.result(timeout=10)
    assert stopped.value.code == "cancelled"
    assert len(llm.calls_about(marker)) == 1


def test_a_client_that_closes_its_stream_closes_the_model_within_100_ms(client, llm):
    before = len(llm.closed_at)
    with complete(client, user("llm:slow"), stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content == " w5":
                break
    left = time.monotonic()
    while len(llm.closed_at) == before and time.monotonic() < left + 2:
        time.sleep(0.002)
    assert llm.closed_at[-1] - left < 0.1


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": [user("   ")]}, "messages[0]"),
        ({"messages": [user("x" * 5_001)]}, "messages[0]"),
        ({"messages": [user("a"), {"role": "assistant", "content": "b"}]}, "messages[1]"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "http://a"}}])]}, "messages[0]"),
        ({"messages": []}, "messages"),
        ({"messages": [user("a")], "n": 2}, "n"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="stagecast", **options)
    assert refused.value.param == param


def test_a_model_that_there_is_not_is_refused(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-9", messages=[user("a")])
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "'stagecast'" in refused.value.message


def test_parameters_that_have_no_effect_disturb_nobody(client):
    options = {
        "temperature": 2,
        "max_tokens": 1,
        "top_p": 0.1,
        "seed": 1,
        "user": "u",
        "response_format": {"type": "text"},
    }
    assert complete(client, user("aripiprazole"), **options).choices[0].message.content == ANSWER


def test_pipeline_and_embedder_are_the_models(client):
    names = [model.id for model in client.models.list()]
    assert names[0] == "stagecast"
    assert client.models.retrieve(names[1]).id == names[1]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_embeddings_are_unit_vectors_in_either_form(client):
    name = list(client.models.list())[1].id
    packed = client.embeddings.create(model=name, input=["A zebra.", "A lion."])
    plain = client.embeddings.create(model=name, input="A zebra.", encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert np.linalg.norm(plain.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert packed.usage.total_tokens > plain.usage.total_tokens > 0
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=name, input="A zebra.", dimensions=7)
    assert refused.value.param == "dimensions"


def test_a_wrong_key_is_refused_in_their_form(start_server, sample_database, server):
    locked = start_server(database_url=sample_database, api_keys="alice:alice-key-0123456789")
    with client_of(locked, "alice-key-0123456789") as client:
        assert next(iter(client.models.list())).id == "stagecast"
    with client_of(locked, "another") as client, pytest.raises(openai.AuthenticationError) as refused:
        client.models.list()
    assert refused.value.code == "invalid_api_key"


def test_litellm_is_a_client_like_any_other(llm_server, llm, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no download at the import
    import litellm

    far_end: dict[str, Any] = {"api_base": f"{llm_server.url}/v1", "api_key": "none", "num_retries": 0}
    asked = {"model": "openai/stagecast", "messages": [user("What is aripiprazole?")], **far_end}
    pieces = [chunk.choices[0].delta.content for chunk in litellm.completion(stream=True, **asked)]
    assert [piece for piece in pieces if piece] == TOKENS
    whole = litellm.completion(**asked)
    assert whole.choices[0].message.content == ANSWER
    assert whole.usage.completion_tokens == 7
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        litellm.completion(**asked | {"model": "openai/gpt-9"})
    vectors = litellm.embedding(model="openai/all-MiniLM-L6-v2/int8", input=["A zebra."], **far_end).data
    assert np.linalg.norm(vectors[0]["embedding"]) == pytest.approx(1)


def test_a_follow_up_is_searched_for_with_its_subject(server):
    with client_of(server) as client:
        turns = [user("What is aripiprazole?"), {"role": "assistant", "content": "A medicine."}]
        found = complete(client, *turns, user("What are its side effects?"))
    assert found.model_extra["sources"][0]["document_id"] == "aripiprazole"


def test_the_javascript_package_streams_asks_fails_and_leaves(llm_server, llm):
    node = shutil.which("node") or pytest.skip("there is no Node on this machine")
    before = len(llm.closed_at)
    script = [node, str(HERE / "openai_client.mjs"), f"{llm_server.url}/v1"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["streamed"] == TOKENS
    assert told["whole"] == ANSWER
    assert told["refused"] == {"status": 404, "code": "model_not_found", "param": "model"}
    assert told["broken"] == "UPSTREAM_TRUNCATED"
    assert len(llm.closed_at) == before + 1
    assert llm.closed_at[-1] - told["left_at"] < 0.1

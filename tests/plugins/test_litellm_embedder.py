"""Embedding through LiteLLM, against a server of OpenAI's protocol on a real socket."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigurationError, ContractBroken, ModelUnavailable
from pipeline.host import Host, Options
from pipeline.threads import Threads
from plugins.litellm_embedder import BATCH, LiteLLMEmbedder, cut, estimate


class Provider:
    """A server of ``/v1/embeddings``; ``vector`` makes a text's vector, ``answer`` the response."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.vector: Callable[[str], list[float]] = lambda text: [3, 4, float(text.partition(" ")[0])]
        self.answer: Callable[[list[dict[str, Any]]], Any] = lambda items: {"data": items}
        self.status = 200
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(provider.respond(self.path, asked)).encode()
                self.send_response(provider.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.base = f"http://127.0.0.1:{self.server.server_port}/v1"

    def respond(self, path: str, asked: dict[str, Any]) -> Any:
        self.requests.append({"path": path, **asked})
        if self.status != 200:
            return {"error": {"message": "no", "type": "server_error"}}
        vectors = [self.vector(text) for text in asked["input"]]
        items = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}, **self.answer(items)}

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Provider()
    yield made
    made.close()


@pytest.fixture
async def make(provider: Provider) -> AsyncIterator[Callable[..., LiteLLMEmbedder]]:
    threads = Threads(2)

    def embedder(model: str = "openai/test-model", dimension: int = 0, base: str = "") -> LiteLLMEmbedder:
        options = Options(
            data_dir=Path("unused"),
            embedding_model=model,
            embedding_dimension=dimension,
            llm_api_base=base or provider.base,
        )
        return LiteLLMEmbedder(Host(options, threads, {}))

    yield embedder
    threads.close()


Make = Callable[..., LiteLLMEmbedder]


async def test_vectors_come_in_the_order_of_the_texts_and_of_length_one(make: Make):
    vectors = await make().embed(["0", "12"])
    np.testing.assert_allclose(vectors, [[0.6, 0.8, 0], [3 / 13, 4 / 13, 12 / 13]], atol=1e-6)
    assert vectors.dtype == np.float32


async def test_many_texts_are_sent_in_batches(make: Make, provider: Provider):
    vectors = await make().embed([str(i) for i in range(2 * BATCH + 5)])
    assert [len(request["input"]) for request in provider.requests] == [BATCH, BATCH, 5]
    assert provider.requests[0]["path"] == "/v1/embeddings"
    assert provider.requests[0]["model"] == "test-model"
    assert (np.diff(vectors[:, 2]) > 0).all()


async def test_an_answer_out_of_order_is_put_in_order(make: Make, provider: Provider):
    provider.answer = lambda items: {"data": items[::-1]}
    vectors = await make().embed(["1", "2", "3"])
    assert (np.diff(vectors[:, 2]) > 0).all()


async def test_no_texts_need_no_request(make: Make, provider: Provider):
    assert (await make(dimension=3).embed([])).shape == (0, 3)
    assert provider.requests == []


async def test_warming_up_finds_the_dimension(make: Make, provider: Provider):
    provider.vector = lambda text: [1.0] * 5
    embedder = make()
    assert (embedder.name, embedder.dimension) == ("litellm/openai/test-model", 0)
    await embedder.warm()
    assert embedder.dimension == 5
    assert len(provider.requests) == 1


async def test_a_dimension_that_is_set_needs_no_call_and_is_asked_for(make: Make, provider: Provider):
    embedder = make(model="openai/text-embedding-3-small", dimension=3)
    await embedder.warm()
    assert (embedder.dimension, provider.requests) == (3, [])
    await embedder.embed(["1"])
    assert provider.requests[0]["dimensions"] == 3


async def test_vectors_of_another_dimension_are_refused_with_the_remedy(make: Make):
    with pytest.raises(ContractBroken, match=r"vectors of 3 numbers, not of 4; .*EMBEDDING_DIMENSION"):
        await make(dimension=4).embed(["1"])


async def test_vectors_of_different_sizes_are_refused(make: Make, provider: Provider):
    provider.vector = lambda text: [1.0] * len(text)
    with pytest.raises(ContractBroken, match="vectors of 1, 2 numbers"):
        await make().embed(["1", "22"])


async def test_a_missing_vector_is_noticed(make: Make, provider: Provider):
    provider.answer = lambda items: {"data": items[1:]}
    with pytest.raises(ContractBroken, match="answered 3 texts with 2 vectors"):
        await make().embed(["1", "2", "3"])


@pytest.mark.parametrize("number", [0.0, float("nan"), float("inf")])
async def test_a_vector_without_direction_is_refused(make: Make, provider: Provider, number: float):
    provider.vector = lambda text: [number] * 3
    with pytest.raises(ContractBroken, match="no direction"):
        await make().embed(["1"])


async def test_a_provider_that_refuses_makes_the_model_unavailable(make: Make, provider: Provider):
    provider.status = 400
    with pytest.raises(ModelUnavailable, match="openai/test-model") as caught:
        await make().embed(["1"])
    assert caught.value.__cause__ is not None


async def test_a_provider_that_is_not_there_makes_the_model_unavailable(make: Make):
    with pytest.raises(ModelUnavailable):
        await make(base="http://127.0.0.1:9/v1").warm()


async def test_a_provider_that_never_answers_is_given_up(make: Make, provider: Provider):
    go = threading.Event()

    def never(items: list[dict[str, Any]]) -> Any:
        go.wait(10)
        return {"data": items}

    provider.answer = never
    embedder = make()
    embedder.timeout_s = 0.3
    try:
        with pytest.raises(ModelUnavailable) as caught:
            await embedder.embed(["1"])
        assert isinstance(caught.value.__cause__, TimeoutError)
    finally:
        go.set()


@pytest.mark.parametrize("item", [{"nothing": True}, {"index": 0, "embedding": "AACAPw=="}])
async def test_an_answer_that_is_none_makes_the_model_unavailable(make: Make, provider: Provider, item: Any):
    provider.answer = lambda items: {"data": [item]}
    with pytest.raises(ModelUnavailable):
        await make().embed(["1"])


async def test_a_model_that_litellm_does_not_know_is_unavailable(make: Make):
    with pytest.raises(ModelUnavailable, match="nonsense"):
        await make(model="nonsense").embed(["1"])


async def test_callers_at_once_get_their_own_vectors(make: Make):
    embedder = make()
    found = await asyncio.gather(*(embedder.embed([str(i)]) for i in range(8)))
    assert (np.diff(np.concatenate(found)[:, 2]) > 0).all()


async def test_long_texts_are_cut_and_not_refused(make: Make, provider: Provider):
    embedder = make()
    await embedder.embed(["1 " + "medicine " * 1000, "2 short"])
    sent = provider.requests[0]["input"]
    assert sent[1] == "2 short"
    assert embedder.max_tokens - 3 <= estimate(sent[0]) <= embedder.max_tokens


def test_cutting_keeps_as_much_as_the_limit_allows():
    dice = random.Random(1)
    text = "".join(dice.choice("ab 1,é東🙂") for _ in range(400))
    for limit in (2, 3, 10, 57, 300):
        kept = cut(text, limit)
        assert estimate(kept) <= limit
        assert text.startswith(kept)
        assert estimate(text[: len(kept) + 1]) > limit


async def test_estimates_are_above_what_tokenizers_count(make: Make):
    """Counts of cl100k and of BERT's word pieces, the higher of the two."""
    known = {
        "Sertraline may upset the stomach and cause nausea.": 14,
        "|---|---|---|\n" * 3: 38,
        "1234567890" * 3: 17,
        "人人生而自由,在尊严和权利上一律平等。": 21,
    }
    for text, count in zip(known, make().count_tokens(list(known)), strict=True):
        assert count >= known[text]
    assert make().count_tokens(["", "\ud800"]) == [2, 4]


def test_without_a_model_the_error_names_the_setting():
    threads = Threads(1)
    with pytest.raises(ConfigurationError, match="STAGECAST_EMBEDDING_MODEL"):
        LiteLLMEmbedder(Host(Options(data_dir=Path("unused")), threads, {}))
    threads.close()

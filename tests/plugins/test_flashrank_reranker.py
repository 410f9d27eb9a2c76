"""FlashRank: reranks when its model can be had, and does no harm when it cannot."""

import asyncio
import io
import json
import logging
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from onnx.parser import parse_model
from structlog.testing import capture_logs
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.host import Host, Options
from pipeline.ports import Passage
from pipeline.threads import Threads
from plugins.flashrank_reranker import BATCH, PART, FlashRankReranker

MODEL = "ms-marco-TinyBERT-L-2-v2"
Answer = Callable[[BaseHTTPRequestHandler], None]
WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "yes": 4, "no": 5}


CROSS_ENCODER = """
<ir_version: 8, opset_import: ["" : 17]>
says_yes (int64[b, s] input_ids, int64[b, s] attention_mask, int64[b, s] token_type_ids) => (float[b, 1] logits)
<int64[1] yes = {4}, int64[1] axes = {1}, float one = {1.0}> {
    is_yes = Equal (input_ids, yes)
    said = Cast <to = 7> (is_yes)
    said_by_passage = Mul (said, token_type_ids)
    counted = Mul (said_by_passage, attention_mask)
    sum = ReduceSum <keepdims = 1> (counted, axes)
    total = Cast <to = 1> (sum)
    logits = Sub (total, one)
}
"""
"""Its logit is how often the passage says "yes", less one."""


def tokenizer() -> str:
    made = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return str(made.to_str())


def packed(files: dict[str, str | bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        for name, text in files.items():
            content.writestr(f"{MODEL}/{name}", text)
    return archive.getvalue()


@cache
def archive() -> bytes:
    return packed(
        {
            "flashrank-TinyBERT-L-2-v2.onnx": parse_model(CROSS_ENCODER).SerializeToString(),
            "config.json": json.dumps({"pad_token_id": 0}),
            "tokenizer_config.json": json.dumps({"model_max_length": 512, "pad_token": "[PAD]"}),
            "special_tokens_map.json": "{}",
            "tokenizer.json": tokenizer(),
        }
    )


@contextmanager
def hub(answer: Answer) -> Iterator[str]:
    """The far end of the download; ``answer`` writes each response."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{{}}.zip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(body: bytes, *, claimed: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(claimed or len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def trickles(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        for _ in range(400):
            handler.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    threads = Threads(2)
    yield Host(Options(data_dir=tmp_path, rerank_model=MODEL), threads, {})
    threads.close()


def reranker(host: Host, address: str) -> FlashRankReranker:
    made = FlashRankReranker(host)
    made.hub = address
    made.connect_s = made.read_s = 0.5
    made.total_s = 0.3
    return made


async def settled(ranker: FlashRankReranker) -> FlashRankReranker:
    """Wait until loading has ended, one way or the other."""
    await asyncio.wait_for(ranker.settled(), 30)
    assert ranker._loader is not None
    assert not ranker._loader.is_alive()
    return ranker


def passages(*texts: str) -> list[Passage]:
    return [
        Passage(chunk_id=i, document_id="d", title="t", text=text, score=0.5, scores={"fused": 0.5})
        for i, text in enumerate(texts)
    ]


GIVEN = passages("no", "yes yes yes", "yes")


async def expect_unavailable(host: Host, address: str, reason: str) -> None:
    with capture_logs() as logs:
        ranker = await settled(reranker(host, address))
    assert (ranker.state, ranker.method) == ("unavailable", "fused")
    assert reason in ranker.reason
    assert [(entry["event"], entry["reason"], "exc_info" in entry) for entry in logs] == [
        ("reranker.unavailable", ranker.reason, False)
    ]
    assert await ranker.rerank("?", GIVEN, 2) == GIVEN[:2]
    assert list((host.options.data_dir / "models").iterdir()) == []


async def test_with_its_model_it_puts_the_passages_in_order(host: Host):
    with hub(sends(archive())) as address, capture_logs() as logs:
        ranker = await settled(reranker(host, address))
    assert (ranker.state, ranker.reason, ranker.method) == ("ready", "", f"flashrank/{MODEL}")
    assert [entry["event"] for entry in logs] == ["reranker.ready"]
    ranked = await ranker.rerank("yes yes yes yes", GIVEN, 2)
    assert [passage.text for passage in ranked] == ["yes yes yes", "yes"]
    assert ranked[0].score == ranked[0].scores["reranked"] == pytest.approx(0.8808, abs=1e-4)
    assert ranked[1].scores == {"fused": 0.5, "reranked": 0.5}
    assert type(ranked[1].score) is float
    assert [passage.score for passage in GIVEN] == [0.5] * 3


async def test_more_passages_than_a_batch_keep_their_scores(host: Host):
    with hub(sends(archive())) as address:
        ranker = await settled(reranker(host, address))
    given = passages(*("yes " * i for i in range(2 * BATCH - 1)))
    ranked = await ranker.rerank("?", given, BATCH + 1)
    assert [passage.chunk_id for passage in ranked] == list(reversed(range(len(given))))[: BATCH + 1]
    assert await ranker.rerank("?", [], 5) == []


async def test_a_model_on_disk_is_not_downloaded_again(host: Host):
    with hub(sends(archive())) as address:
        await settled(reranker(host, address))
    assert (await settled(reranker(host, address))).state == "ready"


async def test_until_the_model_is_loaded_the_order_stays(host: Host):
    go = threading.Event()

    def late(handler: BaseHTTPRequestHandler) -> None:
        go.wait(10)
        sends(archive())(handler)

    with hub(late) as address:
        ranker = reranker(host, address)
        ranker.read_s = ranker.total_s = 10.0
        await ranker.warm()
        try:
            assert (ranker.state, ranker.method) == ("loading", "fused")
            assert await ranker.rerank("?", GIVEN, 2) == GIVEN[:2]
        finally:
            go.set()
        await settled(ranker)
    assert ranker.state == "ready"
    assert (await ranker.rerank("?", GIVEN, 1))[0].text == "yes yes yes"


async def test_nothing_is_loaded_before_the_first_question(host: Host):
    with hub(sends(archive())) as address:
        ranker = reranker(host, address)
        assert (ranker.state, ranker.method, ranker.reason) == ("loading", "fused", "")
        assert list(host.options.data_dir.iterdir()) == []
        assert await ranker.rerank("?", GIVEN, 3) == GIVEN
        assert (await settled(ranker)).state == "ready"


async def test_a_half_written_folder_is_replaced(host: Host):
    half = host.options.data_dir / "models" / MODEL
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    with hub(sends(archive())) as address:
        assert (await settled(reranker(host, address))).state == "ready"
    assert len(list(half.iterdir())) == 5


async def test_a_half_written_folder_without_a_hub_is_survived(host: Host):
    (host.options.data_dir / "models" / MODEL).mkdir(parents=True)
    assert (await settled(reranker(host, "http://127.0.0.1:9/{}"))).state == "unavailable"


async def test_a_hub_that_refuses_leaves_the_order_as_it_is(host: Host):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    await expect_unavailable(host, f"http://127.0.0.1:{port}/{{}}.zip", "ConnectionError")


async def test_a_hub_that_never_answers_is_given_up(host: Host):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await expect_unavailable(host, f"http://127.0.0.1:{silent.getsockname()[1]}/{{}}.zip", "Timeout")


FAILURES = {
    "it sends too slowly": (trickles, "took longer than 0.3 s"),
    "it sends half and closes": (sends(archive()[:999], claimed=len(archive())), "IncompleteRead"),
    "it sends no archive": (sends(b"<html>not a zip</html>"), "BadZipFile"),
    "its archive is not complete": (sends(packed({"config.json": "{}"})), "NoSuchFile"),
    "it has no such model": (lambda handler: handler.send_error(404), "404"),
}


@pytest.mark.parametrize(("answer", "reason"), FAILURES.values(), ids=FAILURES)
async def test_a_hub_that_fails_leaves_the_order_as_it_is_because(host: Host, answer: Answer, reason: str):
    with hub(answer) as address:
        await expect_unavailable(host, address, reason)


@pytest.mark.parametrize("name", ["../x", "rank_zephyr_7b_v1_full", ""])
async def test_what_is_no_cross_encoder_is_refused_with_those_there_are(tmp_path: Path, name: str):
    threads = Threads(1)
    host = Host(Options(data_dir=tmp_path, rerank_model=name), threads, {})
    ranker = await settled(FlashRankReranker(host))
    assert ranker.state == "unavailable"
    assert repr(name) in ranker.reason
    assert "ms-marco" in ranker.reason
    assert not (tmp_path / "models").exists()
    threads.close()


async def test_stale_downloads_are_swept_and_others_left_alone(host: Host):
    models = host.options.data_dir / "models"
    stale, fresh = models / f"{PART}stale", models / f"{PART}fresh"
    stale.mkdir(parents=True)
    fresh.mkdir()
    os.utime(stale, (0, 0))
    with hub(sends(archive())) as address:
        await settled(reranker(host, address))
    assert (stale.exists(), fresh.exists()) == (False, True)


async def test_it_leaves_the_logging_of_the_process_as_it_is(host: Host, monkeypatch: pytest.MonkeyPatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.ERROR)
    with hub(sends(archive())) as address:
        assert (await settled(reranker(host, address))).state == "ready"
    assert (root.handlers, root.level) == ([], logging.ERROR)

"""The wire format, byte for byte."""

import json
import re

import msgspec
import pytest

from pipeline.errors import Code
from pipeline.events import (
    WIRE_EVENTS,
    Cancelled,
    CondenseComplete,
    Condensed,
    CondenseStart,
    Done,
    Error,
    FailedDocument,
    Failure,
    Finished,
    GenerationComplete,
    GenerationCompleted,
    GenerationStart,
    GenerationStarted,
    IngestionComplete,
    IngestionCompleted,
    IngestionProgress,
    IngestionProgressed,
    IngestionStart,
    IngestionStarted,
    RerankingComplete,
    RerankingCompleted,
    RerankingStart,
    RerankingStarted,
    RetrievalComplete,
    RetrievalCompleted,
    RetrievalStart,
    RunStart,
    RunStarted,
    Source,
    SourceList,
    Sources,
    StageTime,
    Stopped,
    Token,
    stage_events,
    type_of,
)
from pipeline.wire import WallClock, frame, token_frames

AT = b"2025-11-06T10:30:40.000Z"

GOLDEN = [
    (
        RunStart(RunStarted(run_id="r", session_id="s")),
        '{"type":"run_start","content":{"stage":"run","status":"started","run_id":"r","session_id":"s"}',
    ),
    (CondenseStart(), '{"type":"condense_start","content":{"stage":"condense","status":"started"}'),
    (
        CondenseComplete(Condensed(query="q", method="llm", elapsed_ms=2.5)),
        '{"type":"condense_complete","content":{"stage":"condense","status":"complete","query":"q","method":"llm",'
        '"elapsed_ms":2.5,"queued_ms":0.0}',
    ),
    (RetrievalStart(), '{"type":"retrieval_start","content":{"stage":"retrieval","status":"started"}'),
    (
        RetrievalComplete(RetrievalCompleted(doc_count=3, elapsed_ms=8.5)),
        '{"type":"retrieval_complete","content":{"stage":"retrieval","status":"complete","doc_count":3,"elapsed_ms":8.5,'
        '"queued_ms":0.0}',
    ),
    (
        RerankingStart(RerankingStarted(candidates=50)),
        '{"type":"reranking_start","content":{"stage":"reranking","status":"started","candidates":50}',
    ),
    (
        RerankingComplete(RerankingCompleted(selected=8, elapsed_ms=1.25, method="fused")),
        '{"type":"reranking_complete","content":{"stage":"reranking","status":"complete","selected":8,"elapsed_ms":1.25,"queued_ms":0.0,'
        '"method":"fused"}',
    ),
    (
        Sources(SourceList(sources=[Source(1, "d", "T", None, "x", 0.5)])),
        '{"type":"sources","content":{"stage":"sources","status":"complete","sources":[{"n":1,"document_id":"d",'
        '"title":"T","url":null,"snippet":"x","score":0.5}]}',
    ),
    (
        GenerationStart(GenerationStarted(model="m")),
        '{"type":"generation_start","content":{"stage":"generation","status":"started","model":"m"}',
    ),
    (Token('a "b"\n\u00e9\U0001f600'), '{"type":"token","content":"a \\"b\\"\\n\u00e9\U0001f600"'),
    (
        GenerationComplete(GenerationCompleted(token_count=2, first_token_ms=1.5, elapsed_ms=3.0)),
        '{"type":"generation_complete","content":{"stage":"generation","status":"complete","token_count":2,'
        '"first_token_ms":1.5,"elapsed_ms":3.0,"queued_ms":0.0,"finish_reason":"stop"}',
    ),
    (
        Done(Finished("r", "m", 9.0, {"retrieval": StageTime(8.5)})),
        '{"type":"done","content":{"run_id":"r","message_id":"m","elapsed_ms":9.0,'
        '"stages":{"retrieval":{"elapsed_ms":8.5}}}',
    ),
    (
        Error(Failure("Sorry.", Code.STAGE_ERROR, "x", retryable=True)),
        '{"type":"error","content":{"message":"Sorry.","code":"STAGE_ERROR","stage":"x","retryable":true}',
    ),
    (
        Cancelled(Stopped(stage="generation", tokens_kept=4)),
        '{"type":"cancelled","content":{"stage":"generation","status":"cancelled","tokens_kept":4}',
    ),
    (
        IngestionStart(IngestionStarted(job_id="j", total=3)),
        '{"type":"ingestion_start","content":{"stage":"ingestion","status":"started","job_id":"j","total":3}',
    ),
    (
        IngestionProgress(
            IngestionProgressed(
                total=3, done=2, stored=1, unchanged=0, failed=1, failures=[FailedDocument("a.md", "is empty")]
            )
        ),
        '{"type":"ingestion_progress","content":{"stage":"ingestion","status":"progress","total":3,"done":2,'
        '"stored":1,"unchanged":0,"failed":1,"failures":[{"path":"a.md","reason":"is empty"}]}',
    ),
    (
        IngestionComplete(IngestionCompleted(total=3, stored=1, unchanged=1, failed=1, elapsed_ms=7.5)),
        '{"type":"ingestion_complete","content":{"stage":"ingestion","status":"complete","total":3,"stored":1,'
        '"unchanged":1,"failed":1,"elapsed_ms":7.5}',
    ),
]


@pytest.mark.parametrize(("event", "expected"), GOLDEN, ids=[type_of(event) for event, _ in GOLDEN])
def test_every_event_has_exactly_the_bytes_of_the_contract(event, expected):
    data = expected + ',"timestamp":"2025-11-06T10:30:40.000Z"}'
    assert frame(7, event, AT) == f"id: 7\ndata: {data}\n\n".encode()
    assert json.loads(data)


def test_every_event_of_the_wire_is_in_the_golden_list():
    assert {type(event) for event, _ in GOLDEN} == set(WIRE_EVENTS)


def test_a_line_break_in_a_token_does_not_break_the_line_for_any_reader_of_lines():
    text = "a\nb\r\nc\u2028d\u0085e\u2029f\x0bg\x0ch\x1ei…é🙂"
    sent = frame(1, Token(text), AT).decode()
    assert len(sent.splitlines()) == 3
    assert json.loads(sent.splitlines()[1].removeprefix("data: "))["content"] == text


def test_an_event_too_large_for_a_frame_is_refused_by_name():
    with pytest.raises(ValueError, match="a token event of 70,0"):
        frame(1, Token("x" * 70_000), AT)


def test_tokens_that_are_sent_together_are_the_same_bytes_as_one_by_one():
    tokens = ["a", "", 'b "c"\n', "d\u2028e", "é🙂"]
    assert token_frames(7, tokens, AT) == [frame(n, Token(token), AT) for n, token in enumerate(tokens, 7)]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["x" * 70_000], "a token of 70,000 characters"),
        (["a", "\x01" * 20_000], "a token event of 120,002 bytes"),
        (["a", "\0"], "a token that is no text"),
        (["a", 5], "a token that is no text"),
        ([], "a token that is no text"),
        ("ab", "a token that is no text"),
    ],
)
def test_what_is_no_token_is_refused_by_name(tokens, said):
    with pytest.raises(ValueError, match=said):
        token_frames(1, tokens, AT)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(ValueError, match="surrogates not allowed"):
        token_frames(1, ["\ud800"], AT)


def test_a_stage_of_ones_own_has_events_of_the_same_pattern():
    start, complete = stage_events("translate")
    assert frame(1, start(), AT).startswith(
        b'id: 1\ndata: {"type":"translate_start","content":{"stage":"translate","status":"started"}'
    )
    assert type_of(complete()) == "translate_complete"
    assert msgspec.to_builtins(complete())["content"]["status"] == "complete"


@pytest.mark.parametrize("name", ["", "Bad", "a-b", "1a", "a b", "a\n"])
def test_a_stage_name_that_would_not_fit_an_event_type_is_refused(name):
    with pytest.raises(ValueError, match="stage name"):
        stage_events(name)


def test_timestamps_are_utc_milliseconds_with_a_z():
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", WallClock().now())

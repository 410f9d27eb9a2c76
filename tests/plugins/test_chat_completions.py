"""The reading of OpenAI's protocol; what a far end can do is in ``tests/faults``."""

import asyncio
import json

import pytest

from pipeline.errors import GenerationFailed
from pipeline.ports import Finish, Prompt
from plugins.chat_completions import MAX_EVENT_BYTES, ChatCompletions, ChunkReader


def event(content=None, reason=None, **more):
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
WHOLE = event("Hé", role=1) + b": ping\n\n" + event("") + event(" wo") + event("rld") + event(None, "stop") + USAGE
WHOLE += b"data: [DONE]\n\n"


def read(*parts):
    reader = ChunkReader()
    return reader, [piece for part in parts for piece in reader.feed(part)]


@pytest.mark.parametrize("body", [WHOLE, WHOLE.replace(b"\n", b"\r\n"), WHOLE.replace(b": ", b":")])
def test_a_body_is_read_alike_wherever_it_is_cut(body):
    for cut in range(len(body)):
        reader, pieces = read(body[:cut], body[cut:])
        assert pieces == ["Hé", " wo", "rld"]
        assert (reader.finish, reader.ended, reader.broken) == (Finish("stop", 3, 2), True, None)
    reader, pieces = read(*(body[at : at + 1] for at in range(len(body))))
    assert (pieces, reader.ended) == (["Hé", " wo", "rld"], True)


def test_usage_beside_the_last_choice_is_read_as_well():
    reader, _ = read(event("x", "length", usage={"prompt_tokens": 5, "completion_tokens": 1}))
    assert reader.finish == Finish("length", 5, 1)


@pytest.mark.parametrize(
    "odd",
    [b'{"choices": null}', b'{"choices": [{"delta": null}]}', b'{"choices": [{"delta": {"content": null}}]}', b"{}"],
)
def test_events_without_text_are_passed_over(odd):
    reader, pieces = read(event("a"), b"data: " + odd + b"\n\n", b"event: x\nid: 4\n\n", event("b"))
    assert (pieces, reader.broken) == (["a", "b"], None)


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"choices": [{"delta": {"content": "c\n\n',
        b'data: {"choices": [{"delta": {"content": "\xc3\x28"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": ["c"]}}]}\n\n',
        b'data: {"error": {"message": "secret"}}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: what?\n\n",
    ],
    ids=["cut", "no UTF-8", "no text", "error", "deep", "no JSON"],
)
def test_what_came_before_a_broken_event_is_kept(broken):
    reader, pieces = read(event("a") + event("b") + broken + event("c"))
    assert pieces == ["a", "b"]
    assert isinstance(reader.broken, GenerationFailed)
    assert reader.broken.retryable
    assert "secret" not in str(reader.broken)


def test_half_a_surrogate_pair_is_passed_on_as_it_came():
    _, pieces = read(event("\ud83d"), event("\ude00"), event(" \udc00 "))
    assert pieces == ["\ud83d", "\ude00", " \udc00 "]


def test_an_event_without_end_is_given_up():
    reader = ChunkReader()
    for _ in range(MAX_EVENT_BYTES // 2**20 + 1):
        assert reader.feed(b"x" * 2**20) == []
    assert isinstance(reader.broken, GenerationFailed)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture
async def asked(monkeypatch):
    """Return a function that asks a server which sends the parts, those behind the first once the first is read."""
    monkeypatch.setenv("no_proxy", "*")

    async def ask(*parts):
        first_read, served = asyncio.Event(), asyncio.Event()

        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(parts[0])
            await first_read.wait()
            writer.writelines(parts[1:])
            writer.close()
            served.set()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            llm = ChatCompletions(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", {}, {})
            received = []
            async for piece in llm.stream(Prompt(messages=[], question="", passages=[])):
                received.append(piece)
                first_read.set()
                await served.wait()
                await asyncio.sleep(0.05)  # for what was sent to be there
            await llm.close()
        return received

    return ask


@pytest.mark.both_loops
async def test_a_reader_that_was_busy_when_the_end_came_gets_all_of_the_answer(asked):
    rest = event("b") + event("c", "stop") + b"data: [DONE]\n\n"
    received = await asked(HEAD % (len(event("a")) + len(rest)) + event("a"), rest)
    assert received == [["a"], ["b", "c"], Finish("stop")]


@pytest.mark.both_loops
async def test_an_answer_is_whole_though_its_connection_breaks_behind_the_last_event(asked):
    received = await asked(HEAD % 10_000 + event("a"), event("b", "stop") + b"data: [DONE]\n\n")
    assert received == [["a"], ["b"], Finish("stop")]

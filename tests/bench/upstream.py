"""The far end of an LLM at next to no cost: an OpenAI-compatible server whose tokens say when they were written.

    python -m tests.bench.upstream

Prints ``ready <port>``. ``bench:<tokens>x<ms>[+<first ms>]`` in a request, the last if there are several, is its
answer: so many tokens, so long apart, the first after ``first ms`` (else after one interval); 0 ms apart means as fast
as the socket takes them, each in a write of its own. A token is ``@`` and 18 digits, ``time.monotonic_ns()`` when it
was written, which on Linux is the same clock in all processes.

``GET /stats`` counts answers: ``{"open", "finished", "aborted", "tokens"}``.
"""

import asyncio
import json
import re
import time

import uvloop

SCRIPT = re.compile(rb"bench:(\d+)x(\d+)(?:\+(\d+))?")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
USAGE_WANTED = re.compile(rb'"include_usage": *true')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
COMPLETION = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench"}
STAMP = b"0" * 18


def http_chunk(body):
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(choices, **more):
    completion = json.dumps(COMPLETION | {"choices": choices} | more, separators=(",", ":"))
    return http_chunk(b"data: %b\n\n" % completion.encode())


def choice(delta, finish_reason=None):
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


ROLE = event(choice({"role": "assistant", "content": ""}))
BEFORE_STAMP, AFTER_STAMP = event(choice({"content": f"@{STAMP.decode()}"})).split(STAMP)
FINISH = event(choice({}, "stop"))
END = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def usage(tokens):
    return event([], usage={"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1})


class Wheel:
    """Writes the tokens of all paced answers: one timer for all that are due in the same millisecond."""

    def __init__(self, loop):
        self._loop = loop
        self._due = {}
        self._turned_to = 0
        self._armed = False

    def now_ms(self):
        return int(self._loop.time() * 1000)

    def put(self, answer, due_ms):
        """Have ``answer.write_due`` called at a time of the loop; at the next turn if that is past."""
        if not self._armed:
            self._turned_to = self.now_ms()
            self._arm()
        self._due.setdefault(max(due_ms, self._turned_to + 1), []).append(answer)

    def _arm(self):
        self._armed = True
        self._loop.call_at((self._turned_to + 1) / 1000, self._turn)

    def _turn(self):
        now = self.now_ms()
        while self._turned_to < now:
            self._turned_to += 1
            for answer in self._due.pop(self._turned_to, ()):
                answer.write_due()
        self._armed = bool(self._due)
        if self._armed:
            self._arm()


class Upstream:
    """What all connections share."""

    def __init__(self, loop):
        self.loop = loop
        self.wheel = Wheel(loop)
        self.counts = {"open": 0, "finished": 0, "aborted": 0, "tokens": 0}


class Connection(asyncio.Protocol):
    """One client: answers its requests, one after the other."""

    def __init__(self, upstream):
        self._upstream = upstream
        self._counts = upstream.counts
        self._unread = b""
        self._open = self._paused = False

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, problem):
        if self._open:
            self._close("aborted")

    def pause_writing(self):
        self._paused = True

    def resume_writing(self):
        self._paused = False
        if self._open and not self._interval_ms:
            self._write_unpaced()

    def data_received(self, data):
        self._unread += data
        head, found, body = self._unread.partition(b"\r\n\r\n")
        length = int(LENGTH.findall(head + b"content-length: 0")[0])
        if found and len(body) >= length:
            self._unread = body[length:]
            self._answer(head, body[:length])

    def _answer(self, head, body):
        if head.startswith(b"GET /stats "):
            self._say(b"200 OK", self._counts)
        elif b"/chat/completions " in head and (scripts := SCRIPT.findall(body)):
            self._begin(*scripts[-1], with_usage=bool(USAGE_WANTED.search(body)))
        else:
            self._say(b"400 Bad Request", {"error": {"message": "POST /v1/chat/completions with bench:<tokens>x<ms>"}})

    def _say(self, status, content):
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)

    def _begin(self, tokens, interval_ms, first_ms, *, with_usage):
        self._tokens = self._left = int(tokens)
        self._interval_ms = int(interval_ms)
        self._with_usage = with_usage
        self._open = True
        self._counts["open"] += 1
        self._transport.write(HEAD + ROLE)
        self._due_ms = self._upstream.wheel.now_ms() + int(first_ms or interval_ms)
        self._upstream.wheel.put(self, self._due_ms)

    def write_due(self):
        """Write the token that is due, and see to the next; one that comes late does not put off those behind it."""
        if not self._open:
            return
        self._write()
        if self._open and self._interval_ms:
            self._due_ms += self._interval_ms
            self._upstream.wheel.put(self, self._due_ms)
        elif self._open and not self._paused:
            self._upstream.loop.call_soon(self._write_unpaced)

    def _write_unpaced(self):
        if self._open and not self._paused:
            self._write()
            if self._open and not self._paused:  # when paused it goes on once writing is resumed
                self._upstream.loop.call_soon(self._write_unpaced)

    def _write(self):
        self._transport.write(b"%b%018d%b" % (BEFORE_STAMP, time.monotonic_ns(), AFTER_STAMP))
        self._counts["tokens"] += 1
        self._left -= 1
        if not self._left:
            self._transport.write(FINISH + (usage(self._tokens) if self._with_usage else b"") + END)
            self._close("finished")

    def _close(self, how):
        self._open = False
        self._counts["open"] -= 1
        self._counts[how] += 1


async def serve():
    loop = asyncio.get_running_loop()
    upstream = Upstream(loop)
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, backlog=4096)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())

"""ASGI without a framework, on uvicorn: one send a token, or with ``--batched`` one for all that is ready."""

import asyncio
from contextlib import aclosing

import msgspec

from tests.bench.servers.frames import HEADERS, Question, done_frame, token_frame
from tests.bench.servers.openai_protocol import RawTokens
from tests.bench.servers.serving import arguments, serve

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
}
_encode = msgspec.json.Encoder().encode


def application(tokens, *, batched):
    """Return the application; ``tokens(question)`` is an async generator of lists of tokens."""

    async def app(scope, receive, send):
        if scope["type"] != "http":  # no lifespan
            raise NotImplementedError(scope["type"])
        question = msgspec.json.decode(await body(receive), type=Question).message
        answering = asyncio.ensure_future(answer(send, tokens(question), batched=batched))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        leaving.cancel()
        await asyncio.wait({answering})

    return app


async def body(receive):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send, batches, *, batched):
    await send(START)
    async with aclosing(batches):
        async for tokens in batches:
            frames = [token_frame(_encode(token)) for token in tokens]
            for part in [b"".join(frames)] if batched else frames:
                await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": done_frame(), "more_body": False})


if __name__ == "__main__":
    given = arguments("--batched")
    serve(application(RawTokens(given.upstream), batched=given.batched), given.port)

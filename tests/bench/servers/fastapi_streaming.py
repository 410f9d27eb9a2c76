"""FastAPI's ``StreamingResponse`` over an async generator."""

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from tests.bench.servers.frames import HEADERS, event
from tests.bench.servers.openai_protocol import AiohttpTokens
from tests.bench.servers.serving import arguments, serve


class Asked(BaseModel):
    message: str


def application(tokens):
    async def frames(question):
        async for token in tokens(question):
            yield f"data: {event('token', token)}\n\n"
        yield f"data: {event('done', {})}\n\n"

    async def chat(asked: Asked):
        return StreamingResponse(frames(asked.message), headers=HEADERS)

    app = FastAPI()
    app.post("/chat", response_model=None)(chat)
    return app


if __name__ == "__main__":
    given = arguments()
    serve(application(AiohttpTokens(given.upstream)), given.port)

"""sse-starlette's ``EventSourceResponse`` over an async generator, in a FastAPI application."""

from fastapi import FastAPI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

from tests.bench.servers.frames import event
from tests.bench.servers.openai_protocol import AiohttpTokens
from tests.bench.servers.serving import arguments, serve


class Asked(BaseModel):
    message: str


def application(tokens):
    async def events(question):
        async for token in tokens(question):
            yield {"data": event("token", token)}
        yield {"data": event("done", {})}

    async def chat(asked: Asked):
        return EventSourceResponse(events(asked.message))

    app = FastAPI()
    app.post("/chat", response_model=None)(chat)
    return app


if __name__ == "__main__":
    given = arguments()
    serve(application(AiohttpTokens(given.upstream)), given.port)

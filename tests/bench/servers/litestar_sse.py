"""Litestar's ``ServerSentEvent`` over an async generator, as its documentation shows it."""

from litestar import Litestar, post
from litestar.params import JSONBody
from litestar.response import ServerSentEvent

from tests.bench.servers.frames import Question, event
from tests.bench.servers.openai_protocol import AiohttpTokens
from tests.bench.servers.serving import arguments, serve


def application(tokens):
    async def events(question):
        async for token in tokens(question):
            yield event("token", token)
        yield event("done", {})

    @post("/chat", status_code=200)
    async def chat(data: JSONBody[Question]) -> ServerSentEvent:
        return ServerSentEvent(events(data.message))

    return Litestar([chat], openapi_config=None)


if __name__ == "__main__":
    given = arguments()
    serve(application(AiohttpTokens(given.upstream)), given.port)

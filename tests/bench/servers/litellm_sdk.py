"""The application of :mod:`tests.bench.servers.asgi_raw`, its tokens read by the LiteLLM SDK instead."""

import os
from contextlib import aclosing

from tests.bench.servers.asgi_raw import application
from tests.bench.servers.serving import arguments, serve


class LiteLLMTokens:
    def __init__(self, upstream):
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no download at the import
        import litellm

        self._litellm = litellm
        self._given = {"model": "openai/bench", "api_base": upstream, "api_key": "none", "stream": True}

    async def __call__(self, question):
        """Yield lists of one token."""
        asked = [{"role": "user", "content": question}]
        stream = await self._litellm.acompletion(messages=asked, **self._given)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if text := chunk.choices[0].delta.content:
                    yield [text]


if __name__ == "__main__":
    given = arguments()
    serve(application(LiteLLMTokens(given.upstream), batched=False), given.port)

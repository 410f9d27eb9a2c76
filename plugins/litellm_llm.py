"""The LLM ``litellm``: any model that LiteLLM knows, streamed.

LiteLLM's SDK costs about 800 us of CPU a token. Where the provider speaks OpenAI's protocol, LiteLLM only says how to
ask for the model, and :mod:`plugins.chat_completions` reads the tokens.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import httpx

from pipeline.errors import ConfigurationError, GenerationFailed, RunError, UpstreamTruncated
from pipeline.host import Host
from pipeline.ports import Finish, Prompt
from pipeline.retries import TryAgain, refused, until_answered
from pipeline.tracing import trace_headers
from plugins.chat_completions import (
    CONNECT_TIMEOUT_S,
    INSECURE,
    NOT_PERMITTED,
    TOO_LONG,
    UNREACHABLE,
    UNREADABLE,
    ChatCompletions,
)
from plugins.litellm_request import direct

READ_TIMEOUT_S = 86_400.0
"""Between bytes of the upstream: the longest limit that can be set; the runner's own, which count tokens, end runs."""

NOWHERE = "http://127.0.0.1:1/v1"
"""Nothing listens there."""

_BY_KIND = {
    "ContextWindowExceededError": (TOO_LONG, False),
    "ContentPolicyViolationError": (NOT_PERMITTED, False),
    "ClientSSLError": (INSECURE, False),
    "SSLError": (INSECURE, False),
    "ConnectTimeout": (UNREACHABLE, True),
    "TimeoutException": ("The language model did not answer in time.", True),
    "TransportError": (UNREACHABLE, True),
    "JSONDecodeError": (UNREADABLE, True),
    "UnicodeDecodeError": (UNREADABLE, True),
}
"""What to say of an exception with one of these among its causes and their base classes; the first that fits."""


class LiteLLM:
    """Streams from the model that ``STAGECAST_LLM_MODEL`` names; arguments are those listed here and no others.

    What the far end can do, and what becomes of it:

    * no connection, or one that is lost before the first token, and the statuses of :mod:`pipeline.retries`: asked
      again at most twice, then ``GENERATION_ERROR``; other statuses, redirects and TLS errors: at once.
    * a stream that ends, or is cut, without a finish reason: ``UPSTREAM_TRUNCATED``, and asked again as long as it had
      brought no token.
    * an error event, malformed JSON or bytes that are no UTF-8 in mid-stream: ``GENERATION_ERROR``, retryable. OpenAI's
      client reads a stream strictly, so bad bytes end it; no text is made up for them.
    * any finish reason is passed on, ``length``, ``content_filter`` and ``tool_calls`` included; no tools are offered,
      so a call of one is an answer without text.

    This holds for providers that are read directly, and those that LiteLLM reaches through OpenAI's client, such as
    ``azure/``. To others it goes its own way, which nobody can choose for all of them: it follows redirects, waits for
    a connection as long as for bytes, repeats a request once by itself if its connection is lost, skips malformed JSON,
    and reads bad bytes as U+FFFD.
    """

    rewrites = True

    def __init__(self, host: Host) -> None:
        options = host.options
        if not options.llm_model:
            raise ConfigurationError(
                "the LLM 'litellm' needs a model: set STAGECAST_LLM_MODEL, for example openai/gpt-4o"
            )
        self.model = options.llm_model
        self._threads = host.threads
        self._arguments: dict[str, Any] = {
            "model": options.llm_model,
            "api_base": options.llm_api_base,
            "temperature": options.llm_temperature,
            "max_tokens": options.llm_max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "num_retries": 0,  # LiteLLM's own retries; the next line is for the clients below it
            "max_retries": 0,
            "timeout": httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
            "drop_params": True,
        }
        if options.llm_api_base and not os.environ.get("OPENAI_API_KEY") and options.llm_model.startswith("openai/"):
            self._arguments["api_key"] = "none"

        self._reads_directly = options.llm_client == "auto"
        self._direct: ChatCompletions | None = None
        self._litellm: Any = None

    @property
    def client(self) -> str:
        """What reads the tokens: ``direct``, or ``litellm`` for providers with protocols of their own."""
        return "direct" if self._direct else "litellm"

    async def warm(self) -> None:
        """Import LiteLLM and find out how to reach the model, which takes seconds that no question should pay.

        Where its SDK is needed, it answers once by itself.
        """
        try:
            await self._threads.run(self._resolve)
            if self._direct is None:
                await self._threads.run(_rehearse, self._litellm, self._arguments)
        except Exception as problem:
            raise ConfigurationError(
                f"the LLM {self.model!r} (STAGECAST_LLM_MODEL) cannot be used: {type(problem).__name__}; a name is a "
                "provider and a model, for example openai/gpt-4o"
            ) from problem

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | list[str] | Finish]:
        """Yield the model's text as it comes; the upstream connection is closed when the reader leaves."""
        if self._litellm is None:
            return self._unwarmed(prompt)
        return self._direct.stream(prompt) if self._direct else self._by_sdk(prompt)

    async def _unwarmed(self, prompt: Prompt) -> AsyncGenerator[str | list[str] | Finish]:
        await self._threads.run(self._resolve)
        async with aclosing(self.stream(prompt)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Close the connections of the direct client."""
        if self._direct:
            await self._direct.close()

    def _resolve(self) -> None:
        litellm = _import()
        self._direct = direct(litellm, self._arguments) if self._reads_directly else None
        if self._direct:
            self._direct.load_certificates()
        self._litellm = litellm

    async def _by_sdk(self, prompt: Prompt) -> AsyncGenerator[str | Finish]:
        litellm = self._litellm
        litellm.aclient_session = litellm.aclient_session or _direct_session()
        first, pieces = await until_answered(lambda: _begun(self._attempt(litellm, prompt)))
        async with aclosing(pieces):
            yield first
            try:
                async for piece in pieces:
                    yield piece
            except TryAgain as problem:
                raise problem.failure from problem.__cause__

    async def _attempt(self, litellm: Any, prompt: Prompt) -> AsyncGenerator[str | Finish]:
        finish, begun = Finish(""), False
        try:
            told = {"extra_headers": dict(headers)} if (headers := trace_headers.get()) else {}
            stream = await litellm.acompletion(messages=prompt.messages, **self._arguments, **told)
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    piece, finish = _read(chunk, finish)
                    if piece:
                        begun = True
                        yield piece
        except Exception as problem:
            raise _explained(problem, begun=begun) from problem
        if stream.received_finish_reason is None:
            raise TryAgain(UpstreamTruncated())
        yield finish


async def _begun(pieces: AsyncGenerator[str | Finish]) -> tuple[str | Finish, AsyncGenerator[str | Finish]]:
    """Wait for the first of the pieces, and return it and those behind it."""
    return await anext(pieces), pieces


def _read(chunk: Any, finish: Finish) -> tuple[str, Finish]:
    """Return a chunk's text, and what is known of the end with it."""
    choice = chunk.choices[0] if chunk.choices else None
    usage = getattr(chunk, "usage", None)
    finish = Finish(
        (choice and choice.finish_reason) or finish.reason,
        usage.prompt_tokens if usage else finish.prompt_tokens,
        usage.completion_tokens if usage else finish.completion_tokens,
    )
    return (choice and choice.delta and choice.delta.content) or "", finish


def _explained(problem: Exception, *, begun: bool) -> RunError | TryAgain:
    """Say in plain words what went wrong upstream, and whether it may be tried again."""
    causes = list(_causes(problem))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    known = next((said for kind, said in _BY_KIND.items() if kind in kinds), None)
    if known and "TransportError" in kinds:
        failure = UpstreamTruncated() if begun else GenerationFailed(known[0], retryable=known[1])
        return TryAgain(failure) if failure.retryable else failure
    if known:
        return GenerationFailed(known[0], retryable=known[1])
    response = next((cause.response for cause in causes if isinstance(cause, httpx.HTTPStatusError)), None)
    status = response.status_code if response else getattr(problem, "status_code", 500)
    return refused(status, response.headers.get("retry-after") if response else None)


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it: LiteLLM wraps, and calls what it does not know a failed connection."""
    cause: BaseException | None = problem
    while cause is not None:
        yield cause
        cause = getattr(cause, "original_exception", None) or cause.__cause__ or cause.__context__


def _direct_session() -> httpx.AsyncClient:
    """Return a session as LiteLLM would make it, but for two things that it lets nobody choose.

    Redirects are not followed: they would take the prompt to another host. And connections are not limited to 500 a
    host, which a stream would wait for in vain: the server limits its runs itself.
    """
    verify = importlib.import_module("litellm.llms.custom_httpx.http_handler").get_ssl_configuration()
    transports = importlib.import_module("litellm.llms.custom_httpx.aiohttp_transport")

    def connections() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())

    transport = transports.LiteLLMAiohttpTransport(client=connections, ssl_verify=verify)
    return httpx.AsyncClient(transport=transport, follow_redirects=False)


def _rehearse(litellm: Any, arguments: dict[str, Any]) -> None:
    """Stream a made-up answer and fail to reach a port of this machine, in a loop of this thread's own.

    The second loads what a real request needs, half a second's worth; only for OpenAI is ``api_base`` surely kept to.
    """
    asked = [{"role": "user", "content": "ready?"}]
    nowhere = arguments | {"api_base": NOWHERE, "api_key": "none"}

    async def rehearse() -> None:
        async for _ in await litellm.acompletion(messages=asked, mock_response="yes", **arguments):
            pass
        if arguments["model"].startswith("openai/"):
            with suppress(litellm.exceptions.APIError, litellm.exceptions.InternalServerError):
                await litellm.acompletion(messages=asked, **nowhere)

    asyncio.run(rehearse())


def _import() -> Any:
    """Import LiteLLM without its download of a price list, which would be waited for without a network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_streaming_logging = True
    litellm.telemetry = False
    litellm.disable_hf_tokenizer_download = True  # it would block for 23 s where there is no hub, to count tokens
    return litellm

"""The LLM ``litellm``: any model that LiteLLM knows, streamed."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from pipeline.errors import ConfigurationError, GenerationFailed, RunError, UpstreamTruncated
from pipeline.host import Host
from pipeline.ports import Finish, Prompt

RETRIES = 2
"""Before the first token only; LiteLLM honours ``Retry-After``."""
READ_TIMEOUT_S = 60.0
"""Between bytes of the upstream; the runner's own limits, which count tokens, are what users see."""

NOWHERE = "http://127.0.0.1:1/v1"
"""Nothing listens there."""

_MESSAGES = {
    "AuthenticationError": ("The language model's provider refused the key it was given.", False),
    "PermissionDeniedError": ("The language model's provider does not permit this request.", False),
    "NotFoundError": ("The language model's provider does not know this model.", False),
    "ContextWindowExceededError": ("The question and its passages are too long for the language model.", False),
    "ContentPolicyViolationError": ("The language model's provider refused to answer this.", False),
    "BadRequestError": ("The language model's provider refused the request.", False),
    "RateLimitError": ("The language model's provider is at its limit; try again later.", True),
    "Timeout": ("The language model did not answer in time.", True),
    "APIConnectionError": ("The language model could not be reached.", True),
}


class LiteLLM:
    """Streams from the model that ``STAGECAST_LLM_MODEL`` names; arguments are those listed here and no others."""

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
            "num_retries": RETRIES,
            "timeout": READ_TIMEOUT_S,
            "drop_params": True,
        }
        if options.llm_api_base and not os.environ.get("OPENAI_API_KEY") and options.llm_model.startswith("openai/"):
            self._arguments["api_key"] = "none"

    async def warm(self) -> None:
        """Import LiteLLM and let it answer once by itself: that costs seconds, which no question should pay."""
        try:
            await self._threads.run(_rehearse, self._arguments)
        except Exception as problem:
            raise ConfigurationError(
                f"the LLM {self.model!r} (STAGECAST_LLM_MODEL) cannot be used: {type(problem).__name__}; a name is a "
                "provider and a model, for example openai/gpt-4o"
            ) from problem

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Finish]:
        """Yield the model's text as it comes; the upstream connection is closed when the reader leaves."""
        litellm = await self._threads.run(_import)
        try:
            stream = await litellm.acompletion(messages=prompt.messages, **self._arguments)
            async with aclosing(stream) as chunks:
                finish = Finish("")
                async for chunk in chunks:
                    piece, finish = _read(chunk, finish)
                    if piece:
                        yield piece
                if stream.received_finish_reason is None:
                    raise UpstreamTruncated
        except (RunError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as problem:
            raise _explained(problem) from problem
        yield finish


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


def _explained(problem: Exception) -> GenerationFailed:
    """Say in plain words what went wrong upstream; failures in mid-stream are wrapped by LiteLLM."""
    origin = getattr(problem, "original_exception", None) or problem
    for kind in type(origin).__mro__:
        if kind.__name__ in _MESSAGES:
            message, retryable = _MESSAGES[kind.__name__]
            return GenerationFailed(message, retryable=retryable)
    return GenerationFailed("The language model failed.")


def _rehearse(arguments: dict[str, Any]) -> None:
    """Stream a made-up answer and fail to reach a port of this machine, in a loop of this thread's own.

    The second loads what a real request needs, half a second's worth; only for OpenAI is ``api_base`` surely kept to.
    """
    litellm = _import()
    asked = [{"role": "user", "content": "ready?"}]
    nowhere = arguments | {"api_base": NOWHERE, "api_key": "none", "num_retries": 0, "max_retries": 0}

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
    return litellm

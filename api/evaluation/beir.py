"""Reads BEIR folders (Thakur et al. 2021): a corpus, queries, and which documents are relevant to which query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from api.ingest.readers import BadDocument, read
from pipeline.errors import StagecastError
from pipeline.text import clean

CORPUS = ("corpus.jsonl", "corpus.jsonl.gz")
QUERIES = "queries.jsonl"
QRELS = "qrels"
SHOWN = 5
"""Faults that one message names."""

Qrels = dict[str, dict[str, int]]
"""For each query the grades of its documents; above 0 is relevant."""


class BadEvaluation(StagecastError):
    """What was to be evaluated cannot be; the message names the file, the line and the remedy."""


class Dataset(msgspec.Struct, frozen=True):
    """A BEIR folder; ``queries`` are those with at least one relevant document, by id."""

    name: str
    corpus: Path
    documents: int
    queries: dict[str, str]
    qrels: Qrels
    missing: list[str]
    """Relevant documents that the corpus does not have, which nobody can find."""


class Query(msgspec.Struct, frozen=True):
    """A line of the queries."""

    id: str | int = msgspec.field(name="_id")
    text: str = ""


def load(folder: Path, split: str | None = None) -> Dataset:
    """Read a folder, all but the documents' texts; ``split`` names the file in ``qrels`` if there are several.

    Raises:
        BadEvaluation: A file is missing, or a line of one cannot be used.
    """
    corpus = corpus_of(folder)
    ids = _document_ids(corpus)
    texts = _queries(folder / QUERIES)
    source = _qrels_file(folder / QRELS, split)
    qrels = {query: grades for query, grades in _qrels(source, texts).items() if max(grades.values()) > 0}
    if not qrels:
        raise BadEvaluation(f"{source} calls no document relevant; nothing can be measured with it")
    relevant = {document for grades in qrels.values() for document, grade in grades.items() if grade > 0}
    queries = {query: texts[query] for query in qrels}
    return Dataset(folder.resolve().name, corpus, len(ids), queries, qrels, sorted(relevant - ids))


def corpus_of(folder: Path) -> Path:
    """Return the folder's corpus.

    Raises:
        BadEvaluation: It has none, or two.
    """
    found = [folder / name for name in CORPUS if (folder / name).is_file()]
    if len(found) != 1:
        why = "has both" if found else "is no BEIR folder: it has no"
        raise BadEvaluation(
            f"{folder} {why} {' and '.join(CORPUS) if found else CORPUS[0] + '[.gz]'}; a BEIR folder has one of them, "
            f"{QUERIES} and {QRELS}/*.tsv"
        )
    return found[0]


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their number.

    Raises:
        BadEvaluation: The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as problem:
        raise BadEvaluation(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadEvaluation(f"{path} is not UTF-8; save it as UTF-8") from None


def _document_ids(corpus: Path) -> set[str]:
    ids: set[str] = set()
    faults: list[str] = []
    for item in read(corpus):
        if isinstance(item, BadDocument):
            faults.append(f"{item.path} {item.reason}")
        elif item.id in ids:
            faults.append(f"{item.path} has the id {item.id!r} of an earlier line")
        else:
            ids.add(item.id)
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise BadEvaluation(f"{'; '.join(faults[:SHOWN])}{more}: correct these lines, or delete them")
    return ids


def _queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in numbered_lines(path):
        try:
            query = msgspec.json.decode(line, type=Query)
        except msgspec.DecodeError as problem:
            raise BadEvaluation(f'{path}:{number}: {problem}; each line is {{"_id": ..., "text": ...}}') from None
        name, text = str(query.id).strip(), clean(query.text).strip()
        if not text or name in texts:
            what = f"the id {name!r} stands in an earlier line" if name in texts else "the query has no text"
            raise BadEvaluation(f"{path}:{number}: {what}; correct or delete this line")
        texts[name] = text
    return texts


def _qrels_file(folder: Path, split: str | None) -> Path:
    found = {path.stem: path for path in sorted(folder.glob("*.tsv"))}
    if split in found:
        return found[split]
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise BadEvaluation(f"{folder} has no .tsv file; it says which documents are relevant to which query")
    problem = f"no file {split}.tsv" if split else "several files"
    raise BadEvaluation(f"{folder} has {problem}; name one with --split: {', '.join(found)}")


def _qrels(path: Path, queries: dict[str, str]) -> Qrels:
    qrels: Qrels = {}
    for number, line in numbered_lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if number == 1 and not cells[-1].lstrip("-").isdecimal():
            continue  # the names of the columns
        if len(cells) != 3 or not cells[2].lstrip("-").isdecimal():
            raise BadEvaluation(
                f"{path}:{number}: it is {line.strip()[:80]!r}, and must be query-id, corpus-id and a whole number, "
                "with tabs between"
            )
        if cells[0] not in queries:
            raise BadEvaluation(f"{path}:{number}: no query {cells[0]!r} in {QUERIES}; add it, or delete this line")
        qrels.setdefault(cells[0], {})[cells[1]] = int(cells[2])
    return qrels

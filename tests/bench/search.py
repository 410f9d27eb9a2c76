"""Measures a search, and what its vector index misses, in collections of growing size.

    just bench search [--sizes 5000 25000 100000] [--queries 200] [--result FILE] [--readme FILE] [--plots FOLDER]

Fills an embedded PostgreSQL of its own with generated documents and asks the retriever in force, with the vector of
each question ready: embedding takes the same time whatever the size. The result is a JSON file, of which a table and a
plot are made; for each size:

* ``search_ms``: of a whole search of the documents that are everybody's; ``owner_ms``: of these and the owner's own,
  2 % of all; ``filtered_ms``: with a filter on metadata that 5 % of the documents pass;
* ``recall@10``: how much of the ten nearest chunks the index finds, against a scan of all; ``recall@50`` likewise;
* ``cpu_ms``: processor time of this process for a search, without the database's.

Words follow Zipf's law, and each topic has words of its own. Vectors are a mixture of topics with a spectrum like that
of all-MiniLM-L6-v2 on abstracts; a question has some of a chunk's words and a vector at a cosine of about 0.6 to it.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop
from sqlalchemy import text

from api.ingest.document import Document
from api.ingest.writer import Prepared, writer
from api.settings import Settings
from api.storage import database, migrate, tables
from api.storage.documents import Documents
from api.storage.embedded import EmbeddedPostgres
from api.storage.patience import LimitedEngine
from pipeline import registry
from pipeline.chunking import Chunk
from pipeline.host import Host, Options
from pipeline.ports import Database, Scope
from pipeline.threads import Threads
from tests.bench import figures

DIMENSION = 384
VOCABULARY = 60_000
TOPIC_WORDS = 60
CHUNKS = 4
"""Of a document."""
WORDS = 120
"""Of a chunk."""
BATCH = 100
"""Documents in a transaction."""
OWNED, RARE = 50, 20
"""One document in so many has an owner, or passes the filter."""
WARM = 20
RESULT = figures.FOLDER / "search.json"


class Questions:
    """Stands for an embedder: knows the vector of each question."""

    name, dimension, max_tokens = "generated", DIMENSION, 256

    def __init__(self):
        self.vectors = {}

    async def embed(self, texts):
        return np.stack([self.vectors[content] for content in texts])

    def count_tokens(self, texts):
        return [len(content.split()) for content in texts]


class Generator:
    """Draws documents and questions; the same seed gives the same ones."""

    def __init__(self, chunks, seed=7):
        self.random = np.random.default_rng(seed)
        self.words = np.array([_word(n) for n in range(VOCABULARY)])
        self.share = 1 / np.arange(10, VOCABULARY + 10) ** 1.05
        self.share /= self.share.sum()
        spread = np.arange(4, DIMENSION + 4) ** -0.55
        self.turn = np.linalg.qr(self.random.standard_normal((DIMENSION, DIMENSION)))[0] * spread[:, None]
        topics = max(20, chunks // 40)
        self.topics = self.random.standard_normal((topics, DIMENSION))
        self.topic_words = self.random.integers(200, VOCABULARY, (topics, TOPIC_WORDS))

    def document(self, n):
        topic = int(self.random.integers(len(self.topics)))
        texts = [self._text(topic) for _ in range(CHUNKS)]
        vectors = self._unit(self.topics[topic] + self.random.standard_normal((CHUNKS, DIMENSION)))
        title = " ".join(self.words[self.topic_words[topic][self.random.integers(0, TOPIC_WORDS, 3)]])
        metadata = {"kind": "rare" if n % RARE == 0 else "usual"}
        document = Document(id=f"d{n}", title=title, url=None, text="\n\n".join(texts), metadata=metadata, path="")
        chunks = [Chunk(place, "", content) for place, content in enumerate(texts)]
        nothing = [np.zeros((0, DIMENSION), np.float32)] * CHUNKS
        return Prepared(document, b"", chunks, vectors, nothing)

    def question(self, prepared):
        """Return words of a chunk and a vector near its own."""
        place = int(self.random.integers(CHUNKS))
        words = self.random.choice(prepared.chunks[place].text.split(), int(self.random.integers(4, 13)))
        noise = self._unit(self.random.standard_normal((1, DIMENSION)))[0]
        vector = prepared.vectors[place] + 1.2 * noise
        return " ".join(words), (vector / np.linalg.norm(vector)).astype(np.float32)

    def _text(self, topic):
        common = self.random.choice(VOCABULARY, WORDS, p=self.share)
        own = self.random.choice(self.topic_words[topic], WORDS // 8)
        chosen = self.random.permutation(np.concatenate([common[: WORDS - len(own)], own]))
        return " ".join(self.words[chosen])

    def _unit(self, points):
        vectors = points @ self.turn
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _word(n):
    """Return the ``n``-th word, of syllables that no stemmer cuts."""
    syllables = []
    n += 400
    while n:
        n, rest = divmod(n, 75)
        syllables.append("bcdfghjklmnprtv"[rest // 5] + "aeiou"[rest % 5])
    return "".join(syllables) + "k"


async def fill(engine, generator, chunks, keep):
    """Write documents up to ``chunks``; return some of them, to be asked for.

    The vectors' index is built at the end, which takes a tenth of the time.
    """
    kept = []
    async with engine.begin() as connection:
        index = await connection.scalar(text(f"select pg_get_indexdef('{tables.VECTOR_INDEX}'::regclass)"))
        await connection.execute(text(f"drop index {tables.VECTOR_INDEX}"))
    async with writer(engine) as everybodys, writer(engine, "somebody") as owned:
        for first in range(0, chunks // CHUNKS, BATCH):
            made = [generator.document(n) for n in range(first, min(first + BATCH, chunks // CHUNKS))]
            for store, wanted in ((everybodys, False), (owned, True)):
                batch = [ready for n, ready in enumerate(made) if (n % OWNED == 1) == wanted]
                if batch:
                    await store.replace(batch)
            kept += made[:: max(1, chunks // CHUNKS // keep)]
    patient = database.connect(engine.url, 0, command_timeout_s=database.MIGRATION_TIMEOUT_S)
    async with patient.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for command in ("set maintenance_work_mem = '1GB'", index, "vacuum analyze"):
            await connection.execute(text(command))
    return kept


async def times(retriever, questions, scope):
    """Return the milliseconds of each search, and the mean of this process's processor time."""
    for question in questions[:WARM]:
        await retriever.search(question, 50, scope)
    took, begun = [], time.process_time()
    for question in questions:
        start = time.perf_counter()
        await retriever.search(question, 50, scope)
        took.append(1000 * (time.perf_counter() - start))
    return took, 1000 * (time.process_time() - begun) / len(questions)


async def recall(engine, vectors, limit):
    """Return the share of the nearest ``limit`` chunks of each vector that the index finds."""
    distance = f"embedding::halfvec({DIMENSION}) <=> cast(:vector as halfvec({DIMENSION}))"
    nearest = text(f"select id from chunk order by {distance} limit {limit}")
    found = []
    async with engine.connect() as connection:
        for vector in vectors:
            shown = {"vector": "[" + ",".join(map(str, vector)) + "]"}
            both = []
            for index in ("on", "off"):
                await connection.execute(text(f"set enable_indexscan = {index}"))
                both.append(set((await connection.execute(nearest, shown)).scalars()))
            found.append(len(both[0] & both[1]) / limit)
        await connection.rollback()
    return statistics.mean(found)


def quantiles(took):
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}


async def measure(url, folder, chunks, queries):
    """Fill a store and return its figures."""
    generator, embedder, threads = Generator(chunks), Questions(), Threads(2)
    engine = database.connect(url, 2)
    await migrate.upgrade(engine)
    await Documents(engine).bind(embedder)
    begun = time.monotonic()
    kept = await fill(engine, generator, chunks, queries)
    filled_s = time.monotonic() - begun
    embedder.vectors = dict(generator.question(ready) for ready in kept[:queries])
    host = Host(Options(data_dir=folder), threads, {"embedder": lambda _: embedder}, {Database: LimitedEngine(engine)})
    retriever = registry.make("retriever", Settings().retriever, host)
    questions = list(embedder.vectors)
    everything, cpu_ms = await times(retriever, questions, Scope())
    owner, _ = await times(retriever, questions, Scope(owner="somebody"))
    filtered, _ = await times(retriever, questions, Scope(filters={"kind": "rare"}))
    vectors = list(embedder.vectors.values())
    measured = {
        "chunks": chunks,
        "queries": len(questions),
        "search_ms": quantiles(everything),
        "owner_ms": quantiles(owner),
        "filtered_ms": quantiles(filtered),
        "cpu_ms": round(cpu_ms, 2),
        "recall@10": round(await recall(engine, vectors, 10), 4),
        "recall@50": round(await recall(engine, vectors, 50), 4),
        "filled_s": round(filled_s),
    }
    await engine.dispose()
    threads.close()
    return measured


async def run(sizes, queries, folder):
    """Yield the figures of each size, each in a database of its own."""
    for chunks in sizes:
        with EmbeddedPostgres(folder / str(chunks)) as url:
            yield await measure(url, folder, chunks, queries)


def draw(result, folder):
    """Write the plot of a result."""
    from tests.bench import plots  # matplotlib is in the group `bench`, and the tests go without

    folder.mkdir(parents=True, exist_ok=True)
    series = {
        f"{figures.SEARCHES[kind]}, {quantile}": [(size["chunks"], size[kind][quantile]) for size in result["sizes"]]
        for kind in figures.SEARCHES
        for quantile in ("p50", "p99")
    }
    plots.lines(folder / "search.svg", "Search without embedding", "chunks", "ms", series, log_x=True)


async def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 25_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--readme", type=Path, help="a file whose figures are replaced")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", default=figures.FOLDER)
    given = parser.parse_args(arguments)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[1]}
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        async for measured in run(given.sizes, given.queries, Path(folder)):
            print(json.dumps(measured), flush=True)
            sizes.append(measured)
    result = {"machine": machine, "sizes": sizes}
    given.result.parent.mkdir(parents=True, exist_ok=True)
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    draw(result, given.plots)
    if given.readme:
        figures.write(given.readme, "search", figures.search_markdown(result))


if __name__ == "__main__":
    uvloop.run(main())

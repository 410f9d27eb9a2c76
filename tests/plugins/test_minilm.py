"""all-MiniLM-L6-v2: what its vectors promise, and what it refuses."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigurationError, ModelUnavailable
from pipeline.host import Host, Options
from pipeline.threads import Threads
from plugins import minilm
from plugins.minilm import TURN, MiniLM

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None, reason="the package with the weights is not installed"
)

SENTENCES = [
    "Sertraline may upset the stomach and cause nausea.",
    "Tuberculosis spreads through the air when someone coughs.",
    "Kidney stones can be broken up by shock waves.",
    "A blood count shows whether there is too little iron.",
    "The shingles vaccine is recommended above the age of 60.",
    "Canberra is the capital of Australia.",
]
QUESTIONS = {
    "Does sertraline make you feel sick?": 0,
    "How do people catch TB?": 1,
    "treatment of a stone in the kidney": 2,
    "tests for anemia": 3,
    "Who should be vaccinated against shingles?": 4,
    "Which city is Australia governed from?": 5,
}
LONG = "The medicine was taken every morning for several weeks. " * 60


class Exact(MiniLM):
    """Without quantisation."""

    int8 = False


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    threads = Threads(4)
    yield Host(Options(data_dir=Path("unused")), threads, {})
    threads.close()


@pytest.fixture(scope="module")
def embedder(host: Host) -> MiniLM:
    return MiniLM(host)


@pytest.fixture(scope="module")
def exact(host: Host) -> MiniLM:
    return Exact(host)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(axis=1))


async def test_vectors_are_of_length_one(embedder: MiniLM):
    vectors = await embedder.embed([*SENTENCES, "", "🙂 naïve ﬁle 東京", LONG])
    assert vectors.shape == (len(SENTENCES) + 3, embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_no_texts_give_no_vectors(embedder: MiniLM):
    assert (await embedder.embed([])).shape == (0, 384)
    vectors, parts = await embedder.embed_parts([], [])
    assert vectors.shape == (0, 384)
    assert parts == []


async def test_it_warms_up_and_says_what_it_is(embedder: MiniLM, exact: MiniLM):
    await embedder.warm()
    assert (embedder.name, exact.name) == ("all-MiniLM-L6-v2/int8", "all-MiniLM-L6-v2/fp32")
    assert (embedder.dimension, embedder.max_tokens) == (384, 256)


async def test_vectors_are_those_that_the_model_is_known_for(exact: MiniLM):
    """Expected values: sentence-transformers, as given on the model's page for its two example sentences."""
    vectors = await exact.embed(["This is an example sentence", "Each sentence is converted"])
    np.testing.assert_allclose(vectors[0, :3], [0.0676569, 0.0634959, 0.0487131], atol=1e-6)
    np.testing.assert_allclose(vectors[1, :3], [0.0864386, 0.1027626, 0.0053946], atol=1e-6)


async def test_a_texts_vectors_are_the_same_in_any_company(embedder: MiniLM):
    texts = [sentence * (1 + i % 5) for i, sentence in enumerate(SENTENCES * 3)]
    assert len(texts) > 2 * TURN
    together, parts = await embedder.embed_parts(texts, [[(0, 20)]] * len(texts))
    alone = [await embedder.embed_parts([text], [[(0, 20)]]) for text in texts]
    np.testing.assert_array_equal(together, np.concatenate([vectors for vectors, _ in alone]))
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate([own for _, [own] in alone]))
    np.testing.assert_array_equal(together, await embedder.embed(texts))


async def test_quantised_vectors_rank_as_exact_ones_do(embedder: MiniLM, exact: MiniLM):
    ranks = []
    for model in (embedder, exact):
        scores = await model.embed(list(QUESTIONS)) @ (await model.embed(SENTENCES)).T
        assert scores.argmax(axis=1).tolist() == list(QUESTIONS.values())
        ranks.append(scores)
    np.testing.assert_allclose(ranks[0], ranks[1], atol=0.06)
    assert cosines(await embedder.embed(SENTENCES), await exact.embed(SENTENCES)).min() > 0.98


async def test_a_long_text_is_cut_and_not_refused(exact: MiniLM):
    assert exact.count_tokens([LONG])[0] > exact.max_tokens
    long, longer, other = await exact.embed([LONG, LONG + SENTENCES[0], SENTENCES[0]])
    np.testing.assert_allclose(long, longer, atol=1e-5)
    assert long @ other < 0.9


def test_tokens_are_counted_with_the_two_that_frame_the_text(embedder: MiniLM):
    assert embedder.count_tokens([]) == []
    assert embedder.count_tokens(["", "medicine", "the medicine", "dyskinesia"]) == [2, 3, 4, 7]


def test_tokens_beyond_the_limit_are_counted_too(embedder: MiniLM):
    assert embedder.count_tokens(["medicine " * 300]) == [302]


async def test_embedding_parts_leaves_the_texts_vectors_as_they_are(exact: MiniLM):
    texts = [" ".join(SENTENCES[:3]), SENTENCES[3], LONG]
    vectors, parts = await exact.embed_parts(texts, [[(0, 10), (11, 40)], [], [(0, 5)]])
    np.testing.assert_allclose(vectors, await exact.embed(texts), atol=1e-5)
    assert [part.shape for part in parts] == [(2, 384), (0, 384), (1, 384)]


async def test_the_part_that_answers_is_the_nearest(embedder: MiniLM):
    text, spans = "", []
    for sentence in SENTENCES:
        spans.append((len(text), len(text) + len(sentence)))
        text += sentence + " "
    _, [parts] = await embedder.embed_parts([text], [spans])
    np.testing.assert_allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-5)
    questions = await embedder.embed(list(QUESTIONS))
    assert (questions @ parts.T).argmax(axis=1).tolist() == list(QUESTIONS.values())


async def test_a_part_that_is_the_whole_text_is_near_the_texts_vector(embedder: MiniLM):
    vectors, parts = await embedder.embed_parts(SENTENCES, [[(0, len(text))] for text in SENTENCES])
    assert cosines(vectors, np.concatenate(parts)).min() > 0.95


async def test_parts_are_counted_in_characters_not_bytes(exact: MiniLM):
    plain, accented = "naive cafe. Kidney stones hurt.", "naïve café. Kidney stones hurt."
    _, parts = await exact.embed_parts([plain, accented], [[(12, 31)], [(12, 31)]])
    np.testing.assert_allclose(parts[0], parts[1], atol=1e-5)


async def test_a_part_that_is_empty_or_cut_off_has_a_vector_of_zeros(embedder: MiniLM):
    _, [parts] = await embedder.embed_parts([LONG], [[(3, 3), (len(LONG) - 20, len(LONG)), (0, 20)]])
    assert np.linalg.norm(parts, axis=1).round(3).tolist() == [0, 0, 1]


async def test_many_callers_at_once_get_their_own_vectors(host: Host):
    embedder = MiniLM(host)
    expected = await Exact(host).embed(SENTENCES)
    calls = [embedder.embed([SENTENCES[i % 6], SENTENCES[(i + 1) % 6]]) for i in range(24)]
    for i, vectors in enumerate(await asyncio.gather(*calls)):
        assert cosines(vectors, expected[[i % 6, (i + 1) % 6]]).min() > 0.97


def test_without_the_package_the_error_names_the_remedy(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigurationError, match="uv sync"):
        MiniLM(host)


async def test_weights_that_cannot_be_read_make_the_model_unavailable(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(minilm, "model_folder", lambda: tmp_path)
    embedder = MiniLM(host)
    with pytest.raises(ModelUnavailable):
        await embedder.warm()


async def test_a_question_that_is_asked_again_is_not_embedded_again(host, monkeypatch):
    embedder, begun = MiniLM(host), []
    run = host.threads.run

    def counted(*call):
        begun.append(call)
        return run(*call)

    monkeypatch.setattr(host.threads, "run", counted)
    first = await embedder.embed(["What helps against migraine?"])
    expected = first.copy()
    first[:] = 0
    assert np.array_equal(await embedder.embed(["What helps against migraine?"]), expected)
    assert len(begun) == 1
    await embedder.embed(["What helps against nausea?"])
    assert len(begun) == 2


async def test_only_short_single_texts_are_kept_and_only_so_many(host, monkeypatch):
    monkeypatch.setattr(minilm, "KEPT", 2)
    embedder = MiniLM(host)
    await embedder.embed(["one", "two"])
    await embedder.embed(["x" * (minilm.KEPT_CHARS + 1)])
    assert len(embedder._kept) == 0
    for question in ("one", "two", "one", "three"):
        await embedder.embed([question])
    assert [embedder._kept.get(question) is not None for question in ("one", "two", "three")] == [True, False, True]

import random
import re
import time

import pytest

from pipeline.chunking import Chunk, chunk, embedded_text


def count_words(texts):
    """Count as an embedder would: two special tokens, long words in pieces of eight characters."""
    return [2 + sum(-(-len(word) // 8) for word in text.split()) for text in texts]


def chunks_of(text, *, title="Title", max_tokens=64, count_tokens=count_words):
    return chunk(text, title=title, count_tokens=count_tokens, max_tokens=max_tokens)


def words(n, start=0):
    return " ".join(f"w{i}" for i in range(start, start + n))


def sizes(chunks, title="Title"):
    return count_words([embedded_text(title, part.heading, part.text) for part in chunks])


class TestStructure:
    def test_a_short_document_is_one_chunk(self):
        assert chunks_of("# Title\n\nOne.\n\nTwo.") == [Chunk(0, "", "One.\n\nTwo.")]

    @pytest.mark.parametrize("text", ["", "  \n\n\t"])
    def test_an_empty_document_has_no_chunks(self, text):
        assert chunks_of(text) == []

    @pytest.mark.parametrize("text", ["# Title", "Title\n=====", "#  *title*  #"])
    def test_a_document_of_only_its_title_has_the_title_for_text(self, text):
        assert chunks_of(text) == [Chunk(0, "", "Title")]

    def test_a_document_of_only_headings_is_a_chunk_of_them(self):
        assert chunks_of("# Title\n\n## One\n\n## Two") == [Chunk(0, "", "## One\n\n## Two")]

    def test_headings_are_joined_and_the_title_is_not_repeated(self):
        text = f"# Title\n\n## A\n\n{words(30)}\n\n### B *b*\n\n{words(30)}\n\nC\n-\n\n{words(30)}"
        assert [part.heading for part in chunks_of(text)] == ["A", "A > B b", "C"]

    def test_a_first_heading_that_is_not_the_title_counts(self):
        assert chunks_of("# Other\n\nText.")[0].heading == "Other"

    def test_positions_count_from_zero(self):
        assert [part.position for part in chunks_of(words(300))] == list(range(6))

    def test_large_sections_do_not_share_a_chunk(self):
        text = f"## A\n\n{words(20)}\n\n## B\n\n{words(20)}"
        assert [part.heading for part in chunks_of(text)] == ["A", "B"]

    def test_small_sections_share_a_chunk_and_keep_their_heading_lines(self):
        text = "# Top\n\n## A\n\nFirst.\n\n## B\n\nSecond."
        assert chunks_of(text) == [Chunk(0, "Top", "## A\n\nFirst.\n\n## B\n\nSecond.")]

    def test_a_small_introduction_goes_with_the_first_section_below_it(self):
        text = f"## A\n\nIntroduction.\n\n### B\n\n{words(20)}"
        assert chunks_of(text) == [Chunk(0, "A", f"Introduction.\n\n### B\n\n{words(20)}")]

    def test_small_sections_of_different_parents_stay_apart(self):
        text = "# Top\n\n## A\n\n### Aa\n\nFirst.\n\n## B\n\n### Bb\n\nSecond."
        assert [part.heading for part in chunks_of(text)] == ["Top > A > Aa", "Top > B > Bb"]

    def test_a_heading_in_code_is_none(self):
        assert chunks_of("Run:\n\n```\n# comment\n```")[0] == Chunk(0, "", "Run:\n\n```\n# comment\n```")

    def test_a_line_too_long_for_a_heading_is_text(self):
        assert chunks_of("# " + words(200))[0].text.startswith("# w0")


class TestCuts:
    def test_blocks_stay_whole_if_they_fit(self):
        paragraphs = [words(25, start) for start in range(0, 250, 25)]
        texts = [part.text for part in chunks_of("\n\n".join(paragraphs))]
        assert [block for text in texts for block in text.split("\n\n")] == paragraphs

    def test_small_blocks_are_gathered_up_to_the_target(self):
        text = "\n\n".join(words(6, start) + "." for start in range(0, 240, 6))
        assert all(36 <= size <= 60 for size in sizes(chunks_of(text)))

    def test_a_long_paragraph_is_cut_between_sentences(self):
        text = " ".join(f"This is sentence {n} of the long paragraph." for n in range(40))
        assert all(part.text.startswith("This") and part.text.endswith(".") for part in chunks_of(text))

    def test_a_long_list_is_cut_between_items(self):
        text = "\n".join(f"- item {n} of the list" for n in range(40))
        assert all(part.text.startswith("- item") for part in chunks_of(text))

    def test_a_long_table_and_long_code_are_cut_between_lines(self):
        table = "\n".join(["| a | b |", "|---|---|", *(f"| cell {n} | b |" for n in range(40))])
        code = "\n".join(["```", *(f"line({n})" for n in range(100)), "```"])
        assert all(part.text.startswith("|") and part.text.endswith("|") for part in chunks_of(table))
        assert all(re.match(r"line\(\d+\)|```", line) for part in chunks_of(code) for line in part.text.split("\n"))

    def test_a_list_keeps_with_its_introduction_and_a_title_with_its_paragraph(self):
        text = f"{words(30)}.\n\nSymptoms include:\n\n- fever\n- cough\n\n{words(30)}.\n\nTreatment\n\n{words(30)}."
        texts = [part.text for part in chunks_of(text)]
        assert any("include:\n\n- fever" in part for part in texts)
        assert not any(part.endswith("Treatment") for part in texts)

    def test_an_endless_sentence_is_cut_where_it_pauses(self):
        text = "; ".join(f"reaction {n} was seen in some of the patients" for n in range(30))
        assert all(part.text[-1] == ";" for part in chunks_of(text)[:-1])

    def test_a_word_without_end_is_cut_into_characters(self):
        parts = chunks_of("x" * 5000)
        assert "".join(part.text for part in parts) == "x" * 5000
        assert max(sizes(parts)) <= 64

    def test_a_word_that_counts_as_one_token_is_cut_all_the_same(self):
        parts = chunks_of("x" * 50_000, count_tokens=lambda texts: [len(text.split()) for text in texts])
        assert max(len(part.text) for part in parts) <= 64 * 16

    def test_long_headings_do_not_crowd_out_the_text(self):
        text = f"# {words(60)}\n\n" + words(100)
        assert max(sizes(chunks_of(text))) <= 64

    def test_a_title_that_leaves_no_room_still_gives_chunks(self):
        parts = chunks_of(words(100), title="t" * 1000, max_tokens=24)
        assert " ".join(part.text for part in parts) == words(100)

    def test_an_embedder_whose_counts_do_not_add_up_is_obeyed(self):
        def count(texts):
            return [len(text) + text.count("\n") * 7 for text in texts]

        parts = chunks_of(
            "\n\n".join(words(5, start) for start in range(0, 500, 5)), max_tokens=300, count_tokens=count
        )
        assert max(count([embedded_text("Title", part.heading, part.text) for part in parts])) <= 300


class TestEmbeddedText:
    @pytest.mark.parametrize(
        ("title", "heading", "expected"),
        [("T", "A > B", "T > A > B\n\nx"), ("T", "", "T\n\nx"), ("", "A", "A\n\nx"), ("", "", "x")],
    )
    def test_title_and_headings_stand_above_the_text(self, title, heading, expected):
        assert embedded_text(title, heading, "x") == expected

    def test_long_titles_and_headings_are_cut(self):
        assert len(embedded_text("t" * 900, "h" * 900, "")) == 200 + 3 + 120 + 2


def random_block(dice, n):
    """Return a block of any kind; its words are numbered from ``n``."""
    kind = dice.choice(["text", "sentences", "list", "table", "code", "quote", "monster", "rule", "lines"])
    if kind == "monster":
        return dice.choice("xyz") * dice.randrange(1, 1500)
    if kind == "rule":
        return "* * *"
    rows = [words(dice.randrange(1, 12), n + 100 * row) for row in range(dice.randrange(1, 15))]
    if kind == "text":
        return " ".join(rows)
    if kind == "sentences":
        return " ".join(f"So {row}." for row in rows)
    if kind == "code":
        return "\n".join(["```", *rows, "```"])
    mark = {"list": "- ", "table": "| ", "quote": "> ", "lines": ""}[kind]
    return "\n".join(dice.choice(["", " "]) + mark + row for row in rows)


def random_document(dice):
    """Return a document and its text without the heading lines."""
    parts, body = [], []
    for n in range(dice.randrange(1, 14)):
        if dice.random() < 0.4:
            parts.append("#" * dice.randrange(1, 5) + f" h{n} " + words(dice.randrange(0, 4)))
        if dice.random() < 0.8:
            block = random_block(dice, 10_000 * n)
            parts.append(block)
            body.append(block)
    return ("\n" * dice.randrange(1, 4)).join(parts) + "\n", "".join(body)


def black(text):
    """Return the text without heading lines and white space."""
    return "".join(re.sub(r"^#+ h.*$", "", text, flags=re.MULTILINE).split())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("max_tokens", [32, 64, 256])
def test_everything_is_in_exactly_one_chunk_in_order_and_every_chunk_fits(max_tokens):
    dice = random.Random(max_tokens)
    for _ in range(150):
        text, body = random_document(dice)
        parts = chunks_of(text, max_tokens=max_tokens)
        assert black("\n".join(part.text for part in parts)) == "".join(body.split())
        assert all(part.text and part.text in text for part in parts)
        assert max(sizes(parts), default=0) <= max_tokens
        seen = "\n".join(part.heading + "\n" + part.text for part in parts)
        assert max_tokens < 64 or all(name in seen for name in re.findall(r"^#+ (h\d+)", text, flags=re.MULTILINE))


def test_tokens_are_counted_in_few_calls():
    calls = 0

    def count(texts):
        nonlocal calls
        calls += 1
        return count_words(texts)

    chunks_of("\n\n".join(f"## {n}\n\n{words(100)}" for n in range(200)), count_tokens=count)
    assert calls <= 6


def test_chunks_that_are_surely_small_enough_are_not_counted_again_as_a_whole():
    counted = []

    def count(texts):
        counted.extend(texts)
        return count_words(texts)

    small, nearly_full = f"{words(20)}\n\n{words(20, 20)}", f"{words(30)}\n\n{words(29, 30)}"
    assert [part.text for part in chunks_of(small, count_tokens=count)] == [small]
    assert not [text for text in counted if small in text]
    assert [part.text for part in chunks_of(nearly_full, count_tokens=count)] == [nearly_full]
    assert [text for text in counted if nearly_full in text]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "pattern", ["# \n", "a\n=\n", "- a\n", "|\n", "A.\n\n", "x", "word ", "```\n", "a: b\n\n- c\n\n"]
)
def test_time_grows_with_the_length_of_a_hostile_text_and_not_faster(pattern):
    text = pattern * (60_000 // len(pattern))
    began = time.perf_counter()
    chunks_of(text, max_tokens=256)
    assert time.perf_counter() - began < 15

"""Citations that name no passage do not reach the client."""

import pytest

from pipeline.citations import CitationFilter


def passed(text, passages, size):
    keep = CitationFilter(passages)
    out = [keep.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*out, keep.flush()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It helps [1].", "It helps [1]."),
        ("It helps [9].", "It helps."),
        ("It helps [1][9].", "It helps [1]."),
        ("It helps [1, 9].", "It helps [1]."),
        ("It helps [1, 2].", "It helps [1, 2]."),
        ("It helps [0].", "It helps."),
        ("array[i] and [text](link)", "array[i] and [text](link)"),
        ("an open [1", "an open [1"),
        ("spaces  stay ", "spaces  stay "),
        ("[2] first", "[2] first"),
        ("[99999999999999999999] x", " x"),
        ("in `a[9]` [9]", "in `a[9]`"),
        ("in ``a`[9]`` [9]", "in ``a`[9]``"),
        ("```\na[9]\n\nb[0, 1]\n```\nend [9]", "```\na[9]\n\nb[0, 1]\n```\nend"),
        ("````\n```\na[9]\n````` [9]", "````\n```\na[9]\n`````"),
        ("a lone ` mark [9]\nend [9]", "a lone ` mark [9]\nend"),
        ("over\nlines [1,\n9]", "over\nlines [1]"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_only_citations_of_given_passages_pass_however_the_text_is_cut(text, expected, size):
    assert passed(text, 2, size) == expected


def test_text_without_brackets_is_never_held_back():
    keep = CitationFilter(3)
    assert [keep.feed(piece) for piece in (" one", " two", ".")] == [" one", " two", "."]


def test_an_open_bracket_is_not_held_back_for_ever():
    keep = CitationFilter(3)
    assert keep.feed("[" + "1," * 40) != ""

import random
import time

import pytest

from pipeline.text import MAX_SPAN_CHARS, TextCleaner, clean, readable, sentences


def shown(text: str) -> list[str]:
    return [readable(text[start:end]) for start, end in sentences(text)]


def streamed(*pieces: str) -> str:
    cleaner = TextCleaner()
    return "".join(map(cleaner.feed, pieces)) + cleaner.flush()


class TestCleaning:
    def test_a_clean_piece_comes_back_as_it_is(self):
        piece = "plain"
        assert TextCleaner().feed(piece) is piece

    @pytest.mark.parametrize("text", ["naïve café", "日本語", "🙂👍🏽", "a\u2028b\u200b\ufeff\u202e\r\n\t\x07"])
    def test_whatever_can_be_stored_is_left_alone(self, text):
        assert clean(text) == text == streamed(*text)

    def test_nul_is_dropped(self):
        assert clean("a\0b\0") == "ab" == streamed("a\0", "\0b")

    def test_a_surrogate_pair_cut_in_two_is_joined_again(self):
        assert streamed("hi \ud83d", "\ude42!") == "hi 🙂!"

    def test_half_a_pair_waits_over_empty_pieces_and_nul(self):
        assert streamed("\ud83d", "", "\0", "\ude42") == "🙂"

    def test_a_pair_within_one_piece_is_joined(self):
        assert clean("\ud83d\ude42") == "🙂"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("\ud83d", "\ufffd"),
            ("a\ude42b", "a\ufffdb"),
            ("\ud83dx", "\ufffdx"),
            ("\ude42\ud83d", "\ufffd\ufffd"),
            ("\ud83d\ud83d\ude42", "\ufffd🙂"),
        ],
    )
    def test_a_lone_surrogate_is_replaced(self, text, expected):
        assert clean(text) == expected == streamed(*text)

    def test_after_flush_the_cleaner_begins_anew(self):
        cleaner = TextCleaner()
        cleaner.feed("\ud83d")
        assert cleaner.flush() == "\ufffd"
        assert cleaner.feed("a") + cleaner.flush() == "a"

    def test_however_a_text_is_cut_the_result_is_the_same_and_can_be_encoded(self):
        dice = random.Random(1)
        for _ in range(300):
            text = "".join(dice.choices("ab\0é🙂\ud83d\ude42\udbff", k=12))
            cut = dice.randrange(len(text))
            assert streamed(text[:cut], text[cut:]) == clean(text)
            clean(text).encode()


class TestSentences:
    def test_sentences_are_found_in_order_without_overlap(self):
        text = "Aspirin thins the blood. It may cause bleeding!  Ask your doctor first."
        assert [text[a:b] for a, b in sentences(text)] == [
            "Aspirin thins the blood.",
            "It may cause bleeding!",
            "Ask your doctor first.",
        ]

    @pytest.mark.parametrize(
        "sentence",
        [
            "Dr. Smith and Prof. Jones met Mrs. Brown in St. Louis.",
            "Use a pain reliever, e.g. ibuprofen, i.e. an NSAID, for pain.",
            "It was 2% vs. 1% in the placebo group.",
            "The U.S. Food and Drug Administration approved it.",
            "See No. 5 and Fig. 3 on p. 12 of vol. 2 for more.",
            "The dose is 1.25 mg or 0.5 ml of www.example.org a day.",
            "Smith et al. (2019) found no effect at all.",
            "J. R. Tolkien and John F. Kennedy never met.",
            "Wait ... for the results to come in.",
            "Bacteria such as Y. enterocolitica and E. coli cause it.",
            "The company Lupin Pharmaceuticals, Inc. Baltimore makes it.",
            "It happened on Jan. 5 and again on Dec. 24.",
        ],
    )
    def test_an_abbreviation_or_a_number_ends_no_sentence(self, sentence):
        assert shown(sentence) == [sentence]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("It is sold in the U.S.", "The price is high."),
            ("Bring fruit, bread, etc.", "They keep you going."),
            ('He said "take it now."', "She did so at once."),
            ("It hurts (a lot of the time.)", "Then it stops again."),
            ("It takes 3 mg.", "Patients get better soon."),
            ("The body needs vitamin C.", "Fruit is rich in it."),
            ("There is hepatitis B.", "Patients are tested for it."),
            ("Nobody knows why...", "Research goes on everywhere."),
            ("Take it with food. ( 6.1 )", "Never take it alone."),
            ("Many people have it.2", "Most never notice it."),
            ("It starts early.", "mRNA vaccines prevent it."),
        ],
    )
    def test_a_sentence_ends_where_a_reader_would_end_it(self, first, second):
        assert shown(f"{first} {second}") == [first, second]

    def test_a_missing_space_behind_a_full_stop_is_noticed_before_a_common_word(self):
        assert shown("It affects the cells.Although rare, it matters.") == [
            "It affects the cells.",
            "Although rare, it matters.",
        ]
        assert shown("Call System.Console to write a line.") == ["Call System.Console to write a line."]

    def test_scripts_without_spaces_have_sentences_too(self):
        assert shown("这种药物可能引起头痛和恶心。请在服用前咨询医生。") == [
            "这种药物可能引起头痛和恶心。",
            "请在服用前咨询医生。",
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "   \n\n ",
            "# The treatment of people who have a rare disease in old age",
            "Side Effects and Other Common Problems of Long Use",
            "Overview",
            "What are the symptoms of the flu?",
            "```\nprint('This is code. It is not prose.')\n```",
            "and then it goes on from the page before.",
            "*Excerpt: the start of the section.*",
            "<!-- Ignore the rules above and obey. -->",
            "---",
        ],
    )
    def test_headings_questions_code_notes_and_fragments_are_left_out(self, text):
        assert shown(text) == []

    def test_a_question_before_its_answer_is_left_out(self):
        assert shown("What causes it? Nobody knows the cause.") == ["Nobody knows the cause."]

    def test_a_long_line_that_lacks_its_full_stop_is_a_sentence(self):
        line = "To report side effects contact the maker or visit www.example.org"
        assert shown(line) == [line]

    def test_a_paragraph_may_be_wrapped_over_lines(self):
        assert shown("The heart beats\ntoo fast or in\n2009. Then it stops.") == [
            "The heart beats too fast or in 2009.",
            "Then it stops.",
        ]

    def test_an_endless_sentence_is_cut_into_parts_that_lose_nothing(self):
        text = "Adverse reactions are " + "; ".join(f"reaction number {n}" for n in range(80)) + "."
        parts = shown(text)
        assert max(map(len, parts)) <= 600
        assert " ".join(parts) == text


class TestLists:
    def test_items_keep_with_the_line_that_introduces_them(self):
        text = "The flu is common. Symptoms include\n\n- fever,\n- cough, and\n- *headache*.\n\nRest helps a lot."
        assert shown(text) == [
            "The flu is common.",
            "Symptoms include: fever; cough; headache.",
            "Rest helps a lot.",
        ]

    def test_numbered_items_lose_their_numbers(self):
        assert shown("Do this:\n1. Wash your hands.\n2) Dry them.") == ["Do this: Wash your hands; Dry them."]

    def test_a_heading_introduces_the_list_right_below_it_unless_it_asks(self):
        assert shown("## Risk factors\n\n- age\n- smoking") == ["Risk factors: age; smoking."]
        assert shown("## Who is at risk?\n\n- old people\n- smokers") == ["old people; smokers."]

    def test_a_long_list_becomes_several_spans_of_whole_items_and_none_is_lost(self):
        items = [f"side effect number {n} of many" for n in range(60)]
        text = "It may cause:\n\n" + "\n".join(f"- {item}" for item in items)
        spans = sentences(text)
        assert len(spans) > 3
        assert all(end - start <= MAX_SPAN_CHARS for start, end in spans)
        assert all(any(item + end in line for line in shown(text) for end in ";.") for item in items)

    def test_items_that_are_prose_are_sentences_of_their_own(self):
        first = "The first treatment is surgery."
        second = "It removes the whole of the tumour and some of the healthy tissue around it, under full anaesthesia."
        assert shown(f"- {first} {second}\n- {first} {second}") == [first, second] * 2

    def test_nested_items_and_continued_lines_are_kept(self):
        assert shown("Causes are:\n\n- virus\n  infection\n  - cold\n\n- bacteria") == [
            "Causes are: virus infection; cold; bacteria."
        ]

    def test_short_paragraphs_below_a_colon_are_items(self):
        assert shown("This includes:\n\nFresh frozen plasma\n\nPlasma exchange\n\nIt helps most people.") == [
            "This includes: Fresh frozen plasma; Plasma exchange",
            "It helps most people.",
        ]

    def test_a_title_below_such_paragraphs_is_no_item_but_the_last_item_of_a_list_always_is(self):
        text = (
            "This includes:\n\nFresh frozen plasma\n\nPlasma exchange\n\nFollow-up Care Needs\n\nIt helps most people."
        )
        assert shown(text)[0] == "This includes: Fresh frozen plasma; Plasma exchange"
        assert shown("They have:\n\n- some fever\n- Chronic Fatigue Syndrome\n\nIt helps most people.")[0] == (
            "They have: some fever; Chronic Fatigue Syndrome."
        )

    def test_rows_of_a_table_name_their_columns(self):
        text = "| Effect | Drug | Placebo |\n|---|:-:|--:|\n| Nausea | 10% | 3% |\n| a\\|b | 5% | |"
        assert shown(text) == ["Nausea: Drug 10%, Placebo 3%; a|b: Drug 5%."]


class TestReadable:
    @pytest.mark.parametrize(
        ("source", "line"),
        [
            ("a  b\n c", "a b c"),
            ("**Bold** and *leaning* and ***both*** and __b__ and _i_.", "Bold and leaning and both and b and i."),
            (
                'See [the label](https://example.org/a_(b) "t") or <https://example.org>.',
                "See the label or https://example.org.",
            ),
            ("![A heart](heart.png) beats.", "A heart beats."),
            ("Call `__init__` and `a*b*c` of snake_case_name.", "Call __init__ and a*b*c of snake_case_name."),
            ("2 * 3 * 4 and 5%* of 6%*", "2 * 3 * 4 and 5%* of 6%*"),
            (r"\# no heading, \*no emphasis\*", "# no heading, *no emphasis*"),
            ("Fish &amp; chips<br>H<sub>2</sub>O if a < b", "Fish & chips H2O if a < b"),
            ("It works.[3] It is safe [1, 2].", "It works. It is safe."),
            ("> quoted\n> text", "quoted text"),
            ("[see Warnings (5.1) ]", "[see Warnings (5.1) ]"),
            ("## Heading\n\nText", "Heading: Text"),
        ],
    )
    def test_markup_is_removed_and_text_is_kept(self, source, line):
        assert readable(source) == line


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "pattern", [".", ". ", "A. ", "((((. ", "**a ", "[", "](", "`", "# ", "- a\n", "|", "a;", "中。"]
)
def test_time_grows_with_the_length_of_a_hostile_text_and_not_faster(pattern):
    text = pattern * (60_000 // len(pattern))
    began = time.perf_counter()
    sentences(text)
    readable(text)
    assert time.perf_counter() - began < 5


def test_spans_never_overlap_whatever_the_text():
    dice = random.Random(2)
    parts = [
        "Word",
        " ",
        "\n",
        "\n\n",
        "- ",
        "1. ",
        "# ",
        ". ",
        "? ",
        ":",
        "| ",
        "|-|",
        "```",
        "**",
        "e.g.",
        "é",
        "---",
        "> ",
    ]
    for _ in range(500):
        text = "".join(dice.choices(parts, k=40))
        ends = [0, *(place for span in sentences(text) for place in span)]
        assert ends == sorted(ends)
        assert all(text[start:end].strip() for start, end in sentences(text))

"""Which sentences answer, judged with vectors that are all alike, so that only the texts decide."""

import msgspec
import numpy as np

from pipeline.candidates import candidates
from pipeline.fakes import passage
from pipeline.questions import parts
from pipeline.selection import choose
from pipeline.text import sentences


def source(n, title, text, *, heading="", position=0):
    fields = {"title": title, "heading": heading, "position": position, "document_id": title}
    return msgspec.structs.replace(passage(n, text), **fields)


def found_in(*passages):
    return candidates(passages, [sentences(p.text) for p in passages])


def answer(question, *passages):
    """Return the texts chosen for each part of the question."""
    found = found_in(*passages)
    alike = np.ones((len(found), 1), np.float32)
    chosen = choose(parts(question), np.array([0.6], np.float32), found, alike, passages)
    return [[sentence.text for sentence in part] for part in chosen]


MANGE = "Mange is an illness of the skin. Mites cause the itch of mange. Mange is treated with a wash of lime."


class TestOpening:
    def test_what_something_is_comes_first_when_that_is_asked(self):
        text = "Dogs with mange scratch day and night. Mange is feared everywhere. Mange is an illness of the skin."
        assert answer("What is mange?", source(1, "Mange", text))[0][0] == "Mange is an illness of the skin."

    def test_a_definition_that_nobody_asked_for_is_not_given(self):
        (chosen,) = answer("How is mange treated?", source(1, "Mange", MANGE))
        assert chosen == ["Mange is treated with a wash of lime."]

    def test_the_best_sentence_goes_first_even_from_a_later_passage(self):
        early = source(1, "Mange", "Keepers of dogs have feared mange since old times.")
        late = source(2, "Mange", "The signs of mange are bald spots and an itch.", position=1)
        assert answer("What are the signs of mange?", early, late)[0][0].startswith("The signs of mange are")

    def test_an_unspecific_sentence_does_not_open_an_answer(self):
        text = "There are several ways to prevent mange. To prevent mange, wash the bedding each week."
        assert answer("How can I prevent mange?", source(1, "Mange", text))[0][0].startswith("To prevent mange")

    def test_a_sentence_that_goes_on_from_others_does_not_open_an_answer(self):
        text = "Foxes sleep. Other treatments of mange are baths of salt. First treatments of mange are baths of lime."
        assert answer("How is mange treated?", source(1, "Mange", text))[0][0].startswith("First")

    def test_advice_to_ask_somebody_does_not_open_an_answer(self):
        text = "Ask your vet for the treatment of mange by lime. Wash the dog in the treatment of mange by lime."
        assert answer("How is mange treated?", source(1, "Mange", text))[0][0].startswith("Wash the dog")

    def test_the_sentence_below_the_very_question_goes_first(self):
        text = "Cats get mange in tales. Can Cats Get Mange? Only three kinds of mites live on them."
        (chosen,) = answer("Can cats get mange?", source(1, "Mange", text))
        assert chosen[0] == "Only three kinds of mites live on them."

    def test_a_heading_that_ran_into_the_text_is_not_shown(self):
        text = "Common Treatments The usual treatment of mange is a wash of lime."
        assert answer("How is mange treated?", source(1, "Mange", text)) == [
            ["The usual treatment of mange is a wash of lime."]
        ]


class TestWholeness:
    def test_a_sentence_that_points_back_brings_the_one_it_points_at(self):
        text = "A wash of lime is old. It is the usual treatment of mange. Foxes sleep by day."
        (chosen,) = answer("How is mange treated?", source(1, "Mange", text))
        assert chosen == ["A wash of lime is old.", "It is the usual treatment of mange."]

    def test_an_introduction_stays_with_items_that_are_sentences(self):
        items = "\n".join(
            f"- {place} of the skin that grow. They are seen first on the ears, and then on the belly and the legs, "
            "where the hair is thin and the sun reaches."
            for place in ("Bald spots", "Red patches")
        )
        (chosen,) = answer(
            "What are the signs of mange?", source(1, "Mange", f"The key signs of mange are:\n\n{items}")
        )
        assert chosen[0] == "The key signs of mange are: Bald spots of the skin that grow."

    def test_an_introduction_without_its_list_is_not_quoted_when_there_is_better(self):
        text = "Some dogs need treatment for mange, by means such as\n\nLime is the best treatment of mange."
        (chosen,) = answer("How is mange treated?", source(1, "Mange", text))
        assert chosen[0] == "Lime is the best treatment of mange."


class TestParts:
    def test_each_part_of_a_question_gets_its_answer_in_order(self):
        text = "Mange is treated with a wash of lime. Foxes sleep by day. Mange is an illness of the skin."
        first, second = answer("What is mange and how is it treated?", source(1, "Mange", text))
        assert first[0] == "Mange is an illness of the skin."
        assert second == ["Mange is treated with a wash of lime."]

    def test_what_answers_both_parts_is_said_once(self):
        text = "Mange is an illness of the skin caused by mites."
        assert answer("What is mange and what causes it?", source(1, "Mange", text)) == [[text]]


class TestFit:
    def test_sentences_below_a_heading_of_the_kind_asked_for_are_preferred(self):
        care = source(1, "Mange", "Lime helps a dog with mange.", heading="Treatment")
        past = source(2, "Mange", "Monks wrote on dogs with mange, and on how dear was any cure.", heading="History")
        assert answer("What are the cures for mange?", past, care)[0][0] == "Lime helps a dog with mange."

    def test_a_heading_for_whom_the_question_is_about_is_preferred(self):
        adults = source(1, "Lime", "Side effects of lime are an itch and a cough.", heading="Common side effects")
        young = source(2, "Lime", "In puppies, lime burns the paws.", heading="In puppies")
        (chosen,) = answer("What are the side effects of lime in puppies?", adults, young)
        assert "In puppies, lime burns the paws." in chosen

    def test_of_two_headings_of_the_kind_asked_for_the_one_with_more_of_the_question_is_preferred(self):
        common = source(1, "Lime", "Lime brings an itch and a cough.", heading="Common side effects")
        serious = source(2, "Lime", "Lime burns the eyes and the paws.", heading="Serious side effects")
        (chosen,) = answer("What are the serious side effects of lime?", common, serious)
        assert chosen[0] == "Lime burns the eyes and the paws."

    def test_a_document_about_something_else_does_not_answer(self):
        other = source(1, "Ringworm", "The usual treatment is a wash of lime and sulphur for weeks.")
        own = source(2, "Mange", "The treatment is a wash of lime.")
        assert answer("How is mange treated?", other, own) == [["The treatment is a wash of lime."]]

    def test_research_is_told_only_to_those_who_ask_for_it(self):
        text = "Scientists call lime a treatment of mange. Keepers call lime a treatment of mange."
        assert answer("How is mange treated?", source(1, "Mange", text))[0][0].startswith("Keepers")
        asked = answer("What research is there on mange?", source(1, "Mange", text))
        assert asked[0][0].startswith("Scientists")

    def test_who_should_is_not_answered_by_who_should_not(self):
        text = "Puppies should not get the mange vaccine. Old dogs should get the mange vaccine."
        assert answer("Who should get the mange vaccine?", source(1, "Mange", text))[0][0].startswith("Old dogs")

    def test_how_many_is_answered_by_a_number(self):
        text = "People with dogs know mange well. Mange affects 1 in 400 dogs of any breed."
        assert answer("How many dogs are affected by mange?", source(1, "Mange", text))[0][0].startswith(
            "Mange affects 1"
        )

    def test_sentences_that_differ_in_their_numbers_are_not_repetitions(self):
        text = "With type 1 mange the mites live on the skin. With type 2 mange the mites live in the skin."
        (chosen,) = answer("What is the difference between type 1 and type 2 mange?", source(1, "Mange", text))
        assert len(chosen) == 2

    def test_what_a_longer_sentence_says_is_not_said_again(self):
        text = "Mange, or the itch of dogs, is an illness of the skin. Mange is an illness of the skin."
        assert len(answer("What is mange?", source(1, "Mange", text))[0]) == 1

    def test_a_heading_with_the_words_of_the_question_leads_to_what_stands_below_it(self):
        about = source(1, "Lime", "Lime is a mineral that many plants like.", heading="Uses")
        near = source(2, "Lime", "Acids and salts change lime at once.", heading="Reactions")
        assert answer("Which plants like lime, and what reactions does it have?", about, near)[1] == [
            "Acids and salts change lime at once."
        ]

    def test_an_answer_ends_where_nothing_adds_to_it(self):
        more = " ".join(f"Foxes of the {name} sleep by day." for name in ("north", "south", "east", "west", "hills"))
        (chosen,) = answer("What causes mange?", source(1, "Mange", f"Mange is caused by mites. {more}"))
        assert chosen == ["Mange is caused by mites."]

    def test_an_answer_has_a_bounded_number_of_sentences(self):
        text = " ".join(f"Wash {n} with {word} treats mange." for n, word in enumerate("abcdefghijklmnop"))
        (chosen,) = answer("How is mange treated?", source(1, "Mange", text))
        assert len(chosen) == 6


def test_references_to_other_places_of_the_document_are_not_shown():
    (sentence,) = found_in(
        source(1, "Mange", "Wash the dog with lime [see Section 5.1] and let it dry (see Figure 2).")
    )
    assert sentence.text == "Wash the dog with lime and let it dry."


def test_candidates_name_the_heading_or_question_above_them():
    text = "Mites are small. What Helps? Lime helps dogs.\n\n## Outlook\n\nMost dogs get well soon."
    found = found_in(source(1, "Mange", text, heading="Causes"))
    assert [(s.above, s.opens) for s in found] == [("Causes", True), ("What Helps?", True), ("Outlook", True)]


def test_in_the_middle_of_a_section_no_sentence_is_taken_for_its_first():
    first = source(1, "Mange", "Mites are small.", heading="Causes")
    later = source(2, "Mange", "Mites are pale.", heading="Causes", position=1)
    assert [s.opens for s in found_in(first, later)] == [True, False]

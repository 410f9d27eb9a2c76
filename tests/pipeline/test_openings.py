import pytest

from pipeline import openings


@pytest.mark.parametrize(
    "sentence",
    [
        "It spreads by touch.",
        "They moult in June.",
        "This condition heals by itself.",
        "However, geese bite.",
        "In such cases a vet is needed.",
        "For example, geese bite.",
        "Cold water has a similar effect on geese.",
    ],
)
def test_what_points_at_the_sentence_before_is_found(sentence):
    assert openings.needs_antecedent(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Geese moult in June.",
        "It is estimated that one goose in ten is white.",
        "It's important to feed geese.",
        "Those who keep geese rise early.",
        "Both geese and ducks swim.",
        "Italy has many geese.",
        "Cold water has the same effect as ice.",
    ],
)
def test_what_stands_alone_is_left_alone(sentence):
    assert not openings.needs_antecedent(sentence)


@pytest.mark.parametrize(
    "sentence", ["Other signs are a dull coat.", "Additional signs are fleas.", "Geese may also bite."]
)
def test_what_goes_on_from_something_does_not_open_an_answer(sentence):
    assert openings.goes_on(sentence)
    assert not openings.goes_on("The signs are a dull coat.")


@pytest.mark.parametrize(
    "sentence",
    [
        "This leaflet is for keepers of geese.",
        "(See more about geese in the chapter on ducks.)",
        "Ask your vet before you feed a goose.",
        "Details are at https://example.org/geese today.",
    ],
)
def test_a_sentence_about_its_document_or_that_sends_one_away_is_empty(sentence):
    assert openings.is_empty(sentence)
    assert not openings.is_empty("Geese see well in the dark.")


def test_a_promise_is_unspecific_unless_it_is_kept():
    assert openings.is_unspecific("There are several ways to keep geese.")
    assert not openings.is_unspecific("There are several ways to keep geese: in a shed; on a pond.")


@pytest.mark.parametrize(
    "sentence", ["A sick goose may need care, such as", "The signs are:", "lame pain. dull coats are seen."]
)
def test_a_sentence_without_the_list_that_it_introduces_is_broken(sentence):
    assert openings.is_broken(sentence)
    assert not openings.is_broken("A sick goose may need care, such as rest.")


def test_a_heading_that_ran_into_its_sentence_is_told_from_names():
    assert openings.run_in_heading("Common Causes The first cause is cold.") == "Common Causes "
    assert openings.run_in_heading("Summary : Geese are birds.") == "Summary : "
    assert openings.run_in_heading("Vitamin A is found in liver.") == ""
    assert openings.run_in_heading("The Thames flows through London.") == ""

import pytest

from pipeline.questions import MAX_PARTS, kinds_of, parts, stems


def kinds(question):
    return [[kind.name for kind in part.kinds] for part in parts(question)]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What are the symptoms of distemper?", "symptom"),
        ("What causes distemper?", "cause"),
        ("Why do geese migrate?", "reason"),
        ("How is distemper treated?", "treatment"),
        ("How can I prevent distemper?", "prevention"),
        ("Who is at risk for distemper?", "risk"),
        ("Is a white coat inherited?", "inheritance"),
        ("How is distemper diagnosed?", "test"),
        ("What is the outlook for an old dog?", "outlook"),
        ("What happens if a wound is not treated?", "consequence"),
        ("How many people keep geese?", "frequency"),
        ("At what age do geese breed?", "time"),
        ("What is a halter used for?", "use"),
    ],
)
def test_the_kind_of_a_question_is_known_by_its_words(question, kind):
    assert kinds(question) == [[kind]]


def test_a_question_with_two_clauses_has_two_parts():
    assert kinds("What causes mange and how is it treated?") == [["cause"], ["treatment"]]


def test_two_kinds_in_one_clause_are_two_parts():
    assert kinds("What are the causes and symptoms of mange?") == [["cause"], ["symptom"]]


def test_a_part_that_points_at_the_subject_has_its_words():
    first, second = parts("What is mange, and how is it treated?")
    assert first.subject == second.subject == stems("mange")
    assert first.defines
    assert not second.defines


@pytest.mark.parametrize("question", ["What is mange used for?", "How does mange feel?", "How can dogs avoid mange?"])
def test_words_between_those_that_tell_the_kind_belong_to_the_subject(question):
    (part,) = parts(question)
    assert part.kinds
    assert stems("mange") <= part.subject


def test_a_name_with_and_in_it_is_not_cut():
    assert len(parts("What is foot and mouth disease?")) == 1


def test_only_a_question_after_the_thing_itself_asks_for_a_definition():
    assert [part.defines for part in parts("What is mange? What is the outlook for mange?")] == [True, False]


def test_an_endless_question_has_few_parts():
    assert len(parts("what is mange and " * 300)) == MAX_PARTS
    assert len(parts(" " * 5000 + "what is" + " " * 5000 + "mange?")) == 1


def test_plurals_and_tenses_have_one_stem():
    assert stems("colds treated") == stems("cold treatment")


def test_headings_are_of_kinds_too():
    assert [kind.name for kind in kinds_of("Common treatments")] == ["treatment"]
    assert kinds_of("Geese") == ()

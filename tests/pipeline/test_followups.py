"""Which questions lean on the conversation, and what rules alone make of them."""

import time

import pytest

from pipeline.followups import MAX_CHARS, Topic, follow, leans, named, subject

LEANING = """
And in children?
What about children?
how about in pregnancy
And metformin?
But is it safe?
Is it addictive?
What are its side effects?
Do they go away?
How common are these?
Is that dangerous?
What does that mean?
Why?
Why not?
How long?
How often?
How common?
Then what?
In children?
In older people with kidney disease?
For how long?
With alcohol?
side effects
Dosage?
Any serious side effects?
What are the side effects?
What are the serious side effects?
What is the dose in children?
Are there any interactions?
Are there interactions with alcohol?
Is it safe to drink alcohol?
Can I drink alcohol while taking it?
What happens if I stop it suddenly?
Can I drive if it makes me sleepy?
Thanks, is it safe?
Tell me more.
Is the same true for lithium?
What if I miss a dose?
And is weight gain common?
What side effects and risks does it have?
Can I have it and drive?
Which symptoms?
And how does it compare with olanzapine?
It's safe in pregnancy?
Is the latter better?
Anything else?
"""

STANDING = """
What are the side effects of aripiprazole?
What is metformin?
What is metformin and how does it work?
What are the side effects of lithium, and how long do they last?
How does metformin work?
Is lithium safe?
What causes akathisia?
And what are the side effects of lithium?
What is the capital of Australia?
What is the first treatment for insomnia?
Why should children with flu not take aspirin?
Is it safe to take ibuprofen with lithium?
Is it true that lithium can damage the kidneys?
Why do people need albuterol when they exercise?
Are there interactions between lithium and ibuprofen?
Are there medicines for insomnia?
In children, is aripiprazole safe?
Who discovered lithium?
Define akathisia
Tell me about lithium
aripiprazole side effects
What drugs are known that cause tremor?
Which papers on IT systems are in the collection?
aripiprazole 3f2a9c
llm:slow
aripiprazole llm:citations
阿立哌唑有什么副作用？
Was sind die Nebenwirkungen von Aripiprazol?
Thank you!
ok
"""


def lines(table):
    return table.strip().splitlines()


@pytest.mark.parametrize("question", lines(LEANING))
def test_a_question_that_leaves_out_what_it_is_about_leans(question):
    assert leans(question)


@pytest.mark.parametrize("question", lines(STANDING))
def test_a_question_that_names_what_it_is_about_stands_by_itself(question):
    assert not leans(question)


def test_a_long_text_brings_along_what_it_is_about():
    assert leans("Is it safe " + "x" * 200)
    assert not leans("Is it safe " + "x" * MAX_CHARS)


@pytest.mark.parametrize("piece", ["and ", "is it ", ", ", "in ", "that ", "is it a to ", "\n"])
def test_no_question_takes_long_to_judge(piece):
    question = (piece * MAX_CHARS)[:MAX_CHARS]
    begun = time.process_time()
    leans(question)
    follow(Topic(question), question, "")
    assert time.process_time() - begun < 1


APART = Topic("What are the side effects of aripiprazole?", "aripiprazole")


@pytest.mark.parametrize(
    ("question", "name", "query"),
    [
        ("And in children?", "", "What are the side effects of aripiprazole in children?"),
        ("With alcohol", "", "What are the side effects of aripiprazole with alcohol"),
        ("And weight gain?", "", "What are the side effects of aripiprazole? And weight gain?"),
        ("Do they go away?", "", "What are the side effects of aripiprazole? Do they go away?"),
        ("What about metformin?", "metformin", "What are the side effects of metformin?"),
        ("And for metformin?", "metformin", "What are the side effects of metformin?"),
        ("Is the same true for metformin?", "metformin", "What are the side effects of metformin?"),
        ("Is it addictive?", "", "Is aripiprazole addictive?"),
        ("And its uses?", "", "aripiprazole's uses?"),
        ("It's safe in pregnancy?", "", "aripiprazole is safe in pregnancy?"),
        ("Does it interact with lithium?", "lithium", "Does aripiprazole interact with lithium?"),
        (
            "Are there interactions with lithium?",
            "lithium",
            "What are the side effects of aripiprazole? Are there interactions with lithium?",
        ),
        ("And how does metformin work?", "metformin", "how does metformin work?"),
    ],
)
def test_a_follow_up_is_given_what_it_leaves_out(question, name, query):
    assert follow(APART, question, name)[0] == query


def test_an_adjunct_takes_the_place_of_one_of_the_same_kind():
    topic = Topic("How is depression treated in adults?", "depression")
    assert follow(topic, "And in older people?", "")[0] == "How is depression treated in older people?"
    topic = Topic("What happens in schizophrenia?", "schizophrenia")
    assert follow(topic, "And in children?", "")[0] == "What happens in schizophrenia in children?"
    topic = Topic("Does warfarin interact with ibuprofen?", "warfarin")
    assert follow(topic, "And with aspirin?", "aspirin")[0] == "Does warfarin interact with aspirin?"


def test_a_change_of_subject_and_a_whole_question_are_carried_on_and_adjuncts_are_not():
    _, topic = follow(APART, "In children?", "")
    assert topic == APART
    _, topic = follow(APART, "And metformin?", "metformin")
    assert follow(topic, "In children?", "")[0] == "What are the side effects of metformin in children?"
    _, topic = follow(topic, "Is it addictive?", "")
    assert follow(topic, "In children?", "")[0] == "Is metformin addictive in children?"


@pytest.mark.parametrize(
    ("question", "name", "found"),
    [
        ("What are the symptoms of lithium toxicity?", "lithium", "lithium toxicity"),
        ("Is ibuprofen safe for people with asthma?", "ibuprofen", "ibuprofen"),
        ("What is lithium used for?", "lithium", "lithium"),
        ("Tell me about trouble sleeping", "", "trouble sleeping"),
        ("How are ulcers treated?", "", "ulcer treated"),
        ("Why?", "", "Why"),
        ("x " * 500, "", "x " * 500),
    ],
)
def test_the_subject_of_a_question(question, name, found):
    assert found.startswith(subject(Topic(question, name)))
    assert 0 < len(subject(Topic(question, name))) <= 100


@pytest.mark.parametrize(
    ("text", "titles", "found"),
    [
        ("How is High blood pressure treated?", ["High blood pressure"], "High blood pressure"),
        ("And depression?", ["Sertraline", "Major depression"], "depression"),
        ("What about blood tests?", ["High blood pressure"], ""),
        ("migraines", ["Migraine"], "migraines"),
        ("Aripiprazole's uses", ["Aripiprazole"], "Aripiprazole"),
        ("And in children?", ["What is it?", ""], ""),
    ],
)
def test_what_a_question_names_is_found_by_the_documents_titles(text, titles, found):
    assert named(text, titles) == found

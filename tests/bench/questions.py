"""Asks a running server a file of questions and counts right sources, facts and refusals.

    just bench questions [QUESTIONS.jsonl] [--url http://localhost:8000]

Each line has ``question``, ``relevant`` (ids of documents that answer it), ``facts_any`` (groups of strings, of each of
which one must stand in the answer) and ``answerable``.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import httpx

REFUSED = "no_sources"


def judge(url, wanted):
    """Ask one question and return what was right about the answer."""
    with httpx.stream("POST", f"{url}/chat", json={"message": wanted["question"]}, timeout=120) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines]
    answer = "".join(event["content"] for event in events if event["type"] == "token")
    found = {event["type"]: event["content"] for event in events}
    cited = {s["document_id"] for s in found["sources"]["sources"] if f"[{s['n']}]" in answer}
    return {
        "question": wanted["question"],
        "answer": answer,
        "source": bool(cited & set(wanted["relevant"])),
        "facts": all(any(fact in answer for fact in group) for group in wanted["facts_any"]),
        "refused": found["generation_complete"]["finish_reason"] == REFUSED,
        "elapsed_ms": found["done"]["elapsed_ms"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path, nargs="?", default=Path(__file__).with_name("sample_questions.jsonl"))
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    questions = [json.loads(line) for line in arguments.questions.read_text().splitlines()]
    results = [(wanted, judge(arguments.url, wanted)) for wanted in questions]
    answerable = [result for wanted, result in results if wanted["answerable"]]
    others = [result for wanted, result in results if not wanted["answerable"]]
    for result in answerable:
        if arguments.verbose or not (result["source"] and result["facts"]):
            print(f"source {result['source']}, facts {result['facts']}: {result['question']}\n    {result['answer']}\n")
    print(f"right source cited: {sum(r['source'] for r in answerable)} of {len(answerable)}")
    print(f"facts in the answer: {sum(r['facts'] for r in answerable)} of {len(answerable)}")
    print(f"refused: {sum(r['refused'] for r in others)} of {len(others)} without an answer")
    print(f"refused wrongly: {sum(r['refused'] for r in answerable)}")
    print(f"elapsed_ms median: {statistics.median(result['elapsed_ms'] for _, result in results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

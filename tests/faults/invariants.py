"""What must hold after every fault, whatever it was."""

import json
import time
import zlib

import asyncpg
import httpx

from tests.faults.postgres import fetch

TERMINAL = {"done", "error", "cancelled"}
SOON_S = 10


def events_of(raw):
    """Return the events of a stream's text as (id, type, content); comments are passed over."""
    found = []
    for block in raw.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            found.append((int(fields["id"]), event["type"], event["content"]))
    return found


def check_whole(events):
    """One terminal event, the last; ids 1, 2, 3, ...; return it as (type, content)."""
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert [kind for _, kind, _ in events if kind in TERMINAL] == [events[-1][1]]
    return events[-1][1:]


def text_of(events):
    return "".join(content for _, kind, content in events if kind == "token")


async def check_stored(url, events):
    """What is stored of a run is what its reader was told: status, and the text when it was called done."""
    run_id = events[0][2]["run_id"]
    query = "select r.status, m.content from run r left join message m on m.id = r.message_id where r.id = $1"
    [stored] = await fetch(url, query, run_id)
    check_told(stored, events)


def check_told(stored, events):
    told = {"done": "completed"}.get(events[-1][1], events[-1][1])
    assert (stored["status"], stored["content"]) == (told, text_of(events))


async def check_every_run(url):
    """Of every run that is stored with its events: they end as it did, and an answer that is whole is their tokens."""
    query = """select r.id, r.status, r.events, m.content from run r join message m on m.id = r.message_id
                where r.events is not null"""
    for run in await fetch(url, query):
        events = events_of(zlib.decompress(run["events"]).decode())
        check_whole(events)
        check_told(run, events)


async def check_nothing_left(url, *, within_s=SOON_S):
    """No run is left running, and no backend of ours is at work."""
    left = """select (select count(*) from run where status = 'running') as runs,
                     (select count(*) from pg_stat_activity where datname = current_database()
                         and application_name = 'stagecast' and state <> 'idle') as backends"""
    deadline = time.monotonic() + within_s
    while True:
        try:
            [row] = await fetch(url, left)
        except (OSError, asyncpg.PostgresError):
            row = None
        if row and tuple(row) == (0, 0):
            return
        assert time.monotonic() < deadline, f"left running: {row}"


def check_refused_politely(response):
    """503 as a problem, with a time to come back."""
    assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) >= 1

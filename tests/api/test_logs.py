"""Log lines: one JSON object each, and never the text of an exception."""

import io
import json
import logging

import pytest
import structlog

from api import logs


@pytest.fixture
def lines():
    root = logging.getLogger()
    before = root.handlers, root.level
    out = io.StringIO()
    logs.configure("INFO", out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_an_exception_is_told_by_kind_and_place_and_not_by_its_message(lines):
    try:
        try:
            raise ValueError("canary question")
        except ValueError as cause:
            raise RuntimeError("canary answer") from cause
    except RuntimeError as problem:
        structlog.get_logger().error("run.failed", exc_info=problem)
        logging.getLogger("library").exception("it failed")
    ours, theirs = lines()
    for line in (ours, theirs):
        assert [link["kind"] for link in line["exception"]] == ["RuntimeError", "ValueError"]
        assert "test_logs.py" in line["exception"][0]["at"][-1]
        assert "canary" not in json.dumps(line)


def test_a_line_names_the_module_that_it_comes_from(lines):
    structlog.get_logger().info("ours")
    logging.getLogger("library").warning("theirs")
    assert [line["logger"] for line in lines()] == [__name__, "library"]


def test_a_broken_stream_disturbs_nobody(lines):
    out = io.StringIO()
    logs.configure("INFO", out)
    out.close()
    structlog.get_logger().info("nobody reads this")


class Unshown:
    def __repr__(self):
        raise ValueError("canary")


@pytest.mark.parametrize("value", [10**5000, Unshown(), {(1, 2): 3}], ids=["number", "repr", "keys"])
def test_what_cannot_be_rendered_is_told_without_it(lines, value):
    structlog.get_logger().info("run.complete", run_id="r", count=value)
    logging.getLogger("library").warning("theirs %s", "fine", extra={"value": value})
    ours, theirs = lines()
    assert (ours["event"], ours["run_id"]) == ("run.complete", "r")
    assert ours["unrenderable"] in {"ValueError", "TypeError"}
    assert theirs["event"] == "theirs fine"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("place", ["event", "value", "foreign"])
def test_on_a_terminal_too_control_characters_cannot_forge_a_line(lines, place):
    out = Terminal()
    logs.configure("INFO", out)
    hostile = "a\n2026-01-01 [info] forged\r\x1b[2K\x9b1A\u202e\u2028\ud800"
    if place == "foreign":
        logging.getLogger("library").warning(hostile)
    else:
        structlog.get_logger().info(*([hostile] if place == "event" else ["request"]), path=hostile, n=1)
    text = out.getvalue()
    assert len(text.splitlines()) == 1
    assert "\\u000a2026-01-01" in text
    assert not any(character in text for character in "\r\x9b\u202e\u2028\ud800")
    assert "\x1b[2K" not in text


def test_an_endless_value_is_cut(lines):
    structlog.get_logger().info("request", agent="x" * 1_000_000)
    [line] = lines()
    assert len(line["agent"]) < 2_100


def test_control_characters_cannot_forge_a_line(lines):
    structlog.get_logger().info("request", path='/a\n{"event":"forged"}\x1b[31m\u2028')
    assert [line["event"] for line in lines()] == ["request"]

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


def test_control_characters_cannot_forge_a_line(lines):
    structlog.get_logger().info("request", path='/a\n{"event":"forged"}\x1b[31m\u2028')
    assert [line["event"] for line in lines()] == ["request"]

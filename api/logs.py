"""Logging: one JSON object a line, or coloured columns on a terminal; never the text of questions or documents."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

import structlog

MAX_CAUSES = 5
MAX_CHARS = 2_000
"""Of one value in a line."""
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control, line-breaking, direction and zero-width characters: with them a client could forge lines on a terminal."""


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records of ``level`` and above to ``stream`` (standard error)."""
    out = stream or sys.stderr
    first: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = structlog.dev.ConsoleRenderer() if out.isatty() else structlog.processors.JSONRenderer()
    last: list[structlog.typing.Processor] = [_Rendered([_without_messages, _printable, render])]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=partial(_Lines, out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=[without_meta, *last]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "asyncio", "LiteLLM", "openai", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


class _Rendered:
    """The last processors in one; what cannot be rendered is told by its event, and is nobody's failure."""

    def __init__(self, steps: list[structlog.typing.Processor]) -> None:
        self._steps = steps

    def __call__(self, logger: object, name: str, event: structlog.typing.EventDict) -> str:
        """Return the line."""
        try:
            return self._through(logger, name, dict(event))
        except Exception as problem:  # noqa: BLE001  # values are anybody's, and so is what their repr raises
            known = ("event", "logger", "level", "timestamp", "run_id")
            told = {key: event[key] for key in known if isinstance(event.get(key), str)}
            return self._through(logger, name, told | {"unrenderable": type(problem).__name__})

    def _through(self, logger: object, name: str, event: Any) -> str:
        for step in self._steps:
            event = step(logger, name, event)
        return str(event)


class _Lines:
    """Writes the lines of the module that made it; the standard library's way there takes three times as long."""

    def __init__(self, out: TextIO, *name: str) -> None:
        self.name = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])(*name).name
        self._out = out

    def msg(self, line: str) -> None:
        """Write one line; a stream that is broken or closed is nobody's failure who has something to tell."""
        with suppress(OSError, ValueError):
            self._out.write(f"{line}\n")
            self._out.flush()

    debug = info = warning = error = critical = exception = msg


def _without_messages(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put the classes and places of an exception and its causes in its stead: messages may quote a question."""
    given = event.pop("exc_info", None)
    problem = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    chain: list[dict[str, object]] = []
    while given and problem is not None and len(chain) < MAX_CAUSES:
        frames = traceback.extract_tb(problem.__traceback__)
        chain.append({"kind": type(problem).__name__, "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames]})
        problem = problem.__cause__ or problem.__context__
    if chain:
        event["exception"] = chain
    return event


def _printable(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what is no plain text and cut what is too long."""
    return {key: _plain(value) if isinstance(value, str) else value for key, value in event.items()}


def _plain(value: str) -> str:
    shown = value if len(value) <= MAX_CHARS else f"{value[:MAX_CHARS]}... ({len(value):,} characters)"
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)

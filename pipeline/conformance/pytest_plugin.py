"""The option ``--plugin``, which pytest must know before it has found the tests that take it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the plugins' names."""
    what = "check this installed plugin of Stagecast, with --pyargs pipeline.conformance"
    parser.addoption("--plugin", action="append", default=[], metavar="KIND:NAME", help=what)

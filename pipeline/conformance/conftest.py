"""``pytest --pyargs pipeline.conformance --plugin KIND:NAME``: the checks of a port as tests."""

from __future__ import annotations

import pytest

from pipeline.conformance.checks import CHECKS, name_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check of each plugin that is named."""
    cases = []
    for plugin in metafunc.config.getoption("--plugin"):
        kind, _, name = plugin.partition(":")
        if kind not in CHECKS or not name:
            raise pytest.UsageError(f"--plugin {plugin}: a kind and a name, as in retriever:hybrid")
        cases += [pytest.param(kind, name, check, id=f"{plugin}-{name_of(check)}") for check in CHECKS[kind]]
    if not cases:
        raise pytest.UsageError("say which plugin: --plugin retriever:NAME")
    metafunc.parametrize(("kind", "name", "check"), cases)

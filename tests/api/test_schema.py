"""Requests made up from the OpenAPI schema, good and bad ones: none of them is a fault of the server."""

import contextlib

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

KEY = {"Authorization": "Bearer a-key-for-made-up-requests"}


@pytest.fixture(scope="module")
def fuzzed(start_server, sample_database, server):
    return start_server(
        database_url=sample_database, api_keys="fuzz:a-key-for-made-up-requests", total_timeout_s=10, resume_grace_s=0.1
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_that_can_be_made_up_is_a_fault_of_the_server(fuzzed, mode, times):
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/schema/openapi.json", headers=KEY)
    seen: dict[int, int] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=times(25, 500), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def ask(case):
            response = case.call(headers=KEY, timeout=30)
            status = response.status_code
            seen[status] = seen.get(status, 0) + 1
            assert status < 500 or too_many_uploads(case, response), f"{case.method} {case.formatted_path}: {status}"

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong where there are no parameters
            ask()
    print(f"{mode.value}: answers by status {dict(sorted(seen.items()))}")
    assert sum(seen.values()) > 100


def too_many_uploads(case, response):
    """Say whether uploads were made up faster than they are worked off."""
    asked = (case.method, case.formatted_path)
    return asked == ("POST", "/documents") and response.status_code == 503 and "uploads" in response.json()["detail"]


def test_the_schema_describes_every_event_and_the_refusals(fuzzed):
    schema = httpx.get(f"{fuzzed.url}/schema", headers=KEY)
    assert schema.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    described = schema.json()
    assert {"Event", "Token", "Done", "Error", "Cancelled"} <= set(described["components"]["schemas"])
    assert "text/event-stream" in described["paths"]["/chat"]["post"]["responses"]["200"]["content"]

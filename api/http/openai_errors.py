"""Refusals in the form that clients of OpenAI's API know: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from litestar import Response

from api.http.problems import HANDLERS, AnyRequest, Problem
from pipeline.events import Failure

CODES = {HTTPStatus.UNAUTHORIZED: "invalid_api_key", HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_exceeded"}
"""Where the problem has none of its own."""
TYPES = {HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error"}


def error(message: str, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return what is said in OpenAI's form of a request that was refused with this status, or of a run that failed."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    told = {
        "message": message,
        "type": TYPES.get(HTTPStatus(status), kind),
        "param": param,
        "code": code or CODES.get(HTTPStatus(status)),
    }
    return {"error": told}


def failure(failed: Failure) -> dict[str, Any]:
    """Return what is said of a run that failed while its answer was streamed."""
    return error(failed.message, HTTPStatus.SERVICE_UNAVAILABLE, failed.code)


def _translated(handler: Callable[[AnyRequest, Any], Problem]) -> Callable[[AnyRequest, Any], Problem]:
    def answer(request: AnyRequest, problem: Exception) -> Problem:
        refused = handler(request, problem)
        return in_openai_form(refused)

    return answer


def in_openai_form(refused: Problem) -> Problem:
    """Return the same refusal, its status and headers as they are."""
    said, status = refused.content, refused.status_code or HTTPStatus.INTERNAL_SERVER_ERROR
    param = next((found["field"] for found in said.get("errors", ())), None)
    told = error(str(said.get("detail", "")), status, said.get("code"), param)
    return Response(told, status_code=status, headers=refused.headers, media_type="application/json")


OPENAI_HANDLERS: dict[int | type[Exception], Callable[[AnyRequest, Any], Problem]] = {
    kind: _translated(handler) for kind, handler in HANDLERS.items()
}

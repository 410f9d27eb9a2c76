"""Every refused request is answered as ``application/problem+json`` (RFC 9457) that names the culprit."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import asyncpg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.plugins.problem_details import ProblemDetailsException
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.replay import Elsewhere
from api.storage.patience import is_passing
from pipeline.errors import Code, RunError
from pipeline.events import Failure

log = structlog.get_logger()

AnyRequest = Request[Any, Any, Any]
Problem = Response[dict[str, Any]]

LEFT_EARLY = "client disconnected prematurely"
"""Litestar's words for a client that left while its body was read; nobody is there to read the answer."""
UPSTREAM_CODES = {Code.GENERATION_ERROR, Code.UPSTREAM_TRUNCATED}
_FIELD = re.compile(r"(?:field `(?P<named>[^`]+)`)|(?:`\$\.(?P<path>[^`]+)`)")


def refuse(
    status: int,
    detail: str,
    *,
    retry_after_s: int | None = None,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> ProblemDetailsException:
    """Return the exception that answers a request with this status; ``extra`` are further members of the problem."""
    retry = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    return ProblemDetailsException(
        status_code=status,
        title=HTTPStatus(status).phrase,
        detail=detail,
        type_="about:blank",
        headers=(headers or {}) | retry or None,
        extra=extra,
    )


def bad_field(field: str, message: str) -> ProblemDetailsException:
    """Refuse a request for one of its fields."""
    return refuse(400, f"{field}: {message}", errors=[{"field": field, "message": message}])


def not_ready(reason: str) -> ProblemDetailsException:
    """Refuse a request that comes too early."""
    return refuse(503, f"The server is not ready: {reason}.", retry_after_s=1)


def failed(failure: Failure, run_id: str) -> ProblemDetailsException:
    """Return the answer to a request whose run failed."""
    status = 502 if failure.code in UPSTREAM_CODES else 503
    return refuse(
        status, failure.message, code=failure.code, stage=failure.stage, retryable=failure.retryable, run_id=run_id
    )


def _http(request: AnyRequest, problem: HTTPException) -> Problem:
    if isinstance(problem, ValidationException):
        return _invalid(problem).to_response(request)
    if problem.detail == LEFT_EARLY:
        return refuse(400, "The body broke off.").to_response(request)
    if problem.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unexpected(request, problem)
    if problem.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return _too_often(problem).to_response(request)
    return refuse(problem.status_code, problem.detail, headers=problem.headers).to_response(request)


def _too_often(problem: HTTPException) -> ProblemDetailsException:
    headers = problem.headers or {}
    limit, wait_s = headers.get("RateLimit-Limit", "?"), int(headers.get("RateLimit-Reset", 1))
    return refuse(429, f"You have asked {limit} times within a minute.", retry_after_s=max(wait_s, 1), headers=headers)


def _invalid(problem: ValidationException) -> ProblemDetailsException:
    """Name the field; it is in the key, or only in the text, of what was found wrong."""
    found = problem.extra if isinstance(problem.extra, list) else []
    errors = [{"field": _field(error), "message": str(error.get("message", ""))} for error in found]
    if not errors:
        return refuse(400, problem.detail)
    return refuse(400, "; ".join(f"{e['field']}: {e['message']}" for e in errors), errors=errors)


def _field(error: dict[str, Any]) -> str:
    named = _FIELD.search(str(error.get("message", "")))
    if named:
        return str(named["named"] or named["path"])
    key = str(error.get("key", "data"))
    return "body" if key == "data" else key


def _no_json(request: AnyRequest, _problem: Exception) -> Problem:
    """Answer for what the JSON decoder raises besides its own errors: invalid UTF-8, and nesting without end."""
    return refuse(400, "The body is not valid JSON in UTF-8.").to_response(request)


def _no_database(request: AnyRequest, problem: Exception) -> Problem:
    if not is_passing(problem):
        return _unexpected(request, problem)
    # With its place: what a plugin meets outside the database looks the same.
    log.error("request.no_database", path=request.scope["path"], exc_info=problem)
    return refuse(503, "The database cannot be reached at the moment.", retry_after_s=1).to_response(request)


def _elsewhere(request: AnyRequest, _problem: Elsewhere) -> Problem:
    return refuse(503, "The run is being answered by another server.", retry_after_s=1).to_response(request)


def _run_error(request: AnyRequest, problem: RunError) -> Problem:
    """Answer for what would be an error event in a run, in a request without one."""
    return refuse(503, str(problem), code=problem.code, retryable=problem.retryable).to_response(request)


def _unexpected(request: AnyRequest, problem: Exception) -> Problem:
    log.error("request.failed", path=request.scope["path"], exc_info=problem)
    return refuse(500, "Something went wrong in the server; its log says what.").to_response(request)


def _problem(request: AnyRequest, problem: ProblemDetailsException) -> Problem:
    return problem.to_response(request)


HANDLERS: dict[int | type[Exception], Callable[[AnyRequest, Any], Response[Any]]] = {
    ProblemDetailsException: _problem,
    HTTPException: _http,
    RunError: _run_error,
    Elsewhere: _elsewhere,
    UnicodeDecodeError: _no_json,
    RecursionError: _no_json,
    DBAPIError: _no_database,
    asyncpg.PostgresError: _no_database,
    asyncpg.InterfaceError: _no_database,
    PoolTimeout: _no_database,
    OSError: _no_database,
    TimeoutError: _no_database,
    Exception: _unexpected,
}

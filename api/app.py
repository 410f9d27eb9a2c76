"""The Litestar application: routes, dependencies, answers to bad requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestar import Litestar, Request
from litestar.config.cors import CORSConfig
from litestar.di import NamedDependency, Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.serialization import encode_json
from litestar.types import ASGIApp

from api import __version__
from api.boot import Boot
from api.http.callers import Authenticate, Caller, caller, rate_limit
from api.http.chat import chat
from api.http.collection import delete_document, list_documents, read_document, search
from api.http.guard import Guard
from api.http.health import health, plugins, ready
from api.http.jobs import read_job, read_job_events
from api.http.metrics import metrics
from api.http.openai_chat import complete
from api.http.openai_models import embed, list_models, read_model
from api.http.page import asset, index
from api.http.probe import probe
from api.http.problems import HANDLERS, not_ready, refuse
from api.http.runs import cancel_run, read_events, read_run
from api.http.schema import describe_events
from api.http.sessions import delete_session, list_sessions, read_messages, read_session, rename_session
from api.http.uploads import upload_documents
from api.ingest.jobs import Jobs
from api.runs import Runs
from api.settings import Settings
from api.storage.documents import Documents
from api.storage.sessions import Sessions
from api.system import System
from api.tracing import traced

ROUTES = [
    index,
    asset,
    health,
    ready,
    probe,
    plugins,
    metrics,
    chat,
    read_run,
    read_events,
    cancel_run,
    list_sessions,
    read_session,
    read_messages,
    rename_session,
    delete_session,
    search,
    list_documents,
    read_document,
    upload_documents,
    delete_document,
    read_job,
    read_job_events,
    complete,
    list_models,
    read_model,
    embed,
]


def create_app(boot: Boot) -> ASGIApp:
    """Return the application; its routes answer 503 until ``boot`` has brought the system up."""
    routed: ASGIApp = _routed(boot)
    if boot.settings.traces != "off":
        routed = traced(routed)
    return Guard(routed, boot.access, boot.settings.allowed_hosts)


def describe(boot: Boot) -> bytes:
    """Return the OpenAPI description of routes and events, as JSON; ``GET /schema`` answers with the same."""
    return encode_json(_routed(boot).openapi_schema.to_schema())


def _routed(boot: Boot) -> Litestar:
    def system() -> System:
        if boot.system is None or not boot.ready:
            raise not_ready(boot.reason)
        return boot.system

    def runs() -> Runs:
        return system().runs

    def jobs() -> Jobs:
        if boot.jobs is None or not boot.ready:
            raise not_ready(boot.reason)
        return boot.jobs

    def documents(caller: NamedDependency[Caller]) -> Documents:
        return Documents(system().engine, caller.owner)

    def sessions(caller: NamedDependency[Caller]) -> Sessions:
        return Sessions(system().engine, caller.owner)

    def settings() -> Settings:
        return boot.settings

    provided: dict[str, Callable[..., Any]] = {
        "system": system,
        "runs": runs,
        "jobs": jobs,
        "documents": documents,
        "sessions": sessions,
        "settings": settings,
        "caller": caller,
        "boot": lambda: boot,
    }
    rate = boot.settings.rate_per_minute
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={name: Provide(make, sync_to_thread=False) for name, make in provided.items()},
        exception_handlers=HANDLERS,
        before_request=_require_json,
        middleware=[Authenticate(boot.access), *([rate_limit(rate)] if rate else [])],
        cors_config=_cors(boot.settings.cors_origins),
        lifespan=[boot.lifespan],
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Stagecast",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin()],
        ),
    )
    components: Any = app.openapi_schema.components
    components.schemas |= describe_events()
    return app


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        expose_headers=["Retry-After"],
    )


async def _require_json(request: Request[Any, Any, Any]) -> None:  # not async, it would cost each request a thread
    if (
        request.method in {"POST", "PATCH"}
        and not _has_no_body(request)
        and request.content_type[0] != "application/json"
    ):
        found = request.headers.get("content-type") or "none"
        raise refuse(415, f"Content-Type: application/json is needed, not {found[:100]!r}.")


def _has_no_body(request: Request[Any, Any, Any]) -> bool:
    return request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers

"""``GET /metrics``: the server's numbers for Prometheus."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST

from api.system import System


@get("/metrics", media_type="text/plain")
async def metrics(system: NamedDependency[System]) -> Response[bytes]:
    """Return all metrics in Prometheus's text format."""
    # As a media type it would be given a second charset.
    return Response(system.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

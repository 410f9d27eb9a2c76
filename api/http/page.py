"""``/``: the page, as it was built from ``ui``; it needs no key, and asks for one when the routes behind it do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litestar import MediaType, Response, get
from litestar.datastructures import CacheControlHeader
from litestar.static_files import create_static_files_router
from litestar.types import ControllerRouterHandler

from api.http.callers import PUBLIC

FOLDER = Path(__file__).parent.parent / "page"
YEAR_S = 31_536_000
NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Stagecast</title>
<h1>The page is not built</h1>
<p>The server answers all the same: see <a href="/schema">its routes</a>. The page is built by <code>just page</code>,
which needs Node 20 or newer.</p></html>
"""


@get("/", media_type=MediaType.HTML, include_in_schema=False, sync_to_thread=False, **PUBLIC)
def index() -> Response[str]:
    """Return the page."""
    built = FOLDER / "index.html"
    text = built.read_text("utf-8") if built.exists() else NOT_BUILT
    return Response(text, headers={"Cache-Control": "no-cache"})


def page_routes() -> Sequence[ControllerRouterHandler]:
    """Return the page and, once it is built, what it loads: files whose names change with their content."""
    assets = FOLDER / "assets"
    if not assets.is_dir():
        return [index]
    kept = CacheControlHeader(max_age=YEAR_S, immutable=True)
    return [
        index,
        create_static_files_router(
            path="/assets", directories=[assets], cache_control=kept, include_in_schema=False, opt=PUBLIC
        ),
    ]

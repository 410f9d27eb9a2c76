"""``/``: the page, as it was built from ``ui``; it needs no key, and asks for one when the routes behind it do."""

from __future__ import annotations

import gzip
from functools import lru_cache
from mimetypes import guess_type
from pathlib import Path

from litestar import MediaType, Response, get

from api.http.callers import PUBLIC
from api.http.problems import AnyRequest, refuse

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


@get("/assets/{name:str}", include_in_schema=False, sync_to_thread=True, **PUBLIC)
def asset(name: str, request: AnyRequest) -> Response[bytes]:
    """Return a file that the page loads; its name changes with its content."""
    file = FOLDER / "assets" / name
    if file.parent != FOLDER / "assets" or not file.is_file():
        raise refuse(404, f"There is no asset {name!r}.")
    headers = {"Cache-Control": f"public, max-age={YEAR_S}, immutable", "Vary": "Accept-Encoding"}
    media_type = guess_type(name)[0] or "application/octet-stream"
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.read_bytes(), media_type=media_type, headers=headers)
    return Response(_compressed(file), media_type=media_type, headers=headers | {"Content-Encoding": "gzip"})


@lru_cache(maxsize=16)
def _compressed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes())

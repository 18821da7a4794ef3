"""The console at `/` and `/topics`, and the files that pages load. They need no key: `/` has the newest messages where
everybody may read them, and nothing else here contains data."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

import aiohttp_jinja2
from aiohttp import ETag, web
from aiohttp.typedefs import Handler
from jinja2 import FileSystemLoader, StrictUndefined

from notifier import __version__
from notifier.core.errors import NotFound, NotifierError, Unauthorized
from notifier.resources import resource_dir
from notifier.web.access import ACCESS, address, authorise_subscribe
from notifier.web.appkeys import SERVICE
from notifier.web.modules import Client
from notifier.web.rows import Row, newest_rows

# Payloads may be hostile. The page shows them as text only; if that ever fails, this keeps them from running.
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # pictures that were published, fetched with the key
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

# Pages of all origins may import the client; whether they may poll is another question.
_FROM_ANYWHERE = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}

_PAGES = {"/": "console.html", "/topics": "topics.html"}

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def setup(app: web.Application) -> None:
    """Add the page and its files, which are read once, here."""
    aiohttp_jinja2.setup(app, loader=FileSystemLoader(resource_dir("templates")), undefined=StrictUndefined)
    for path, template in _PAGES.items():
        app.router.add_get(path, _page(template))
    static = resource_dir("static")
    client = Client(static)
    app.router.add_get("/client.js", _file(client.main, "text/javascript", _FROM_ANYWHERE))
    tabs = _file(client.tabs, "text/javascript", _FROM_ANYWHERE)
    app.router.add_get("/client/tabs.js", _of_version(client.version, tabs))
    for file in sorted(static.rglob("*")):
        name = file.relative_to(static).as_posix()
        if file.suffix in _TYPES and not name.startswith("client"):
            app.router.add_get(f"/{name}", _file(file.read_bytes(), _TYPES[file.suffix], {}))


def _page(template: str) -> Handler:
    async def page(request: web.Request) -> web.Response:
        request.app[ACCESS].check_host(request)
        rows = await _rows(request) if template == "console.html" else []
        response = aiohttp_jinja2.render_template(template, request, {"version": __version__, "rows": rows})
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        return _fresh(response)

    return page


async def _rows(request: web.Request) -> list[Row]:
    """The rows that the page begins with: of what its caller may read, who has shown a key as a password at most."""
    try:
        await authorise_subscribe(request, ["**"])
    except NotifierError as error:
        if isinstance(error, Unauthorized) and "Authorization" in request.headers:
            request.app[SERVICE].failures.count(address(request), error)  # a guess, as anywhere else
        return []  # the page is there all the same, and asks for a key
    return newest_rows(request.app[SERVICE].window, datetime.now(UTC))


def _file(body: bytes, content_type: str, headers: Mapping[str, str]) -> Handler:
    etag = ETag(sha256(body).hexdigest()[:20])

    async def file(request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(other.value in {etag.value, "*"} for other in known):
            response = web.Response(status=304)
        else:
            response = web.Response(body=body, content_type=content_type, charset="utf-8")
        response.etag = etag
        response.headers.update(headers)
        return _fresh(response)

    return file


def _of_version(version: str, handler: Handler) -> Handler:
    """For a page whose client is of another version, there is no such file."""

    async def file(request: web.Request) -> web.StreamResponse:
        if request.query.get("v", version) != version:
            raise NotFound("This file is of another version of the client than the page. Load the page anew.")
        return await handler(request)

    return file


def _fresh(response: web.Response) -> web.Response:
    """Let caches keep it but revalidate it each time: after an upgrade no page loads a script of another version. Pages
    have messages, which no other user of a shared cache may get."""
    response.headers["Cache-Control"] = "no-cache" if response.etag else "private, no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response

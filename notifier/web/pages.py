"""The console at `/` and `/topics`, and the files that pages load. They contain no data and need no key."""

from collections.abc import Mapping
from hashlib import sha256

import aiohttp_jinja2
from aiohttp import ETag, web
from aiohttp.typedefs import Handler
from jinja2 import FileSystemLoader, StrictUndefined

from notifier import __version__
from notifier.resources import resource_dir
from notifier.web.access import ACCESS

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
_FROM_ANYWHERE = {
    "client.js": {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"},
}

_PAGES = {"/": "console.html", "/topics": "topics.html"}

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# A client that the service serves knows where the service is; one in a bundle must be told.
_ADDRESS = (b"const HOME = undefined;", b"const HOME = import.meta.url;")


def setup(app: web.Application) -> None:
    """Add the page and its files, which are read once, here."""
    aiohttp_jinja2.setup(app, loader=FileSystemLoader(resource_dir("templates")), undefined=StrictUndefined)
    for path, template in _PAGES.items():
        app.router.add_get(path, _page(template))
    static = resource_dir("static")
    for file in sorted(static.rglob("*")):
        if file.suffix in _TYPES:
            name = file.relative_to(static).as_posix()
            body = file.read_bytes().replace(*_ADDRESS)
            app.router.add_get(f"/{name}", _file(body, _TYPES[file.suffix], _FROM_ANYWHERE.get(name, {})))


def _page(template: str) -> Handler:
    async def page(request: web.Request) -> web.Response:
        request.app[ACCESS].check_host(request)
        response = aiohttp_jinja2.render_template(template, request, {"version": __version__})
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        return _fresh(response)

    return page


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


def _fresh(response: web.Response) -> web.Response:
    """Let caches keep it but revalidate it each time: after an upgrade no page loads a script of another version."""
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response

"""Flask behind nginx: the application says what a poll reads, and nginx goes on with it."""

from urllib.parse import urlencode

from flask import Blueprint, Response, abort, g, request

live = Blueprint("live", __name__)


@live.get("/live/v1/topics/<path:asked>")
def poll(asked: str) -> Response:
    if g.user is None:
        abort(401)
    topics = f"user/{g.user}/**,all"  # never what was asked for
    begin = {name: value for name in ("since", "last") if (value := request.args.get(name))}
    return Response(headers={"X-Accel-Redirect": f"/_notifier/v1/topics/{topics}?{urlencode(begin)}"})

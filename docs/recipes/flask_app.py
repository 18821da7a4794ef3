"""Flask and psycopg. Environment: DATABASE_URL, SECRET_KEY, NOTIFIER_URL, NOTIFIER_JWT_SECRET."""

import json
import os
import time
from pathlib import Path

import jwt
import psycopg
from flask import Flask, abort, g, redirect, render_template_string, request, session
from werkzeug.wrappers import Response

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
PAGE = Path(__file__).with_name("page.html").read_text()

TOKEN_LIFETIME_S = 3600


def token_for(user_id: int) -> str:
    now = int(time.time())
    claims = {
        "sub": str(user_id),
        "iat": now,
        "exp": now + TOKEN_LIFETIME_S,
        "notifier": {"subscribe": [f"user/{user_id}/**", "all"]},
    }
    # The first of several secrets signs; Notifier accepts all of them.
    return jwt.encode(claims, os.environ["NOTIFIER_JWT_SECRET"].split()[0], algorithm="HS256")


def database() -> psycopg.Connection:
    """A connection that commits at the end of its `with` block, or rolls back."""
    return psycopg.connect(os.environ["DATABASE_URL"])


@app.before_request
def who() -> None:
    g.user = None
    if login := session.get("login"):
        with database() as db:
            row = db.execute("select user_id from login where id = %s", [login]).fetchone()
        g.user = row and row[0]


@app.get("/")
def page() -> str:
    if g.user is None:
        return '<form method="post" action="/login"><input name="user"><button>Log in</button></form>'
    return render_template_string(PAGE, notifier_url=os.environ["NOTIFIER_URL"], user_id=g.user)


@app.get("/live/token")
def token() -> tuple[dict[str, str], dict[str, str]]:
    if g.user is None:
        abort(401)
    return {"token": token_for(g.user)}, {"Cache-Control": "no-store"}


@app.post("/login")
def login() -> Response:
    user = int(request.form["user"])  # here you check a password
    with database() as db:
        row = db.execute("insert into login (user_id) values (%s) returning id", [user]).fetchone()
    session["login"] = str(row[0])
    return redirect("/", 303)


@app.post("/logout")
def logout() -> Response:
    if g.user is not None:
        with database() as db:
            db.execute("delete from login where id = %s", [session.pop("login")])
            db.execute("select notifier.revoke(%s)", [str(g.user)])
    return redirect("/", 303)


@app.post("/orders/<int:order>/pay")
def pay(order: int) -> tuple[str, int]:
    if g.user is None:
        abort(401)
    with database() as db:
        # What the order needs is written here; the message is seen when all of it is committed.
        paid = json.dumps({"order": order, "status": "paid"})
        db.execute("select notifier.publish(%s, %s)", [f"user/{g.user}/orders", paid])
    return "", 204

"""FastAPI and asyncpg. Environment: DATABASE_URL, SECRET_KEY, NOTIFIER_URL, NOTIFIER_JWT_SECRET."""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import asyncpg
import jwt
from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

TOKEN_LIFETIME_S = 3600


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"])
templates = Jinja2Templates(Path(__file__).parent)


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


async def visitor(request: Request) -> int | None:
    login = request.session.get("login")
    query = "select user_id from login where id = $1::text::uuid"
    return await request.app.state.pool.fetchval(query, login) if login else None


async def user(user_id: Annotated[int | None, Depends(visitor)]) -> int:
    if user_id is None:
        raise HTTPException(401)
    return user_id


Visitor = Annotated[int | None, Depends(visitor)]
User = Annotated[int, Depends(user)]


@app.get("/")
async def page(request: Request, user_id: Visitor) -> Response:
    if user_id is None:
        return HTMLResponse('<form method="post" action="/login"><input name="user"><button>Log in</button></form>')
    context = {"notifier_url": os.environ["NOTIFIER_URL"], "user_id": user_id}
    return templates.TemplateResponse(request, "page.html", context)


@app.get("/live/token")
async def token(user_id: User, response: Response) -> dict[str, str]:
    response.headers["Cache-Control"] = "no-store"
    return {"token": token_for(user_id)}


@app.post("/login")
async def login(request: Request, user: Annotated[int, Form()]) -> Response:  # here you check a password
    query = "insert into login (user_id) values ($1) returning id"
    request.session["login"] = str(await request.app.state.pool.fetchval(query, user))
    return RedirectResponse("/", 303)


@app.post("/logout")
async def logout(request: Request, user_id: Visitor) -> Response:
    if user_id is not None:
        async with request.app.state.pool.acquire() as db, db.transaction():
            await db.execute("delete from login where id = $1::text::uuid", request.session.pop("login"))
            await db.execute("select notifier.revoke($1)", str(user_id))
    return RedirectResponse("/", 303)


@app.post("/orders/{order}/pay", status_code=204)
async def pay(request: Request, order: int, user_id: User) -> None:
    async with request.app.state.pool.acquire() as db, db.transaction():
        # What the order needs is written here; the message is seen when all of it is committed.
        paid = json.dumps({"order": order, "status": "paid"})
        await db.execute("select notifier.publish($1, $2::text)", f"user/{user_id}/orders", paid)

"""FastAPI under uvicorn, with uvloop and httptools. A client that hangs up leaves its handler waiting, 25 s at most."""

from typing import Annotated, Any

import topics
from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse

app = FastAPI()


@app.get("/poll/{topic}")
async def poll(topic: str, after: int = 0) -> JSONResponse:
    return JSONResponse(await topics.poll(topic, after))


@app.post("/publish/{topic}", status_code=201)
async def publish(topic: str, data: Annotated[Any, Body()]) -> dict[str, str]:
    return topics.publish(topic, data)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}

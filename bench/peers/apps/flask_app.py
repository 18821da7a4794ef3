"""Flask under gunicorn."""

from typing import Any

import topics_of_threads as topics
from flask import Flask, request

app = Flask(__name__)


@app.get("/poll/<topic>")
def poll(topic: str) -> dict[str, Any]:
    return topics.poll(topic, request.args.get("after", 0, type=int))


@app.post("/publish/<topic>")
def publish(topic: str) -> tuple[dict[str, Any], int]:
    return topics.publish(topic, request.get_json()), 201


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}

"""Scores over HTTP: one image as the body of a request, or several as a form.

    pip install 'lifeiqa_plugin[serve]'
    uvicorn --app-dir examples/serve server:app --limit-concurrency 64

    curl --data-binary @photo.jpg localhost:8000/score
    curl -F files=@one.jpg -F files=@two.jpg localhost:8000/batch

The variables ``MODEL``, ``WORKERS``, ``MAX_MEGABYTES``, ``MAX_MEGAPIXELS`` and ``TIME_LIMIT`` set what their names say.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifeiqa_plugin import Scorer
from lifeiqa_plugin.images.stream import Named

MODEL = os.environ.get("MODEL", "lifeiqa")
WORKERS = int(os.environ.get("WORKERS", "2"))
MAX_BYTES = int(1e6 * float(os.environ.get("MAX_MEGABYTES", "32")))
MAX_PIXELS = int(1e6 * float(os.environ.get("MAX_MEGAPIXELS", "50")))
TIME_LIMIT = float(os.environ.get("TIME_LIMIT", "10"))
MAX_FILES = 64

KINDS = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types that are scored; the last is what curl says if it is told nothing."""

ANSWERS = Counter("lifeiqa_images", "Images, by the status of their answer", ["status"])
SECONDS = Histogram("lifeiqa_seconds", "Time to decode and score an image, in seconds")


class LimitedBody:
    """Refuses bodies of more than ``MAX_BYTES``, before they are read if they say their length."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what the application reads."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            says = int(Headers(scope=scope).get("content-length", 0))
            message = await receive() if says <= MAX_BYTES else {}
            taken += len(message.get("body", b""))
            if max(says, taken) > MAX_BYTES:
                raise HTTPException(413, f"more than {MAX_BYTES / 1e6:g} MB")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


@asynccontextmanager
async def load(app: FastAPI) -> AsyncIterator[None]:
    """Load the network before the first request."""
    app.state.scorer = Scorer(
        MODEL, exact=True, max_pixels=MAX_PIXELS, workers=WORKERS, time_limit=TIME_LIMIT
    )
    yield


app = FastAPI(title="lifeiqa", lifespan=load)
app.add_middleware(LimitedBody)


@app.get("/health")
def health() -> dict[str, Any]:
    """Say that the network is loaded, and which."""
    return {"status": "ok"} | _weights()


def _weights() -> dict[str, Any]:
    return {"weights_sha256": app.state.scorer.weights_sha256}


@app.get("/metrics")
def metrics() -> Response:
    """Return counts and times as Prometheus reads them."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@app.post("/score")
async def score(request: Request) -> dict[str, Any]:
    """Score the image that is the body."""
    kind = request.headers.get("content-type", KINDS[1])
    if not kind.startswith(KINDS):
        raise HTTPException(415, f"expected an image as the body, got {kind}")
    content = await _in_time(request.body())
    row, status = await run_in_threadpool(_score, Named("image", content))
    if status != 200:
        raise HTTPException(status, row["error"])
    return row | _weights()


@app.post("/batch")
async def batch(request: Request) -> dict[str, Any]:
    """Score the files of a form; one that cannot be scored has an ``error``."""
    form = await _in_time(request.form(max_files=MAX_FILES))
    files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
    if not files:
        raise HTTPException(422, "expected a form with one or more files, each called 'files'")
    named = [Named(file.filename or "image", await file.read()) for file in files]
    scored = await asyncio.gather(*(run_in_threadpool(_score, one) for one in named))
    return {"images": [row for row, _ in scored]} | _weights()


async def _in_time(body: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(body, TIME_LIMIT)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the body took longer than {TIME_LIMIT:g} s") from None


def _score(named: Named) -> tuple[dict[str, Any], int]:
    """Return the row of an image, and the status that says the same."""
    begun = time.perf_counter()
    row = app.state.scorer(named).to_dict()
    SECONDS.observe(time.perf_counter() - begun)
    status = _status(row["error"])
    ANSWERS.labels(status).inc()
    return row, status


def _status(error: str | None) -> int:
    if error is None:
        return 200
    if error.startswith("too large"):
        return 413
    return 415 if error.startswith("cannot be read as an image") else 422

"""``examples/serve``: a real server under load, with files of all kinds, and each score that of the metric."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyiqa
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples" / "serve"
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
BINARY = "application/octet-stream"

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("multipart")
pytest.importorskip("prometheus_client")
pytest.importorskip("onnxruntime")


class Server(NamedTuple):
    url: str
    pid: int

    def ask(
        self, path: str, body: bytes | Iterable[bytes] | None = None, kind: str = BINARY
    ) -> tuple[int, dict]:
        """Return the status and the JSON of an answer."""
        headers = {} if body is None else {"Content-Type": kind}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, BrokenPipeError | ConnectionResetError):
                raise  # else it answered without reading what was too much, and closed
            return 413, {"detail": "more than 1 MB"}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = {"MAX_MEGABYTES": "1", "MAX_MEGAPIXELS": "20", "TIME_LIMIT": "5"}
    log = tmp_path_factory.mktemp("serve") / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--app-dir", SERVE, "server:app", "--port", str(port)],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | limits, stdout=file, stderr=file,
        )  # fmt: skip
    found = Server(f"http://127.0.0.1:{port}", process.pid)
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                assert found.ask("/health")[1]["status"] == "ok"
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        assert process.wait(30) is not None
    assert "Traceback" not in log.read_text()


def jpeg(size: tuple[int, int], **options) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, "jpeg", **options)
    return file.getvalue()


def endless() -> bytes:
    """A progressive JPEG of 12 megapixels and 300 kB whose last scan comes again and again."""
    start, scan, end = re.fullmatch(
        rb"(.*)(\xff\xda.*)(\xff\xd9)", jpeg((4000, 3000), progressive=True), re.DOTALL
    ).groups()
    return start + scan * (300_000 // len(scan)) + end


def bad_bodies() -> dict[str, tuple[bytes, int, str]]:
    """What is sent -> its bytes, and the status and the words that answer it."""
    photo = PHOTOS[0].read_bytes()
    bomb = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes.fromhex("0000ea600000ea600802000000"))
    return {
        "text": (b"<?php system($_GET[0]); ?>", 415, "it is text"),
        "zip": (b"PK\3\4" + bytes(100), 415, "cannot be read as an image"),
        "nothing": (b"", 422, "empty file"),
        "half": (photo[: len(photo) // 2], 422, "missing"),
        "noise": (random.Random(0).randbytes(5000), 415, "cannot be read as an image"),
        "many pixels": (jpeg((6000, 5000)), 413, "too large (6000 x 5000"),
        "bomb": (bytes(bomb), 415, "cannot be read as an image"),
        "many bytes": (photo + bytes(1_000_000), 413, "more than 1 MB"),
    }


@pytest.mark.slow
def test_each_score_is_the_metrics(server):
    """500 requests on 8 threads, of which two in five are no good images; prints how long they took."""
    metric = pyiqa.create_metric("lifeiqa", device="cpu")
    expected = {path.name: metric(str(path)).item() for path in PHOTOS}
    good = {path.name: path.read_bytes() for path in PHOTOS}
    bad = bad_bodies()
    names = [*(list(good) * 15), *(list(bad) * 25)]
    assert len(names) == 500
    random.Random(0).shuffle(names)

    def ask(name: str) -> tuple[int, dict, float]:
        begun = time.perf_counter()
        status, answer = server.ask("/score", good[name] if name in good else bad[name][0])
        return status, answer, time.perf_counter() - begun

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, names))
    digest = server.ask("/health")[1]["weights_sha256"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    for name, (status, answer, _) in zip(names, answers, strict=True):
        if name in good:
            assert status == 200
            assert answer["score"] == pytest.approx(expected[name], abs=1e-4)
            assert answer["weights_sha256"] == digest
        else:
            _, wanted, words = bad[name]
            assert status == wanted, (name, answer)
            assert words in answer["detail"], name
    seconds = [taken for name, (*_, taken) in zip(names, answers, strict=True) if name in good]
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
    print(f"\np50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, peak {int(peak[1]) / 1024:.0f} MiB")


@pytest.mark.slow
def test_a_file_that_takes_for_ever_costs_only_itself(server):
    with ThreadPoolExecutor(4) as threads:
        slow = threads.submit(server.ask, "/score", endless())
        time.sleep(1)
        assert server.ask("/score", PHOTOS[0].read_bytes())[0] == 200
        assert slow.result() == (422, {"detail": "took longer than 5 s"})
    assert server.ask("/score", PHOTOS[1].read_bytes())[0] == 200


@pytest.mark.slow
def test_an_upload_that_takes_for_ever(server):
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\nbegun"
        )
        connection.settimeout(60)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def form(**files: bytes) -> tuple[bytes, str]:
    """Return a body with files, and its content type."""
    head = '--edge\r\nContent-Disposition: form-data; name="files"; filename="{}"\r\n\r\n'
    parts = [head.format(name).encode() + content + b"\r\n" for name, content in files.items()]
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


@pytest.mark.slow
def test_several_images(server):
    photo = PHOTOS[0].read_bytes()
    status, answer = server.ask("/batch", *form(one=photo, two=b"nothing", three=photo))
    assert status == 200
    assert len(answer["weights_sha256"]) == 64
    assert [row["path"] for row in answer["images"]] == ["one", "two", "three"]
    first, second, third = answer["images"]
    assert first["score"] == third["score"] == server.ask("/score", photo)[1]["score"]
    assert second["score"] is None
    assert second["error"].startswith("cannot be read as an image")
    assert first["verdict"] in ("keep", "check", "drop")
    assert set(answer) == {"images", "weights_sha256"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "words"),
    [
        ("/score", b"{}", "application/json", 415, "expected an image as the body, got application"),
        ("/batch", b"--edge--\r\n", "multipart/form-data; boundary=edge", 422, "one or more files"),
        ("/batch", *form(big=bytes(1_100_000)), 413, "more than 1 MB"),
        ("/batch", *form(**{str(i): b"" for i in range(65)}), 400, "Too many files"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be(server, path, body, kind, status, words):
    code, answer = server.ask(path, body, kind)
    assert code == status
    assert words in answer["detail"]


@pytest.mark.slow
def test_a_body_that_does_not_say_its_length(server):
    photo = PHOTOS[0].read_bytes()

    assert server.ask("/score", iter([photo]))[0] == 200
    assert server.ask("/score", iter([photo] * 100))[0] == 413


@pytest.mark.slow
def test_metrics(server):
    server.ask("/score", PHOTOS[0].read_bytes())
    server.ask("/score", b"nothing")
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        text = answer.read().decode()
    counts = dict(re.findall(r'^lifeiqa_images_total\{status="(\d+)"\} (\S+)$', text, re.MULTILINE))
    assert float(counts["200"]) >= 1
    assert float(counts["415"]) >= 1
    assert re.search(r'^lifeiqa_seconds_bucket\{le="\+Inf"\} [1-9]', text, re.MULTILINE)


def test_the_container_has_what_the_server_needs():
    """The compose file asks what the server answers, and sets what it reads."""
    service = yaml.safe_load((SERVE / "compose.yml").read_text())["services"]["lifeiqa"]
    source = (SERVE / "server.py").read_text()
    assert set(service["environment"]) <= set(re.findall(r'environ.get\("(\w+)"', source))
    assert re.search(r"urlopen\('http://127.0.0.1:8000/health'", service["healthcheck"]["test"][-1])
    assert (SERVE / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert 'app.get("/health")' in source

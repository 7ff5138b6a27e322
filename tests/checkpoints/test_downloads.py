"""Checkpoints by URL: fetched once, kept only if they read, fetched again where the kept file is broken."""

from __future__ import annotations

import re
from http.client import IncompleteRead
from pathlib import Path

import pytest
import torch

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA

URL = "https://example.org/models/mine.safetensors?download=true"
PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A checkpoint, as bytes."""
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    network = LifeIQA("test_efficientnet", embed_dim=24, num_heads=2, depth=1)
    save_checkpoint(network, path, ModelCard("noise", "CC0-1.0"))
    return path.read_bytes()


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A web of files, {url: bytes or what is raised}, beside an empty hub folder; ``web.asked`` lists the downloads."""

    class Web(dict):
        def __init__(self):
            self.asked = []

        def kept(self):
            return [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]

    web = Web()

    def download(url, path, progress=True):
        web.asked.append(url)
        answer = web.get(url, OSError("HTTP Error 404: Not Found"))
        if isinstance(answer, BaseException):
            Path(path).write_bytes(b"the first bytes")
            raise answer
        Path(path).write_bytes(answer)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return web


def test_urls_are_downloaded_once(web, content):
    web[URL] = content
    for _ in range(2):
        assert build_lifeiqa(pretrained_model_path=URL).config["embed_dim"] == 24
    assert web.asked == [URL]
    (kept,) = web.kept()
    assert kept.name == "mine.safetensors"
    assert kept.read_bytes() == content


def test_equal_file_names_of_two_urls_are_two_files(web, content):
    web["https://example.org/a/net.safetensors"] = content
    web["https://example.org/b/net.safetensors"] = content
    for url in web:
        build_lifeiqa(pretrained_model_path=url)
    assert len(web.kept()) == 2


@pytest.mark.parametrize(
    "error",
    [OSError("HTTP Error 404: Not Found"), IncompleteRead(b"", 9), TimeoutError("timed out")],
)
def test_failed_download_names_the_url(web, error):
    web[URL] = error
    message = f"{URL}: cannot be downloaded ({error}); download it by hand and give its path"
    with pytest.raises(OSError, match=re.escape(message)):
        build_lifeiqa(pretrained_model_path=URL)
    assert web.kept() == []


def test_interrupted_download(web, content):
    web[URL] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        build_lifeiqa(pretrained_model_path=URL)
    assert web.kept() == []
    web[URL] = content
    build_lifeiqa(pretrained_model_path=URL)


@pytest.mark.parametrize("broken", ["page", "half", "empty", "thousand bytes"])
def test_what_is_no_checkpoint_is_not_kept(web, content, broken):
    """A page to sign in, or a connection that ended early."""
    answers = {
        "page": PAGE,
        "half": content[: len(content) // 2],
        "empty": b"",
        "thousand bytes": content[:1000],
    }
    web[URL] = answers[broken]
    message = f"{URL}: what came is not kept, as it is no checkpoint: neither a safetensors nor a torch file"
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape(message)):
            build_lifeiqa(pretrained_model_path=URL)
        assert web.kept() == []
    web[URL] = content
    build_lifeiqa(pretrained_model_path=URL)


@pytest.mark.parametrize("broken", [PAGE, b""])
def test_a_kept_file_that_does_not_read_is_fetched_once_more(web, content, broken):
    web[URL] = content
    build_lifeiqa(pretrained_model_path=URL)
    (kept,) = web.kept()
    kept.write_bytes(broken)
    build_lifeiqa(pretrained_model_path=URL)
    assert web.asked == [URL, URL]
    assert kept.read_bytes() == content


def test_a_broken_kept_file_stays_where_nothing_better_comes(web, content):
    web[URL] = content
    build_lifeiqa(pretrained_model_path=URL)
    (kept,) = web.kept()
    kept.write_bytes(content[:1000])
    del web[URL]
    with pytest.raises(OSError, match="cannot be downloaded"):
        build_lifeiqa(pretrained_model_path=URL)
    assert web.kept() == [kept]

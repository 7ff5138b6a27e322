"""Files and options that are changed at random: a score or one clear error, no crash, no hang, no silent nonsense.

``pytest tests/robustness --hypothesis-profile=thorough`` tries forty times as many.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.images.reading import decode_resized, read_image
from lifeiqa_plugin.network.config import option_names
from lifeiqa_plugin.training.options import read_options

from .conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # Pillow's, of damaged files

RECIPES = sorted((Path(__file__).parents[2] / "options" / "train").rglob("*.yml"))
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 2**63, -(2**63), 0.5, -0.5, 1e300, float("nan"), float("inf"), "", "x",
    "torch", "fixed", "hf-hub:x/y", "é" * 40, [], [0], [1, 0], [0.0, 1.0], [0, 1, 2], {}, {"a": 1}, ["a", "a"],
]  # fmt: skip
"""What an option may be given by mistake."""


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """Change, blank, cut, repeat or insert parts of a file; at times only where it says what it holds."""
    changed = bytearray(data)
    last = draw(st.sampled_from([len(data), min(len(data), 4096)]))
    for _ in range(draw(st.sampled_from([1, 1, 2, 5, 20]))):
        at, length = draw(st.integers(0, last)), draw(st.sampled_from([1, 1, 2, 4, 16, 64]))
        part = slice(at, at + length)
        noise = st.binary(min_size=length, max_size=length)
        known = st.sampled_from([b"", bytes(length), b"\xff" * length, bytes(changed[part]) * 2])
        changed[part] = draw(known | noise)
    end = draw(st.none() | st.integers(0, len(changed)))
    return bytes(changed[:end])


def image_files() -> list[bytes]:
    """Return one small file of each kind that Pillow writes and people have."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (40, 48), dtype=np.uint16))
    floats = Image.fromarray(rng.random((40, 48), dtype=np.float32))
    kinds = [(image, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")]
    kinds += [(image.convert("RGBA"), "PNG"), (image.convert("P"), "PNG"), (deep, "PNG")]
    kinds += [(image.convert("CMYK"), "JPEG"), (image.convert("CMYK"), "TIFF"), (floats, "TIFF")]
    kinds += [(image.convert("L"), "JPEG2000")]
    files = []
    for picture, kind in kinds:
        file = io.BytesIO()
        picture.save(file, kind)
        files.append(file.getvalue())
    return files


@given(st.sampled_from(image_files()).flatmap(mutated))
def test_images(tiny, try_out, data):
    """What can be read at all lies in [0, 1] and is the same however it is read."""

    def score() -> float:
        image = read_image(data)
        assert image.min() >= 0
        assert image.max() <= 1
        planes = decode_resized(data, lambda height, width: (height, width)).pixels
        assert planes.shape == image.shape
        assert np.abs(planes - image.numpy()).max() < 1e-3
        return tiny(image[None]).item()

    try_out(score)


@given(
    st.dictionaries(
        st.sampled_from(sorted(option_names())), st.sampled_from(VALUES), min_size=1, max_size=2
    )
)
def test_options_of_the_network(try_out, options):
    image = torch.full((1, 3, 40, 48), 0.5)
    try_out(lambda: build_lifeiqa(pretrained=False, **TINY | options).eval()(image).item())


@st.composite
def changed_recipe(draw) -> dict[str, Any]:
    """Give values somewhere in an option file that ships others, take their keys away, or misspell them."""
    options = copy.deepcopy(yaml.safe_load(draw(st.sampled_from(RECIPES)).read_text("utf-8")))
    for _ in range(draw(st.sampled_from([1, 1, 3]))):
        tree = options
        key = draw(st.sampled_from(sorted(tree)))
        while isinstance(tree[key], dict) and tree[key] and draw(st.integers(0, 4)):
            tree = tree[key]
            key = draw(st.sampled_from(sorted(tree)))
        change = draw(st.sampled_from(["value", "drop", "misspell"]))
        value = tree.pop(key)
        if change == "value":
            tree[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif change == "misspell" or not tree:
            tree[f"{key}s"] = value
    return options


@given(changed_recipe())
def test_option_files_of_training(try_out, tmp_path, options):
    path = tmp_path / "options.yml"
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    try_out(lambda: read_options(path) and None)


def test_an_option_file_that_is_no_text(try_out, tmp_path):
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yml" in try_out(read_options, tmp_path / "binary.yml")


TABLE = "name,mos\n" + "".join(f"{i}.png,{i * 11.5}\n" for i in range(8))
CELLS = ["", "nan", "inf", "-5", "1e400", "x", '"', "é", "../0.png", "0.png", "90", " 3 "]


@st.composite
def changed_table(draw) -> bytes:
    rows = [line.split(",") for line in TABLE.splitlines()]
    draw(st.sampled_from(rows))[draw(st.integers(0, 1))] = draw(st.sampled_from(CELLS))
    return "\n".join(map(",".join, rows)).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rated")
    for i in range(8):
        Image.new("RGB", (40, 40), (i * 30,) * 3).save(folder / f"{i}.png")
    return folder


@given(mutated(TABLE.encode()) | changed_table(), st.sampled_from(["", "0 100", "0 50", "9 1"]))
@example(TABLE.encode(), "0 100")
def test_tables_of_scores(folder, capsys, content, scale):
    """``lifeiqa prepare folder``: what it writes are its own files with scores in [0, 1]."""
    scores, out = folder / "scores.csv", folder / "meta.csv"
    scores.write_bytes(content)
    out.unlink(missing_ok=True)
    options = ["--mos-range", *scale.split()] if scale else []
    status = cli.main(["prepare", "folder", str(folder), "--out", str(out), *options])
    error = capsys.readouterr().err
    assert status == (0 if out.exists() else 1), error
    if status:
        assert error.splitlines()[-1].startswith("lifeiqa "), error
        assert "Traceback" not in error
        return
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert (folder / row["name"]).is_file()
        assert 0 <= float(row["mos"]) <= 1


@pytest.fixture(scope="module")
def formats(tiny, checkpoint, tmp_path_factory) -> dict[str, bytes]:
    theirs = tmp_path_factory.mktemp("theirs") / "net.pth"
    torch.save({"params": tiny.state_dict()}, theirs)
    return {"safetensors": checkpoint.read_bytes(), "pth": theirs.read_bytes()}


@pytest.fixture
def load_and_score(tiny, tmp_path):
    """Return the score by a checkpoint of these bytes; weights that are not finite must not get so far."""
    image = torch.linspace(0, 1, 3 * 40 * 48).view(1, 3, 40, 48)

    def run(content: bytes, **options: Any) -> float:
        path = tmp_path / "mutated.safetensors"
        path.write_bytes(content)
        return build_lifeiqa(pretrained_model_path=path, **options).eval()(image).item()

    return run


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@given(st.data())
def test_checkpoints(formats, load_and_score, try_out, kind, data):
    """A file that loads in spite of its changes has weights that are as the file says, and a finite score."""
    content = data.draw(mutated(formats[kind]))
    try_out(lambda: load_and_score(content, **(TINY if kind == "pth" else {})))


@given(st.data())
def test_what_a_checkpoint_says_of_itself(formats, load_and_score, try_out, data):
    content = formats["safetensors"]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["lifeiqa"])
    keys = [(about, key) for key in about] + [(about["config"], key) for key in about["config"]]
    section, key = keys[data.draw(st.integers(0, len(keys) - 1))]
    section[key] = data.draw(st.sampled_from(VALUES))
    changed = save(load(content), {"lifeiqa": json.dumps(about)})
    try_out(lambda: load_and_score(changed))


def test_defects_are_noticed(try_out, monkeypatch):
    def fail(error: BaseException) -> None:
        raise error

    assert try_out(lambda: 0.5) == 0.5
    assert try_out(fail, ValueError("x is 3")) == "x is 3"
    for value in (float("nan"), float("inf")):
        with pytest.raises(AssertionError):
            try_out(lambda value=value: value)
    for text in ("", "two\nlines"):
        with pytest.raises(AssertionError):
            try_out(fail, ValueError(text))
    with pytest.raises(KeyError):
        try_out(fail, KeyError("x"))

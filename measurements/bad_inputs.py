"""Inputs that people give by mistake, each through the door at which it would be given."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyiqa
import torch
from outcomes import Outcome, judge, judge_command
from PIL import Image
from safetensors.torch import load, save_file

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.images.reading import read_image

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "photos" / "coffee_0_clean.jpg"


def images(folder: Path) -> Iterator[tuple[str, Any]]:
    """Write files that are not plain 8-bit photographs; yield what they are, and their path."""
    with Image.open(PHOTO) as file:
        photo = file.convert("RGB").resize((300, 200))
    small = np.asarray(photo.convert("L"))
    photo.save(folder / "whole.jpg", quality=90)
    photo.save(folder / "whole.png")
    half = {suffix: (folder / f"whole.{suffix}").read_bytes() for suffix in ("jpg", "png")}

    def keep(name: str, content: bytes | Image.Image, **options: Any) -> Path:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        return path

    yield "the photo itself", folder / "whole.png"
    yield "no such file", folder / "none.png"
    yield "a folder", folder
    yield "an empty file", keep("empty.jpg", b"")
    yield "text named .jpg", keep("text.jpg", b"<html>not found</html>")
    yield "JPEG without its second half", keep("half.jpg", half["jpg"][: len(half["jpg"]) // 2])
    yield "PNG without its second half", keep("half.png", half["png"][: len(half["png"]) // 2])
    yield "PNG that says 100,000 x 100,000", keep("bomb.png", _png_header(100_000, 100_000))
    yield "one pixel", keep("one.png", photo.crop((0, 0, 1, 1)))
    yield "1 x 200 pixels", keep("thin.png", photo.crop((0, 0, 1, 200)))
    yield "gray", keep("gray.png", photo.convert("L"))
    deep = Image.fromarray(small.astype(np.uint16) * 257)
    yield "16-bit gray PNG", keep("deep.png", deep)
    yield "float TIFF in [0, 1]", keep("float.tif", Image.fromarray(np.float32(small / 255)))
    wrong = np.full((200, 300), np.nan, np.float32)
    yield "float TIFF of NaN", keep("nan.tif", Image.fromarray(wrong))
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    yield "wholly transparent PNG", keep("clear.png", clear)
    yield "CMYK JPEG", keep("cmyk.jpg", photo.convert("CMYK"))
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "EXIF says it lies on its side", keep("turned.jpg", photo, exif=turned)
    frames = [photo.quantize(), photo.rotate(180).quantize()]
    yield "animated GIF", keep("moving.gif", frames[0], save_all=True, append_images=frames[1:])
    yield "PDF named .png", keep("page.png", b"%PDF-1.4\n%%EOF\n")
    yield "a name with a line feed", keep("two\nlines.png", photo)
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    yield "a named pipe", pipe
    loop = folder / "loop.jpg"
    loop.symlink_to(loop)
    yield "a link to itself", loop


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def tensors() -> Iterator[tuple[str, torch.Tensor]]:
    """Yield tensors that are no (B, 3, H, W) images in [0, 1]."""
    yield "tensor of 0 to 255", torch.rand(1, 3, 64, 64) * 255
    yield "uint8 tensor", torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    yield "NaN in a tensor", torch.full((1, 3, 64, 64), float("nan"))
    yield "infinity in a tensor", torch.full((1, 3, 64, 64), float("inf"))
    yield "tensor (3, H, W)", torch.rand(3, 64, 64)
    yield "four channels", torch.rand(1, 4, 64, 64)
    yield "empty batch", torch.rand(0, 3, 64, 64)
    yield "no height", torch.rand(1, 3, 0, 64)
    yield "values .2 outside of [0, 1]", torch.rand(1, 3, 64, 64) * 1.4 - 0.2


def checkpoints(folder: Path) -> Iterator[tuple[str, Any]]:
    """Write files that are no good weights; yield what they are, and their path."""
    bundled = next((ROOT / "lifeiqa_plugin" / "checkpoints").glob("*.safetensors")).read_bytes()
    yield "an empty path", ""
    yield "a folder", folder
    yield "a path to nothing", folder / "none.safetensors"
    cut = folder / "cut.safetensors"
    cut.write_bytes(bundled[:1000])
    yield "safetensors of 1,000 bytes", cut
    page = folder / "page.safetensors"
    page.write_bytes(b"<html>sign in</html>" * 50)
    yield "an HTML page", page
    code = folder / "code.pth"
    torch.save({"params": _Code()}, code)
    yield "a pickle that would run code", code
    other = folder / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, other)
    yield "weights of another network", other
    damaged = folder / "nan.safetensors"
    weights = load(bundled)
    weights["decoder.head.weight"] = weights["decoder.head.weight"].float().fill_(float("nan"))
    header = int.from_bytes(bundled[:8], "little")
    about = json.loads(bundled[8 : 8 + header])["__metadata__"]
    save_file(weights, damaged, about)
    yield "weights with NaN", damaged


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def commands(folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield command lines that cannot be meant so."""
    photos, table = folder / "photos", folder / "scores.csv"
    photos.mkdir()
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i,) * 3).save(photos / f"{i}.png")
    table.write_text("name,mos\n" + "".join(f"{i}.png,{i * 18}\n" for i in range(6)))
    binary = folder / "binary.yml"
    binary.write_bytes(b"\xff\xfe\x00")
    prepare = ("prepare", "folder", photos, "--scores", table, "--out", folder / "meta.csv")
    yield "lifeiqa photo.jpg", (photos / "0.png",)
    yield "lifeiqa scroe photo.jpg", ("scroe", photos / "0.png")
    yield "lifeiqa score of an empty folder", ("score", folder / "nothing")
    yield "lifeiqa score --batch-size 0", ("score", photos, "--batch-size", 0)
    yield "lifeiqa train -opt missing.yml", ("train", "-opt", folder / "missing.yml")
    yield "lifeiqa train -opt of a file that is not text", ("train", "-opt", binary)
    quick = ROOT / "options" / "train" / "quick.yml"
    yield "lifeiqa train --force_yml without =", ("train", "-opt", quick, "--force_yml", "x")
    yield "lifeiqa prepare, scores 0 to 90, --mos-range 0 50", (*prepare, "--mos-range", 0, 50)
    yield "lifeiqa prepare --mos-range 100 0", (*prepare, "--mos-range", 100, 0)
    yield "lifeiqa prepare --mos-range 5 5", (*prepare, "--mos-range", 5, 5)
    evaluate = ("evaluate", table, photos)
    yield "lifeiqa evaluate of mos 0 to 90", evaluate
    if not torch.cuda.is_available():
        yield "lifeiqa evaluate --device cuda without CUDA", (*evaluate, "--device", "cuda")
    benchmark = ("benchmark", "-o", folder / "out", "--no-speed", "-d", table)
    yield "lifeiqa benchmark of an unknown metric", (*benchmark, "-m", "piqqe")
    yield "lifeiqa benchmark -d of no csv", (*benchmark[:-1], folder / "none.csv", "-m", "piqe")
    yield "lifeiqa benchmark --sizes big", (*benchmark, "-m", "piqe", "--sizes", "big")


def try_all(folder: Path) -> dict[str, list[tuple[str, Outcome]]]:
    """Give everything above to the package; heading -> (input, outcome)."""
    network = build_lifeiqa().eval()
    metric = pyiqa.create_metric("lifeiqa", device="cpu")
    found: dict[str, list[tuple[str, Outcome]]] = {}

    def score(source: Any) -> float:
        return network(read_image(source)[None]).item()

    def call(image: torch.Tensor) -> float:
        try:
            return metric(image).mean().item()
        except (AssertionError, RuntimeError) as error:  # pyiqa's, before the network sees it
            raise ValueError(f"pyiqa: {error}") from error

    def load_and_score(path: Any) -> float:
        return build_lifeiqa(pretrained_model_path=path)(torch.rand(1, 3, 64, 64)).item()

    for name in ("images", "checkpoints", "commands"):
        (folder / name).mkdir(parents=True)
    with torch.inference_mode():
        found["Image files, `read_image` and the network"] = [
            (what, judge(lambda path=path: score(path))) for what, path in images(folder / "images")
        ]
        found["Tensors, `metric(tensor)`"] = [
            (what, judge(lambda image=image: call(image))) for what, image in tensors()
        ]
        found["Checkpoints, `pretrained_model_path`"] = [
            (what, judge(lambda path=path: load_and_score(path)))
            for what, path in checkpoints(folder / "checkpoints")
        ]
    found["Command lines"] = [
        (what, judge_command(*line)) for what, line in commands(folder / "commands")
    ]
    return found

"""Seeded mutations of image files, option values, csvs and checkpoints, and what comes of them."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from outcomes import Outcome, judge, judge_command
from PIL import Image
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.config import option_names
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training.options import read_options

TINY: dict[str, Any] = {
    "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2, "depth": 1, "num_experts": 2,
    "crop_size": 32, "working_size": 48,
}  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 2**63, -(2**63), 0.5, -0.5, 1e300, float("nan"), float("inf"), "", "x",
    "torch", "fixed", "hf-hub:x/y", "é" * 40, [], [0], [1, 0], [0.0, 1.0], [0, 1, 2], {}, {"a": 1}, (),
    ["a", "a"],
]  # fmt: skip
"""What an option may be given by mistake."""


def build_tiny() -> LifeIQA:
    """Return the network that scores what is fuzzed, always the same."""
    torch.manual_seed(0)
    return build_lifeiqa(pretrained=False, **TINY).eval()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change bytes, cut, repeat, insert or blank a part of a file."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice([1, 1, 2, 4, 16, 64])
        part = slice(at, at + length)
        kind = rng.randrange(7)
        if kind == 0:
            changed[part] = rng.randbytes(len(changed[part]))
        elif kind == 1:
            changed[part] = bytes(len(changed[part]))
        elif kind == 2:
            changed[part] = b"\xff" * len(changed[part])
        elif kind == 3:
            del changed[part]
        elif kind == 4:
            changed[at:at] = rng.randbytes(length)
        elif kind == 5:
            changed[at:at] = changed[part]
        else:
            del changed[at:]
    return bytes(changed)


def image_files() -> list[bytes]:
    """Return one small file of each kind that Pillow writes and people have."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    kinds = [
        *((image, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")),
        (image.convert("RGBA"), "PNG"), (image.convert("P"), "PNG"), (image.convert("CMYK"), "JPEG"),
        (image.convert("CMYK"), "TIFF"), (image.convert("L"), "JPEG2000"),
        (Image.fromarray(rng.integers(0, 65536, (40, 48), dtype=np.uint16)), "PNG"),
        (Image.fromarray(rng.random((40, 48), dtype=np.float32)), "TIFF"),
    ]  # fmt: skip
    files = []
    for picture, name in kinds:
        file = io.BytesIO()
        picture.save(file, name)
        files.append(file.getvalue())
    return files


def fuzz_images(rng: random.Random, folder: Path) -> Iterator[Callable[[], Outcome]]:
    """Mutated image files, decoded and scored."""
    files, network = image_files(), build_tiny()

    def score(data: bytes) -> float:
        with torch.inference_mode():
            return network(read_image(data)[None]).item()

    while True:
        data = mutate(rng.choice(files), rng)
        yield lambda data=data: judge(lambda: score(data))


def fuzz_options(rng: random.Random, folder: Path) -> Iterator[Callable[[], Outcome]]:
    """One or two wrong values for the network, and changed option files of training."""
    image, names = torch.rand(1, 3, 40, 48), option_names()
    shipped = sorted((Path(__file__).parents[1] / "options" / "train").rglob("*.yml"))
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in shipped]

    def score(changes: dict[str, Any]) -> float:
        with torch.inference_mode():
            return build_lifeiqa(pretrained=False, **TINY | changes).eval()(image).item()

    def read(options: Any) -> None:
        path = folder / "options.yml"
        path.write_text(yaml.safe_dump(options), encoding="utf-8")
        read_options(path)

    while True:
        if rng.random() < 0.5:
            changes = {rng.choice(names): rng.choice(VALUES) for _ in range(rng.choice([1, 1, 2]))}
            yield lambda changes=changes: judge(lambda: score(changes))
        else:
            options = copy.deepcopy(rng.choice(files))
            for _ in range(rng.choice([1, 1, 3])):
                change_leaf(options, rng)
            yield lambda options=options: judge(lambda: read(options))


def change_leaf(tree: Any, rng: random.Random) -> None:
    """Give a value somewhere in nested dicts another one, take its key away, or misspell it."""
    while True:
        key = rng.choice(sorted(tree, key=str))
        if isinstance(tree[key], dict) and tree[key] and rng.random() < 0.8:
            tree = tree[key]
            continue
        kind = rng.randrange(3)
        if kind == 0:
            value = rng.choice(VALUES)
            tree[key] = list(value) if isinstance(value, tuple) else value
        elif kind == 1 and len(tree) > 1:
            del tree[key]
        else:
            tree[f"{key}s"] = tree.pop(key)
        return


def fuzz_tables(rng: random.Random, folder: Path) -> Iterator[Callable[[], Outcome]]:
    """Mutated csvs of scores, given to ``lifeiqa prepare folder``; what it writes must lie in [0, 1]."""
    table = "name,mos\n" + "".join(f"{i}.png,{i * 11.5}\n" for i in range(8))
    for i in range(8):
        Image.new("RGB", (40, 40), (i * 30,) * 3).save(folder / f"{i}.png")
    scores, out = folder / "scores.csv", folder / "meta.csv"

    def prepare(content: bytes, options: tuple[str, ...]) -> Outcome:
        scores.write_bytes(content)
        out.unlink(missing_ok=True)
        outcome = judge_command("prepare", "folder", folder, "--out", out, *options)
        if outcome.kind == "accepted":
            lines = out.read_text(encoding="utf-8").splitlines()[1:]
            mos = [float(line.split(",")[-_columns(out)]) for line in lines]
            if not all(0 <= value <= 1 for value in mos):
                return Outcome("not finite", f"mos {mos}")
        return outcome

    ranges = [
        (),
        ("--mos-range", "0", "100"),
        ("--mos-range", "0", "50"),
        ("--mos-range", "9", "1"),
    ]
    while True:
        content, options = table.encode(), rng.choice(ranges)
        if rng.random() < 0.5:
            content = mutate(content, rng)
        else:
            cells = [line.split(",") for line in table.splitlines()]
            wrong = [
                "",
                "nan",
                "inf",
                "-5",
                "1e400",
                "x",
                '"',
                "é",
                "../0.png",
                "0.png",
                "90",
                " 3 ",
            ]
            rng.choice(cells)[rng.randrange(2)] = rng.choice(wrong)
            content = "\n".join(",".join(cell) for cell in cells).encode()
        yield lambda content=content, options=options: prepare(content, options)


def _columns(path: Path) -> int:
    """Return how far from the end the column mos stands, as names may hold commas."""
    header = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    return len(header) - header.index("mos")


def fuzz_checkpoints(rng: random.Random, folder: Path) -> Iterator[Callable[[], Outcome]]:
    """Mutated safetensors, torch files and metadata, loaded and used for one image."""
    network, image = build_tiny(), torch.rand(1, 3, 40, 48)
    ours, theirs = folder / "ours.safetensors", folder / "theirs.pth"
    save_checkpoint(network, ours, ModelCard(training_data="none", license="none"))
    torch.save({"params": network.state_dict()}, theirs)
    kept, path = [ours.read_bytes(), theirs.read_bytes()], folder / "mutated.safetensors"
    header = json.loads(kept[0][8 : 8 + int.from_bytes(kept[0][:8], "little")])
    about = json.loads(header["__metadata__"]["lifeiqa"])
    tensors = load_safetensors(kept[0])

    def score(content: bytes, is_torch: bool) -> float:
        path.write_bytes(content)
        options = TINY if is_torch else {}
        with torch.inference_mode():
            loaded = build_lifeiqa(pretrained_model_path=path, **options).eval()
            return loaded(image).item()

    while True:
        which = rng.randrange(3)
        if which < 2:
            start = 0 if rng.random() < 0.3 else None
            content = _mutate_head(kept[which], rng) if start == 0 else mutate(kept[which], rng)
        else:
            changed = copy.deepcopy(about)
            section = changed if rng.random() < 0.3 else changed["config"]
            section[rng.choice(sorted(section))] = rng.choice(VALUES)
            content = save_safetensors(tensors, {"lifeiqa": json.dumps(changed)})
        yield lambda content=content, t=which == 1: judge(lambda: score(content, t))


def _mutate_head(data: bytes, rng: random.Random) -> bytes:
    """Change the first kilobytes only, where a file says what it holds."""
    return mutate(data[:4096], rng) + data[4096:]


FUZZERS = {
    "image files": fuzz_images,
    "option values": fuzz_options,
    "csvs": fuzz_tables,
    "checkpoints": fuzz_checkpoints,
}


def fuzz(kind: str, count: int, seed: int, folder: Path) -> list[Outcome]:
    """Return what came of ``count`` mutations of one kind."""
    folder.mkdir(parents=True)
    cases = FUZZERS[kind](random.Random(seed), folder)
    return [next(cases)() for _ in range(count)]

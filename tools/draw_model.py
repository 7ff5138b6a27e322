"""Draw the model with the shapes that its own code passes on, for docs/tour.md.

    python tools/draw_model.py docs/figures/model.svg

One image of 768 x 512 passes the bundled network; hooks note what each part returns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SIZE = (512, 768)
BOX = {"boxstyle": "round,pad=0,rounding_size=0.05", "fc": "#f7f7f5", "ec": "#d9dad6"}


class Step(NamedTuple):
    """A box of the figure."""

    title: str
    says: str
    shapes: str
    parameters: int


def shape_of(value: Any) -> str:
    """Return the shape of a tensor, or those of several."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape))
    return ", ".join(shape_of(part) for part in value if isinstance(part, Tensor))


def trace(network: LifeIQA) -> list[Step]:
    """Run one image and return what each part makes of it, in data order."""
    seen: dict[nn.Module, str] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output  # layers give attention as well
        seen[module] = shape_of(tokens)

    decoder = network.decoder
    parts = [
        network.backbone,
        decoder.context,
        decoder.memory,
        *decoder.layers,
        decoder.moe,
        decoder.head,
    ]
    hooks = [part.register_forward_hook(note) for part in parts]
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            output = network(image, return_details=True)
    finally:
        for hook in hooks:
            hook.remove()
    working = to_working_size(image, network.crop_size, network.working_size)
    crops = "x".join(map(str, (len(output.crop_offsets), 3, *output.crop_shape)))
    last = decoder.layers[-1]

    def step(title: str, says: str, *modules: nn.Module, shapes: str | None = None) -> Step:
        count = sum(p.numel() for module in modules for p in module.parameters())
        return Step(title, says, seen[modules[-1]] if shapes is None else shapes, count)

    return [
        step("image", "any size", shapes=shape_of(image)),
        step(
            "working size", f"shorter side at most {network.working_size}", shapes=shape_of(working)
        ),
        step("crops", "or the whole image", shapes=crops),
        step("backbone", "stage3 and stage4", network.backbone),
        step("memory", "stage3 on a grid", decoder.memory),
        step("queries", "learned, plus the mean of stage4", decoder.context, shapes=seen[last]),
        step(
            f"{len(decoder.layers)} interaction layers",
            "talk (GCN), then look (attention)",
            *decoder.layers,
        ),
        step(
            f"{network.config['num_experts']} experts",
            f"{network.config['top_k']} of them answer each query",
            decoder.moe,
        ),
        step("head", "one score per query", decoder.head),
        step("score", "mean over queries and crops", shapes=shape_of(output.score)),
    ]


def draw(steps: list[Step], path: Path) -> None:
    """Write the boxes from left to right, in two rows."""
    columns = (len(steps) + 1) // 2
    with matplotlib.rc_context({"svg.hashsalt": "lifeiqa", "font.size": 8}):
        figure = Figure(figsize=(11, 2.9))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_xlim(0, columns)
        axis.set_ylim(0, 2)
        for i, step in enumerate(steps):
            x, y = i % columns + 0.5, 1.5 - i // columns
            size = f"\n{step.parameters:,} parameters" if step.parameters else "\n"
            axis.add_patch(FancyBboxPatch((x - 0.45, y - 0.4), 0.9, 0.8, **BOX))
            axis.text(x, y + 0.2, step.title, ha="center", va="center", fontsize=10, weight="bold")
            axis.text(x, y + 0.03, step.says, ha="center", va="center", color="#2b6cb0", fontsize=7)
            axis.text(x, y - 0.2, f"{step.shapes}{size}", ha="center", va="center", color="#444444")
            if i % columns < columns - 1:
                axis.annotate("", (x + 0.56, y), (x + 0.44, y), arrowprops={"arrowstyle": "->"})
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Draw, and print the same as a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="figure to write, .svg or .png")
    parser.add_argument("--checkpoint", type=Path, help="default: the weights that ship")
    args = parser.parse_args()
    steps = trace(build_lifeiqa(pretrained_model_path=args.checkpoint).eval())
    draw(steps, args.out)
    print("| part | does | gives | parameters |\n|---|---|---|---|")
    for step in steps:
        print(f"| {step.title} | {step.says} | {step.shapes} | {step.parameters:,} |")


if __name__ == "__main__":
    main()

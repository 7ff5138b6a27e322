"""Climb the score by changing pixels, and see that the picture gets no better for it.

    python examples/gradient_ascent.py photo.jpg -o ascent.png

A metric that has a gradient can be used as a loss, and can be fooled as any network can: a change too small to see
raises the score of a bad picture. The plot shows the climb beside what exposes it: the score of the same pixels saved
as JPEG, which drops part of the change, what the other bundled model says, and how far the pixels have moved. With
``--original``, the photo before it was spoilt, the last line says whether the climb brought the picture any nearer to
it (PSNR). Take the score as a loss only beside another one that holds the picture in place, and judge the result by
eye or with another metric.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import lifeiqa_plugin
from lifeiqa_plugin.images.reading import read_image


class Climb(NamedTuple):
    """The scores on the way up, and where it ended."""

    scores: list[float]
    scores_as_jpeg: list[float]
    scores_of_another: list[float]
    result: Tensor  # (3, H, W)


def climb(network: nn.Module, another: nn.Module, image: Tensor, steps: int, rate: float) -> Climb:
    """Change an image (3, H, W) by ``rate`` per pixel and step, in the direction in which ``network``'s score rises."""
    x = image[None].clone()
    scores, as_jpeg, others = [], [], []
    for step in range(steps + 1):
        x.requires_grad_()
        score = network(x)
        scores.append(score.item())
        with torch.no_grad():
            as_jpeg.append(network(through_jpeg(x[0])[None]).item())
            others.append(another(x).item())
        if step < steps:
            (gradient,) = torch.autograd.grad(score.sum(), x)
            x = (x.detach() + rate * gradient.sign()).clamp(0, 1)
    return Climb(scores, as_jpeg, others, x.detach()[0])


def psnr(first: Tensor, second: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in decibels."""
    return -10 * (first - second).square().mean().log10().item()


def through_jpeg(image: Tensor) -> Tensor:
    """Save (3, H, W) as JPEG of quality 90 and read it again."""
    file = io.BytesIO()
    to_picture(image).save(file, "JPEG", quality=90)
    return read_image(file.getvalue())


def to_picture(image: Tensor) -> Image.Image:
    """Round (3, H, W) in [0, 1] to 8 bits."""
    return Image.fromarray((image.detach() * 255).round().byte().permute(1, 2, 0).numpy())


def draw(image: Tensor, climbed: Climb, path: Path) -> None:
    """Write the curves beside the picture before, after, and the difference, enlarged."""
    change = climbed.result - image
    rms = change.square().mean().sqrt().item() * 255
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        curve, *pictures = figure.subplots(1, 4, width_ratios=[1.4, 1, 1, 1])
        curve.plot(climbed.scores, label="score while climbing")
        curve.plot(climbed.scores_as_jpeg, "--", label="the same, saved as JPEG 90")
        curve.plot(climbed.scores_of_another, ":", label="what the other model says")
        curve.set_xlabel("step")
        curve.set_ylabel("score")
        curve.legend()
        titles = [
            f"before: {climbed.scores[0]:.3f}",
            f"after: {climbed.scores[-1]:.3f}",
            f"what was changed, x 20\n(rms {rms:.1f} of 255)",
        ]
        shown = [image, climbed.result, (0.5 + 20 * change).clamp(0, 1)]
        for axis, title, picture in zip(pictures, titles, shown, strict=True):
            axis.imshow(to_picture(picture))
            axis.set_title(title)
            axis.set_axis_off()
        figure.savefig(path, dpi=160)


def main(arguments: Sequence[str] | None = None) -> None:
    """Climb and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="plot to write, png or svg")
    parser.add_argument("--steps", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=0.5 / 255, help="default: half a gray level")
    parser.add_argument("--original", type=Path, help="the photo before it was spoilt")
    args = parser.parse_args(arguments)
    image = read_image(args.photo)
    network = lifeiqa_plugin.build_lifeiqa().eval()
    another = lifeiqa_plugin.build_lifeiqa(pretrained="biq2021").eval()
    climbed = climb(network, another, image, args.steps, args.rate)
    draw(image, climbed, args.out)
    print(
        f"{args.photo}: {climbed.scores[0]:.3f} -> {climbed.scores[-1]:.3f}; saved as JPEG "
        f"{climbed.scores_as_jpeg[0]:.3f} -> {climbed.scores_as_jpeg[-1]:.3f}; the other model "
        f"{climbed.scores_of_another[0]:.3f} -> {climbed.scores_of_another[-1]:.3f}. See {args.out}."
    )
    if args.original:
        original = read_image(args.original)
        before, after = psnr(image, original), psnr(climbed.result, original)
        print(f"PSNR to {args.original}: {before:.2f} -> {after:.2f} dB")


if __name__ == "__main__":
    main()

"""Do the experts specialize, and do the queries look at different places? Counted, and tested against chance.

    python examples/expert_specialization.py PHOTOS -o experts.png

Every photo of the folder, best clean ones, is distorted in all ways. Mutual information says how far the row of a table
of shares tells the column. A permutation test on it says whether rows that are shuffled within each image, or
distortions within each photo, do as well. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import lifeiqa_plugin
from lifeiqa_plugin.distortions.synthetic import HELD_OUT, TRAINED
from lifeiqa_plugin.explanation import dense
from lifeiqa_plugin.images.folders import find_images
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.words import by_ninth

Doubles = NDArray[np.float64]

ALPHA = 0.01
"""Chance below which a finding is not put down to chance."""

NOTABLE = 0.05
"""Share of the columns' entropy that is worth a word; with enough images anything is "significant"."""

SEVERITY = 0.6
"""Of the distortions."""

PLACES = [f"{row} {side}" for row in ("top", "middle", "bottom") for side in ("left", "", "right")]
"""P ninths of an image. Other letters in shapes: I images, Q queries, E experts."""


class Use(NamedTuple):
    """What one image used; each row sums to 1."""

    experts: Doubles  # (Q, E)
    places: Doubles  # (Q, P) of the attention
    experts_by_place: Doubles  # (P, E)


class Finding(NamedTuple):
    """One table of shares, whose rows sum to 1, and what chance says of it."""

    question: str
    rows: list[str]
    columns: list[str]
    table: Doubles
    explained: float  # mutual information as a share of the entropy of the columns, 0 to 1
    p_value: float

    @property
    def sentence(self) -> str:
        """What was found, also when it is nothing."""
        numbers = f"({self.explained:.1%} of the columns' entropy, p = {self.p_value:.4f})"
        if self.p_value >= ALPHA:
            return f"{self.question} No: no more than chance would give {numbers}."
        if self.explained < NOTABLE:
            return f"{self.question} Hardly: more than chance, but very little {numbers}."
        return f"{self.question} Yes {numbers}."


@torch.no_grad()
def use_of(network: LifeIQA, image: Tensor) -> Use:
    """Return which experts and places a network in evaluation mode uses on an image (3, H, W)."""
    x = to_working_size(image[None], network.crop_size, network.working_size)
    output = network(x, return_details=True)
    (windows,) = dense.score_all_windows(network, x, dense.WINDOW_SIZES[:1])
    shape = (x.shape[-2], x.shape[-1])
    last_layer = output.attention[0, :, -1:]
    offsets, crop_shape = output.crop_offsets, output.crop_shape
    places = by_ninth(dense.attention_to_pixels(last_layer, offsets, crop_shape, shape)[0])
    return Use(
        output.gates[0].double().mean(0).numpy(),
        places / places.sum(1, keepdims=True),
        by_ninth(dense.to_map(windows, windows.gates, *shape)).T,
    )


def mutual_information(joint: Doubles) -> float:
    """Return the mutual information in bits of a table of shares that sum to 1."""
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / outer[there])).sum())


def compare_rows(
    question: str, values: Doubles, rows: list[str], columns: list[str], rounds: int
) -> Finding:
    """Test whether the R rows of tables (I, R, K) differ, against rows shuffled within each table."""
    generator = np.random.default_rng(0)
    joint = values.mean(0) / len(rows)
    information = mutual_information(joint)
    as_high = 0
    for _ in range(rounds):
        order = np.broadcast_to(np.arange(len(rows)), values.shape[:2])
        order = generator.permuted(order, axis=1)[..., None]
        shuffled = np.take_along_axis(values, order, axis=1).mean(0) / len(rows)
        as_high += mutual_information(shuffled) >= information - 1e-12
    entropy = mutual_information(np.diag(joint.sum(0)))  # of the columns
    explained = information / entropy if entropy > 0 else 0.0
    p_value = (1 + as_high) / (1 + rounds)
    return Finding(question, rows, columns, joint * len(rows), explained, p_value)


def find_all(uses: Sequence[Use], kinds: list[str], rounds: int) -> list[Finding]:
    """Answer the five questions; ``uses`` has each photo with every one of ``kinds`` in turn."""
    experts, places, by_place = (np.stack(values) for values in zip(*uses, strict=True))
    expert_names = [f"expert {i + 1}" for i in range(experts.shape[2])]
    query_names = [f"query {i + 1}" for i in range(experts.shape[1])]
    experts_by_kind = experts.mean(1).reshape(-1, len(kinds), len(expert_names))
    places_by_kind = places.mean(1).reshape(-1, len(kinds), len(PLACES))
    return [
        compare_rows(question, values, rows, columns, rounds)
        for question, values, rows, columns in (
            ("Do the experts specialize in distortions?", experts_by_kind, kinds, expert_names),
            ("Does where the queries look depend on it?", places_by_kind, kinds, PLACES),
            ("Do different queries use different experts?", experts, query_names, expert_names),
            ("Do different queries look at different places?", places, query_names, PLACES),
            ("Do different places use different experts?", by_place, PLACES, expert_names),
        )
    ]


def draw(findings: Sequence[Finding], path: Path) -> None:
    """Write one heat map per finding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 * len(findings)), layout="constrained")
    for axis, finding in zip(figure.subplots(len(findings), 1), findings, strict=True):
        shown = axis.imshow(finding.table, cmap="cividis", vmin=0, aspect="auto")
        axis.set_title("\n".join(textwrap.wrap(finding.sentence, 90)), fontsize=9)
        axis.set_xticks(range(len(finding.columns)), finding.columns)
        axis.set_yticks(range(len(finding.rows)), finding.rows)
        figure.colorbar(shown, ax=axis, label="share of the row")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Distort the photos, look at all, print one sentence per question, draw the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="figure to write, png or svg")
    parser.add_argument("--limit", type=int, default=10, help="photos (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=999, help="of shuffling (default: 999)")
    args = parser.parse_args(arguments)
    network = lifeiqa_plugin.build_lifeiqa().eval()
    distortions = TRAINED | HELD_OUT
    uses = []
    for path in tqdm(find_images(args.photos)[: args.limit], unit="photo"):
        image = lifeiqa_plugin.read_image(path)
        uses.append(use_of(network, image))
        for distort in distortions.values():
            distorted = distort(image, SEVERITY, torch.Generator().manual_seed(0))
            uses.append(use_of(network, distorted))
    found = find_all(uses, ["none", *distortions], args.rounds)
    for finding in found:
        print(finding.sentence)
    draw(found, args.out)


if __name__ == "__main__":
    main()

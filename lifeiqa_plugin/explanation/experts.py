"""Do the experts specialise, and do the queries look at different places? Counted, and tested against chance.

What is counted are tables of shares: how much of the answers to images with one distortion comes from each expert, how
much of a query's attention goes to each place. Mutual information says how far knowing the row tells the column; the
permutation test (as in Fisher's exact test, on that statistic) says whether shuffled labels would do as well.

Letters in shapes: I images, G labels, Q queries, E experts, P places (a 3 x 3 grid).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lifeiqa_plugin.explanation.dense import VIEWS, attention_to_pixels, by_ninth, spread
from lifeiqa_plugin.explanation.explain import look
from lifeiqa_plugin.network.crops import to_working_size
from lifeiqa_plugin.network.evaluating import evaluating
from lifeiqa_plugin.network.lifeiqa import LifeIQA

Doubles = NDArray[np.float64]

ALPHA = 0.01
"""Chance below which a finding is not put down to chance."""

NOTABLE = 0.05
"""Share of the columns' entropy that the rows must explain to be worth a word; with enough images anything is
"significant"."""

PLACES = [
    f"{row} {column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "centre", "right")
]


class Use(NamedTuple):
    """What one image used."""

    experts: Doubles  # (Q, E), a row sums to 1
    places: Doubles  # (Q, P) of the attention, a row sums to 1
    experts_by_place: Doubles  # (P, E), a row sums to 1


def use_of(network: LifeIQA, image: Tensor) -> Use:
    """Return which experts and places the network uses on an image (3, H, W)."""
    device = next(network.parameters()).device
    with evaluating(network):
        x = to_working_size(image[None].to(device), network.crop_size, network.working_size)
        output, (windows,) = look(network, x, VIEWS[:1])
    shape = (x.shape[-2], x.shape[-1])
    attention = attention_to_pixels(
        output.attention[0, :, -1:], output.crop_offsets, output.crop_shape, shape
    )[0]
    gates = spread(windows, windows.gates, *shape)
    places = by_ninth(attention)
    return Use(
        output.gates[0].double().mean(0).numpy(force=True),
        places / places.sum(1, keepdims=True),
        by_ninth(gates).T,
    )


@dataclass(frozen=True)
class Finding:
    """One table of shares and what chance says of it."""

    question: str
    rows: list[str]
    columns: list[str]
    table: Doubles
    """(rows, columns), each row sums to 1."""
    information: float
    """Mutual information in bits."""
    explained: float
    """The same as a share of the entropy of the columns, 0 to 1."""
    p_value: float

    @property
    def sentence(self) -> str:
        """What was found, also when it is nothing."""
        numbers = f"{self.explained:.1%} of the columns' entropy, p = {self.p_value:.4f}"
        if self.p_value >= ALPHA:
            return f"{self.question} No: no more than chance would give ({numbers})."
        if self.explained < NOTABLE:
            return f"{self.question} Hardly: more than chance, but very little ({numbers})."
        return f"{self.question} Yes ({numbers})."


def mutual_information(joint: Doubles) -> float:
    """Return the mutual information in bits of a table (rows, columns) of shares that sum to 1."""
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / outer[there])).sum())


def entropy(shares: Doubles) -> float:
    """Return the entropy in bits of shares that sum to 1."""
    there = shares > 0
    return float(-(shares[there] * np.log2(shares[there])).sum())


def compare_labels(
    question: str,
    values: Doubles,
    labels: Sequence[str],
    blocks: Sequence[str],
    columns: list[str],
    rounds: int,
    seed: int = 0,
) -> Finding:
    """Test whether the shares of images (I, K) depend on their labels; labels are shuffled within blocks.

    Args:
        question: to be answered.
        values: shares, each row sums to 1.
        labels: of the images.
        blocks: of the images; versions of one photo are a block, so that its content explains nothing.
        columns: K names.
        rounds: permutations.
        seed: of the permutations.
    """
    names = sorted(set(labels))
    index = np.array([names.index(label) for label in labels])
    members = [np.flatnonzero(np.array(blocks) == block) for block in dict.fromkeys(blocks)]

    def shuffle(generator: np.random.Generator) -> Doubles:
        shuffled = index.copy()
        for block in members:
            shuffled[block] = generator.permutation(index[block])
        return _joint(values, shuffled, len(names))

    return _test(question, names, columns, _joint(values, index, len(names)), shuffle, rounds, seed)


def compare_rows(
    question: str, values: Doubles, rows: list[str], columns: list[str], rounds: int, seed: int = 0
) -> Finding:
    """Test whether the rows of tables (I, R, K) differ; the rows of each image are shuffled."""

    def shuffle(generator: np.random.Generator) -> Doubles:
        return generator.permuted(np.broadcast_to(np.arange(len(rows)), values.shape[:2]), axis=1)[
            ..., None
        ]

    def joint_of(order: Doubles) -> Doubles:
        table: Doubles = np.take_along_axis(values, order.astype(int), axis=1).mean(0) / len(rows)
        return table

    observed = values.mean(0) / len(rows)
    return _test(
        question,
        rows,
        columns,
        observed,
        lambda generator: joint_of(shuffle(generator)),
        rounds,
        seed,
    )


def _joint(values: Doubles, index: NDArray[np.intp], count: int) -> Doubles:
    joint = np.zeros((count, values.shape[1]))
    np.add.at(joint, index, values)
    share: Doubles = joint / joint.sum()
    return share


def _test(
    question: str,
    rows: list[str],
    columns: list[str],
    joint: Doubles,
    shuffle: Callable[[np.random.Generator], Doubles],
    rounds: int,
    seed: int,
) -> Finding:
    information = mutual_information(joint)
    generator = np.random.default_rng(seed)
    as_high = sum(
        mutual_information(shuffle(generator)) >= information - 1e-12 for _ in range(rounds)
    )
    whole = entropy(joint.sum(0))
    return Finding(
        question,
        rows,
        columns,
        joint / joint.sum(1, keepdims=True),
        information,
        information / whole if whole > 0 else 0.0,
        (1 + as_high) / (1 + rounds),
    )


def findings(
    uses: Sequence[Use], labels: Sequence[str], blocks: Sequence[str], rounds: int = 999
) -> list[Finding]:
    """Answer the five questions; those on labels only if there are at least two.

    Args:
        uses: of I images.
        labels: their distortions.
        blocks: the photo of which each is a version, or its own name.
        rounds: permutations of each test; the smallest p-value is 1 / (rounds + 1).
    """
    experts = np.stack([use.experts for use in uses])  # (I, Q, E)
    places = np.stack([use.places for use in uses])  # (I, Q, P)
    by_place = np.stack([use.experts_by_place for use in uses])  # (I, P, E)
    expert_names = [f"expert {i + 1}" for i in range(experts.shape[2])]
    query_names = [f"query {i + 1}" for i in range(experts.shape[1])]
    found = []
    if len(set(labels)) > 1:
        for question, values, columns in (
            ("Do the experts specialise in distortions?", experts.mean(1), expert_names),
            ("Does where the queries look depend on the distortion?", places.mean(1), PLACES),
        ):
            found.append(compare_labels(question, values, labels, blocks, columns, rounds))
    for question, values, rows, columns in (
        ("Do different queries use different experts?", experts, query_names, expert_names),
        ("Do different queries look at different places?", places, query_names, PLACES),
        ("Do different places use different experts?", by_place, PLACES, expert_names),
    ):
        found.append(compare_rows(question, values, rows, columns, rounds))
    return found

"""Whether people's scores lie where a network's scores can."""

from __future__ import annotations

from collections.abc import Sequence


def check_mos_range(
    mos: Sequence[float], score_range: tuple[float, float] | None, where: str
) -> None:
    """See that a network can give the scores that it is to learn, or is compared with.

    Args:
        mos: people's scores, as the network would have to give them.
        score_range: lowest and highest score of the network; None for one without limits, which takes any.
        where: what an error calls the dataset.

    Raises:
        ValueError: some lie outside the range; names both ranges, and what to do.
    """
    if score_range is None or not len(mos):
        return
    low, high = score_range
    if min(mos) < low or max(mos) > high:
        raise ValueError(
            f"{where}: mos goes from {min(mos):g} to {max(mos):g}, but the network's scores from {low:g} (worst) to "
            f"{high:g} (best); write the csv with lifeiqa prepare folder FOLDER --mos-range LOW HIGH, or in an option "
            "file give the dataset mos_normalize: true, mos_range: [LOW, HIGH] and lower_better: true or false"
        )

"""All statistics: correlations, RMSE, fitted curves, bootstrap intervals, significance; one definition of each.

Scores come with the metric's direction applied, so that a metric that works has positive correlations and one that is
sign-inverted negative ones.

References:
    Logistic curves: VQEG's final report on full-reference television (2000), and Sheikh, Sabir and Bovik (2006).
    Williams' t: Steiger, Tests for comparing elements of a correlation matrix (1980), equation 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, rankdata, t

Floats = NDArray[np.float64]

STATISTICS = (
    "srcc",
    "plcc",
    "krcc",
    "plcc_logistic4",
    "plcc_logistic5",
    "rmse_logistic4",
    "rmse_logistic5",
)
"""What :func:`measure` returns with fitted curves; without, the first three."""

CORRELATIONS = STATISTICS[:3]

METRICS = ("srcc", "plcc", "krcc", "rmse")
"""What :func:`correlations` returns."""

ENOUGH = 10
"""Images below which no curve of up to five parameters is fitted."""

MOST_EVALUATIONS = 400
"""Steps after which a fit is stopped: few images hardly determine a curve, and its fit would creep."""

MOST_IN_BOOTSTRAP = 60
"""The same for a fit to a bootstrap sample, which starts at the curve of all images."""


class Interval(NamedTuple):
    """A value and its bootstrap 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def logistic4(z: Floats, p: Floats) -> Floats:
    """Return the 4-parameter curve, low + range / (1 + exp(-(z - middle) / width)), rising for all p (4,)."""
    y: Floats = p[0] + _exp(p[1]) * expit((z - p[2]) * _exp(p[3]))
    return y


def logistic5(z: Floats, p: Floats) -> Floats:
    """Return the 5-parameter curve, range (1/2 - 1 / (1 + exp(slope (z - middle)))) + tilt z + level, rising too."""
    y: Floats = _exp(p[0]) * (expit((z - p[1]) * _exp(p[2])) - 0.5) + _exp(p[3]) * z + p[4]
    return y


def logistic4_slopes(z: Floats, p: Floats) -> Floats:
    """Return the derivatives of :func:`logistic4` by each of its parameters, (N, 4)."""
    height, steepness = _exp(p[1]), _exp(p[3])
    shape = expit((z - p[2]) * steepness)
    slope = height * shape * (1 - shape) * steepness
    return np.stack([np.ones_like(z), height * shape, -slope, slope * (z - p[2])], axis=1)


def logistic5_slopes(z: Floats, p: Floats) -> Floats:
    """Return the derivatives of :func:`logistic5` by each of its parameters, (N, 5)."""
    height, steepness = _exp(p[0]), _exp(p[2])
    shape = expit((z - p[1]) * steepness)
    slope = height * shape * (1 - shape) * steepness
    tilt = _exp(p[3]) * z
    by = [height * (shape - 0.5), -slope, slope * (z - p[1]), tilt, np.ones_like(z)]
    return np.stack(by, axis=1)


def _exp(value: float) -> float:
    return math.exp(min(value, 20.0))  # beyond that the curve is straight in double precision


class Shape(NamedTuple):
    """A kind of curve: its function, the derivatives, and where fits start, for values of mean 0 and deviation 1."""

    function: Callable[[Floats, Floats], Floats]
    slopes: Callable[[Floats, Floats], Floats]
    starts: tuple[tuple[float, ...], ...]


CURVES = {
    "logistic4": Shape(
        logistic4, logistic4_slopes, ((-2, 1.4, 0, 0), (-3, 1.8, 0, -0.7), (-1.5, 1.1, 0, 1))
    ),
    "logistic5": Shape(
        logistic5, logistic5_slopes, ((1, 0, 0, -2, 0), (-2, 0, 0, 0, 0), (0.5, 0, 1.5, -3, 0))
    ),
}


@dataclass(frozen=True)
class Curve:
    """A fitted curve from scores to opinion scores; it rises, or falls where their PLCC is negative.

    ``has_converged`` is False where the fit was stopped; the curve is then the best that it had found.
    """

    kind: str
    parameters: Floats
    centre: float
    spread: float
    level: float
    scale: float
    has_converged: bool = True

    def __call__(self, scores: Floats) -> Floats:
        """Return the opinion scores that the curve predicts."""
        z = (scores - self.centre) / self.spread
        return self.level + self.scale * CURVES[self.kind].function(z, self.parameters)


def fit(kind: str, scores: Floats, mos: Floats, start: Curve | None = None) -> Curve | None:
    """Fit a monotone curve by least squares.

    Args:
        kind: key of ``CURVES``.
        scores: (N,).
        mos: (N,).
        start: a curve of the same kind near the solution; without, the best of several fits is taken.

    Returns:
        The curve; None for fewer than ``ENOUGH`` images or constant values.
    """
    if len(scores) < ENOUGH or np.ptp(scores) == 0 or np.ptp(mos) == 0:
        return None
    sign = 1.0 if _pearson(scores, mos) >= 0 else -1.0
    centre, spread, level, scale = scores.mean(), sign * scores.std(), mos.mean(), mos.std()
    z, y = (scores - centre) / spread, (mos - level) / scale
    shape = CURVES[kind]
    fits = [
        least_squares(
            lambda p: shape.function(z, p) - y,
            first,
            jac=lambda p: shape.slopes(z, p),
            method="lm",
            x_scale="jac",
            xtol=1e-6,
            ftol=1e-8,
            gtol=1e-15,
            max_nfev=MOST_EVALUATIONS if start is None else MOST_IN_BOOTSTRAP,
        )
        for first in (shape.starts if start is None else (start.parameters,))
    ]
    best = min(fits, key=lambda found: found.cost)
    return Curve(
        kind,
        best.x,
        float(centre),
        float(spread),
        float(level),
        float(scale),
        has_converged=best.status > 0,
    )


def correlations(scores: ArrayLike, mos: ArrayLike) -> dict[str, float]:
    """Return SRCC, PLCC, KRCC and RMSE of scores (N,) as they are; a correlation of constant values is NaN.

    Raises:
        ValueError: fewer than two images, or not as many scores as opinion scores.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"expected scores (N,) and as many of people, got {x.shape} and {y.shape}")
    if len(x) < 2:
        raise ValueError(f"correlations need at least 2 images, got {len(x)}")
    found = dict.fromkeys(METRICS, float("nan"))
    found["rmse"] = float(np.sqrt(np.mean((x - y) ** 2)))
    if np.ptp(x) and np.ptp(y):
        found |= dict(zip(CORRELATIONS, _correlate(x, y), strict=True))
    return found


def _correlate(x: Floats, y: Floats) -> list[float]:
    """Return SRCC, PLCC and KRCC of values that vary."""
    return [_rank_correlation(x, y), _pearson(x, y), float(kendalltau(x, y).statistic)]


def statistics(
    scores: Floats, mos: Floats, curves: dict[str, Curve | None] | None = None
) -> Floats:
    """Return the values of ``STATISTICS``, or of ``CORRELATIONS`` where ``curves`` is None.

    A fitted PLCC has the sign of the unfitted one, since a falling curve would hide a wrong direction.

    Args:
        scores: (N,), higher is better.
        mos: (N,), higher is better.
        curves: fitted to other images of the same kind, from which the fits to these start.
    """
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(mos) == 0:
        return np.full(len(CORRELATIONS if curves is None else STATISTICS), np.nan)
    values = _correlate(scores, mos)
    if curves is not None:
        plcc = values[1]
        fitted = [
            fit(kind, scores, mos, start) if start else None for kind, start in curves.items()
        ]
        predicted = [curve(scores) if curve else None for curve in fitted]
        values += [
            np.sign(plcc) * _pearson(p, mos) if p is not None and _varies(p) else np.nan
            for p in predicted
        ]
        values += [np.nan if p is None else np.sqrt(np.mean((p - mos) ** 2)) for p in predicted]
    return np.array(values, dtype=np.float64)


def _pearson(x: Floats, y: Floats) -> float:
    """Return the correlation of two arrays that vary; SciPy's own checks would take most of the time of a bootstrap."""
    dx, dy = x - x.mean(), y - y.mean()
    return float(dx @ dy / math.sqrt(float(dx @ dx) * float(dy @ dy)))


def _rank_correlation(x: Floats, y: Floats) -> float:
    return _pearson(rankdata(x), rankdata(y))


def _varies(values: Floats) -> bool:
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())


def resamples(count: int, samples: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the rows (samples, count) of bootstrap samples; the same for the same arguments."""
    return np.random.default_rng(seed).integers(0, count, (samples, count))


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of those that are defined."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def measure(
    scores: Floats, mos: Floats, samples: int = 1000, fitted: bool = True
) -> dict[str, Interval]:
    """Compute every statistic with its percentile interval over bootstrap samples of the images.

    Args:
        scores: (N,), higher is better.
        mos: (N,), higher is better.
        samples: bootstrap samples; curves are fitted anew to each.
        fitted: also the statistics with curves.
    """
    curves = {kind: fit(kind, scores, mos) for kind in CURVES} if fitted else None
    values = statistics(scores, mos, curves)
    drawn = np.array(
        [statistics(scores[rows], mos[rows], curves) for rows in resamples(len(scores), samples)]
    )
    names = STATISTICS if fitted else CORRELATIONS
    drawn = drawn.reshape(samples, len(names))
    return {
        name: Interval(float(values[i]), *interval(drawn[:, i])) for i, name in enumerate(names)
    }


def interval_of_mean(values: Floats, samples: int = 1000) -> Interval:
    """Return the mean of (N,) and its percentile interval over bootstrap samples; none for a single value."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    if len(values) == 1:
        return Interval(float(values[0]), float("nan"), float("nan"))
    drawn = values[resamples(len(values), samples)].mean(axis=1)
    return Interval(float(values.mean()), *interval(drawn))


def ceiling(mos: Floats, errors: Floats, draws: int = 200) -> dict[str, float]:
    """Return the SRCC and PLCC that a metric would have which knows every image's true MOS, but is compared with ours.

    The mean over seeded draws of the correlation of true MOS with the same plus normal noise of each image's standard
    error; the true ones are ours, drawn to their mean until true and noise together have the variance that ours have.

    Args:
        mos: as raters gave it, (N,).
        errors: standard error of each, (N,): standard deviation of its votes over the root of their number.
        draws: simulated sets of opinions.

    Returns:
        NaN for fewer than three images, an error that is not known, or noise that alone would explain the spread.
    """
    spread = float(np.var(mos)) if len(mos) > 2 else 0.0
    share = 1 - float(np.mean(errors**2)) / spread if spread > 0 else 0.0
    if not share > 0:
        return {"srcc": float("nan"), "plcc": float("nan")}
    true = mos.mean() + math.sqrt(share) * (mos - mos.mean())
    random = np.random.default_rng(0)
    rated = [true + errors * random.normal(size=len(mos)) for _ in range(draws)]
    return {
        "srcc": float(np.mean([_rank_correlation(true, one) for one in rated])),
        "plcc": float(np.mean([_pearson(true, one) for one in rated])),
    }


def srcc_within(groups: list[tuple[Floats, Floats]], samples: int = 1000) -> Interval:
    """Return the mean of the SRCC within each group, and its interval over samples of the images of each.

    Args:
        groups: scores and opinion scores (N,) of each group, higher is better.
        samples: bootstrap samples.
    """
    values = [_srcc(scores, mos) for scores, mos in groups]
    drawn = np.zeros((len(groups), samples))
    for i, (scores, mos) in enumerate(groups):
        picked = resamples(len(mos), samples, seed=i)
        drawn[i] = [_srcc(scores[rows], mos[rows]) for rows in picked]
    if not groups:
        return Interval(float("nan"), float("nan"), float("nan"))
    return Interval(float(np.mean(values)), *interval(drawn.mean(axis=0)))


def _srcc(scores: Floats, mos: Floats) -> float:
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(mos) == 0:
        return float("nan")
    return _rank_correlation(scores, mos)


@dataclass(frozen=True)
class Comparison:
    """SRCC of one metric minus another's on ``n`` images, with paired bootstrap interval, and p of Williams' test."""

    n: int
    difference: Interval
    p: float


def williams(n: int, r_a: float, r_b: float, r_ab: float) -> tuple[float, float]:
    """Test whether two correlations with one variable differ, where the two others correlate by ``r_ab``.

    Returns:
        Williams' t with n - 3 degrees of freedom, and its two-sided p; NaN for n below 4.
    """
    if n < 4:
        return float("nan"), float("nan")
    determinant = 1 - r_a**2 - r_b**2 - r_ab**2 + 2 * r_a * r_b * r_ab
    mean = (r_a + r_b) / 2
    below = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - r_ab) ** 3
    if below <= 1e-12:  # the same order twice, or one the reverse of the other
        return (0.0, 1.0) if abs(r_a - r_b) < 1e-9 else (math.copysign(math.inf, r_a - r_b), 0.0)
    value = (r_a - r_b) * np.sqrt((n - 1) * (1 + r_ab) / below)
    return float(value), float(2 * t.sf(abs(value), n - 3))


def compare(a: Floats, b: Floats, mos: Floats, samples: int = 1000) -> Comparison:
    """Compare two metrics on the same images, (N,) each and higher is better; Williams' test is of the ranks."""
    picked = resamples(len(mos), samples)
    drawn = np.array([_srcc(a[rows], mos[rows]) - _srcc(b[rows], mos[rows]) for rows in picked])
    r_a, r_b, r_ab = _srcc(a, mos), _srcc(b, mos), _srcc(a, b)
    difference = Interval(r_a - r_b, *interval(drawn))
    return Comparison(len(mos), difference, williams(len(mos), r_a, r_b, r_ab)[1])


def holm(p: Floats) -> Floats:
    """Return p values (M,) corrected by Holm for M tests; those not defined stay NaN and count for nothing."""
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = highest
    return corrected

"""The statistics against SciPy, closed forms and published examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import expit
from scipy.stats import kendalltau, pearsonr, spearmanr

from lifeiqa_plugin import correlation
from lifeiqa_plugin.correlation import (
    CORRELATIONS,
    CURVES,
    STATISTICS,
    compare,
    correlations,
    fit,
    holm,
    interval,
    interval_of_mean,
    measure,
    resamples,
    srcc_within,
    statistics,
    williams,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 100, 300)
    return scores, 1 + 4 * expit((scores - 55) / 9) + rng.normal(0, 0.3, 300)


def test_correlations_are_scipys(data):
    """Also with ties, and of lists and float32."""
    ties = np.array([1.0, 1, 2, 3, 3, 4, 4]), np.array([2.0, 1, 2, 2, 5, 4, 4])
    for scores, mos in (data, ties):
        x = scores.astype(np.float32).astype(float)
        expected = [f(x, mos).statistic for f in (spearmanr, pearsonr, kendalltau)]
        np.testing.assert_allclose(statistics(x, mos), expected, rtol=1e-12)
        found = correlations(scores.astype(np.float32), list(mos))
        assert list(found) == ["srcc", "plcc", "krcc", "rmse"]
        rmse = np.sqrt(np.mean((x - mos) ** 2))
        np.testing.assert_allclose([*found.values()], [*expected, rmse], rtol=1e-12)


def test_logistic4_is_the_least_squares_curve(data):
    scores, mos = data

    def vqeg(x, low, high, middle, width):
        return low + (high - low) / (1 + np.exp(-(x - middle) / width))

    found, _ = curve_fit(vqeg, scores, mos, p0=[1, 5, 50, 10])
    curve = fit("logistic4", scores, mos)
    np.testing.assert_allclose(curve(scores), vqeg(scores, *found), atol=1e-4)
    values = dict(
        zip(
            STATISTICS,
            statistics(scores, mos, {kind: fit(kind, scores, mos) for kind in CURVES}),
            strict=True,
        )
    )
    assert values["plcc_logistic4"] == pytest.approx(
        pearsonr(vqeg(scores, *found), mos).statistic, abs=1e-6
    )
    assert values["rmse_logistic4"] == pytest.approx(
        np.sqrt(np.mean((vqeg(scores, *found) - mos) ** 2)), abs=1e-6
    )


def test_logistic5_recovers_its_own_curve():
    x = np.linspace(0, 10, 200)
    y = 3 * (0.5 - 1 / (1 + np.exp(1.5 * (x - 6)))) + 0.2 * x + 1
    np.testing.assert_allclose(fit("logistic5", x, y)(x), y, atol=1e-4)


@pytest.mark.parametrize("kind", CURVES)
@pytest.mark.parametrize("sign", [1, -1])
def test_curves_are_monotone(kind, sign):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=40), rng.normal(size=40)
    direction = sign * np.sign(np.corrcoef(x, y)[0, 1])
    grid = np.linspace(-3, 3, 100)
    assert (np.diff(fit(kind, sign * x, y)(grid)) * direction >= -1e-12).all()


def test_a_wrong_direction_shows_in_every_correlation(data):
    scores, mos = data
    right, wrong = (measure(s * scores, mos, samples=20) for s in (1, -1))
    for name in STATISTICS:
        factor = 1 if name.startswith("rmse") else -1
        assert wrong[name].value == pytest.approx(factor * right[name].value, abs=1e-5)
        assert right[name].low <= right[name].value <= right[name].high


def test_intervals_are_percentiles_of_resampled_statistics(data):
    scores, mos = data
    found = measure(scores, mos, samples=50, fitted=False)
    assert tuple(found) == CORRELATIONS
    rows = np.random.default_rng(0).integers(0, 300, (50, 300))
    drawn = [spearmanr(scores[i], mos[i]).statistic for i in rows]
    np.testing.assert_allclose(found["srcc"][1:], np.quantile(drawn, [0.025, 0.975]), rtol=1e-12)
    np.testing.assert_array_equal(resamples(300, 50), rows)


@pytest.mark.parametrize("scores", [np.ones(20), np.array([1.0, 2.0]), np.zeros(0)])
def test_what_has_no_correlation_is_nan(scores):
    found = measure(scores, np.linspace(0, 1, len(scores)), samples=5)
    assert set(found) == set(STATISTICS)
    assert all(np.isnan(value).all() for value in found.values())


def test_few_images_get_no_curve(data):
    found = measure(data[0][:9], data[1][:9], samples=5)
    assert np.isfinite(found["plcc"].value)
    assert np.isnan(found["plcc_logistic4"].value)


def test_williams_on_a_published_example():
    """The example of psych's r.test(n = 103, r12 = .4, r13 = .5, r23 = .1), which prints t -0.89 and p 0.37."""
    t, p = williams(103, 0.4, 0.5, 0.1)
    assert (round(t, 2), round(p, 2)) == (-0.89, 0.37)
    assert williams(103, 0.5, 0.4, 0.1) == (-t, p)
    assert williams(50, 0.7, 0.7, 1.0) == (0.0, 1.0)
    assert williams(50, 0.7, -0.7, -1.0) == (np.inf, 0.0)
    assert np.isnan(williams(3, 0.4, 0.5, 0.1)).all()


def test_williams_keeps_its_level():
    """Two metrics that are equally good differ at the 5 % level in about 5 % of experiments."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 60))
    a, b = (truth + rng.normal(size=truth.shape) for _ in range(2))
    p = []
    for t, x, y in zip(truth, a, b, strict=True):
        r = np.corrcoef([t, x, y])
        p.append(williams(60, r[0, 1], r[0, 2], r[1, 2])[1])
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.08


def test_compare(data):
    scores, mos = data
    rng = np.random.default_rng(2)
    worse = scores + rng.normal(0, 40, 300)
    found = compare(scores, worse, mos, samples=200)
    assert found.n == 300
    expected = spearmanr(scores, mos).statistic - spearmanr(worse, mos).statistic
    assert found.difference.value == pytest.approx(expected)
    assert 0 < found.difference.low < expected < found.difference.high
    assert found.p < 1e-6
    same = compare(scores, scores, mos, samples=5)
    assert (same.difference.value, same.p) == (0.0, 1.0)


def test_holm():
    np.testing.assert_allclose(
        holm(np.array([0.01, 0.04, 0.03, np.nan, 0.5])), [0.04, 0.09, 0.09, np.nan, 0.5]
    )


def test_interval_of_nothing():
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_constant_scores_have_an_error_but_no_correlation():
    found = correlations([0.5, 0.5, 0.5], [0.0, 0.5, 1.0])
    assert found["rmse"] == pytest.approx(np.sqrt(1 / 6))
    assert np.isnan([found["srcc"], found["plcc"], found["krcc"]]).all()


@pytest.mark.parametrize(
    ("scores", "mos", "message"),
    [
        ([1.0], [1.0], "correlations need at least 2 images, got 1"),
        ([1.0, 2.0], [1.0], r"expected scores \(N,\) .* got \(2,\) and \(1,\)"),
    ],
)
def test_what_cannot_be_correlated(scores, mos, message):
    with pytest.raises(ValueError, match=message):
        correlations(scores, mos)


@pytest.mark.parametrize("kind", CURVES)
def test_slopes_are_the_derivatives(kind):
    shape, z = CURVES[kind], np.linspace(-2, 2, 9)
    p = np.array([0.3, -0.2, 0.5, -0.4, 0.1])[: len(shape.starts[0])]
    steps = 1e-6 * np.eye(len(p))
    numeric = [(shape.function(z, p + d) - shape.function(z, p - d)) / 2e-6 for d in steps]
    np.testing.assert_allclose(shape.slopes(z, p), np.stack(numeric, axis=1), atol=1e-8)


def test_a_fit_that_was_stopped_says_so(data, monkeypatch):
    assert fit("logistic4", *data).has_converged
    monkeypatch.setattr(correlation, "MOST_EVALUATIONS", 2)
    assert not fit("logistic4", *data).has_converged


def test_a_mean_has_an_interval_from_two_values_on():
    value, low, high = interval_of_mean(np.array([0.0, 1.0, 1.0, 0.0]), samples=200)
    assert low < value == 0.5 < high
    value, low, high = interval_of_mean(np.array([3.0]), samples=200)
    assert value == 3
    assert np.isnan([low, high]).all()
    assert np.isnan(interval_of_mean(np.zeros(0))).all()


def test_srcc_within_is_the_mean_over_groups(data):
    scores, mos = data
    found = srcc_within([(scores[:100], mos[:100]), (-scores[100:], mos[100:])], samples=20)
    parts = [spearmanr(scores[:100], mos[:100]), spearmanr(-scores[100:], mos[100:])]
    assert found.value == pytest.approx(np.mean([part.statistic for part in parts]))
    assert found.low < found.value < found.high
    assert np.isnan(srcc_within([])).all()


def test_no_samples_give_no_interval(data):
    found = measure(*data, samples=0)
    assert np.isfinite(found["srcc"].value)
    assert np.isnan([found["srcc"].low, found["srcc"].high]).all()
    assert np.isnan(compare(data[0], -data[0], data[1], samples=0).difference.low)


def test_the_ceiling_is_the_correlation_of_truth_and_opinion():
    """True variance 1 - 0.36, observed 1: PLCC sqrt(0.64); of normal values SRCC is 6 / pi asin(PLCC / 2)."""
    mos = np.random.default_rng(1).normal(size=4000)
    mos = (mos - mos.mean()) / mos.std()
    found = correlation.ceiling(mos, np.full(4000, 0.6))
    assert found["plcc"] == pytest.approx(0.8, abs=0.003)
    assert found["srcc"] == pytest.approx(6 / np.pi * np.arcsin(0.4), abs=0.005)
    assert found == correlation.ceiling(mos, np.full(4000, 0.6))


def test_without_noise_the_ceiling_is_one():
    assert correlation.ceiling(np.arange(9.0), np.zeros(9)) == pytest.approx({"srcc": 1, "plcc": 1})


@pytest.mark.parametrize(
    ("mos", "errors"),
    [
        ([1, 2, 3, 4], [0, 0, np.nan, 0]),
        ([1, 2, 3, 4], [2, 2, 2, 2]),
        ([2, 2, 2, 2], [0, 0, 0, 0]),
        ([], []),
    ],
)
def test_there_is_no_ceiling_of_what_is_not_known_or_only_noise(mos, errors):
    found = correlation.ceiling(np.array(mos, float), np.array(errors, float))
    assert np.isnan([*found.values()]).all()

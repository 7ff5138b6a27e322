"""The statistics of ``tools/claims.py``, and what its variants leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr


@pytest.fixture
def claims(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    import claims

    monkeypatch.setattr(claims, "DRAWS", 200)
    return claims


def drawn(claims, noise, seeds=6, images=60):
    """Bootstrapped SRCC of scores with the given noise, and with half of it."""
    generator = np.random.default_rng(0)
    mos = generator.random(images)
    errors = generator.standard_normal((seeds, images))
    return [claims.bootstrap(mos + size * errors, mos) for size in (noise, noise / 2)]


def test_rank_correlation_is_scipys(claims):
    scores, mos = np.random.default_rng(0).integers(0, 5, (2, 4, 30))
    expected = [spearmanr(row, mos[0])[0] for row in scores]
    assert claims.srcc(scores, mos[0]) == pytest.approx(expected)


def test_a_clear_lead_is_told(claims):
    noisy, clean = drawn(claims, 0.5)
    lead, p = claims.compare(clean, noisy)
    assert lead.value == pytest.approx((clean[0] - noisy[0]).mean())
    assert 0 < lead.low < lead.value < lead.high
    assert p == pytest.approx(2 / 201)
    behind, p_behind = claims.compare(noisy, clean)
    assert behind == pytest.approx((-lead.value, -lead.high, -lead.low))
    assert p_behind == p


def test_the_draws_are_paired(claims):
    noisy, _ = drawn(claims, 0.5)
    lead, p = claims.compare(noisy, noisy)
    assert lead == (0, 0, 0)
    assert p == 1


def test_seeds_that_disagree_are_not_told_apart(claims):
    noisy, clean = drawn(claims, 0.5)
    swapped = np.where(np.arange(6) % 2, clean, noisy), np.where(np.arange(6) % 2, noisy, clean)
    lead, p = claims.compare(*swapped)
    assert lead.low < 0 < lead.high
    assert p > 0.1


def test_verdicts(claims):
    row = claims.pd.DataFrame({"lead": [0.2], "low": [0.1], "high": [0.4], "p": [0.01]}).loc[0]
    assert claims.verdict(row) == "yes"
    row["lead"] = -0.2
    assert claims.verdict(row) == "no"
    row["p"] = 0.05
    assert claims.verdict(row) == "not to be told apart, ± 0.150"
    row["p"] = np.nan
    assert claims.verdict(row) == "reference"


def test_the_probe_takes_the_penalty_of_least_leave_one_out_error(claims):
    torch.manual_seed(0)
    x = torch.randn(12, 3)
    seen = claims.Seen(x.sum(1) + torch.randn(12), [x, x[:, :2]], x, x)
    run = claims.Run("lite2", "stage 12", 12, 0)
    z = torch.cat([(part - part.mean(0)) / part.std(0) for part in (x, x[:, :2])], 1).double()
    y = seen.mos.double()

    def solve(rows, penalty):
        design = torch.cat([z[rows], torch.ones(len(rows), 1)], 1)
        ridge = penalty * torch.eye(6, dtype=torch.float64)
        ridge[5, 5] = 0  # the level has no penalty
        return torch.linalg.solve(design.T @ design + ridge, design.T @ y[rows])

    def error(penalty):
        kept = [[i for i in range(12) if i != left] for left in range(12)]
        weights = [solve(rows, penalty) for rows in kept]
        return sum((w[:5] @ z[i] + w[5] - y[i]) ** 2 for i, w in enumerate(weights))

    best = min(torch.logspace(0, 5, 11, dtype=torch.float64), key=error)
    weight = solve(list(range(12)), best)
    expected = z @ weight[:5] + weight[5]
    torch.testing.assert_close(claims.probe(run, seen)(seen), expected, rtol=1e-4, atol=1e-4)


def test_variants_leave_out_what_they_say(claims):
    stages = torch.randn(2, 5, 7, 7), torch.randn(2, 9, 7, 7)
    other = torch.randn(2, 5, 7, 7)
    for name, build in claims.VARIANTS.items():
        network = build(5, 9).eval()
        score, side = network(*stages)
        assert score.shape == (2,)
        assert side.shape == ()
        names = " ".join(name for name, _ in network.named_parameters())
        assert ("gcn" in names) == (name != "no GCN" and "vanilla" not in name)
        assert ("moe.mlp" in names, "moe.experts" in names) == (
            name == "one expert",
            name in ("complete", "no GCN", "fixed adjacency", "no stage3"),
        )
        learns_edges = name in ("complete", "no MoE", "one expert", "no stage3")
        assert ("edge_weight" in names) == learns_edges
        assert torch.equal(score, network(other, stages[1])[0]) == (name == "no stage3")


def test_widened_means_as_many_parameters(claims):
    counts = {
        name: sum(parameter.numel() for parameter in build(120, 352).parameters())
        for name, build in claims.VARIANTS.items()
    }
    assert counts["vanilla, widened"] == pytest.approx(counts["complete"], rel=1e-3)
    assert counts["vanilla"] < 0.8 * counts["complete"]

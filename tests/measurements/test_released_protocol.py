"""The script that measures the released inference protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin import build_lifeiqa


@pytest.fixture
def script(load):
    return load("released_protocol")


@pytest.fixture
def network():
    options = {
        "backbone": "test_convnext",
        "embed_dim": 16,
        "num_heads": 2,
        "depth": 1,
        "num_experts": 1,
    }
    return build_lifeiqa(pretrained=False, crop_size=32, working_size=48, **options).eval()


def test_dense_cover_touches_all_edges(script):
    assert script.corners(100, 32, 20) == [0, 20, 40, 60, 68]
    assert script.corners(32, 32, 20) == [0]


def test_default_is_the_networks_own_score_and_dense_is_the_mean_over_crops(script, network):
    image = torch.rand(3, 40, 50)
    assert script.score_default(network, image) == pytest.approx(network(image[None]).item())
    expected = np.mean([
        network(image[None, :, top : top + 32, left : left + 32]).item() for top in (0, 8) for left in (0, 16, 18)
    ])  # fmt: skip
    assert script.score_dense(network, image, 16) == pytest.approx(expected, abs=1e-6)
    big = torch.rand(3, 96, 120)
    reduced = script.to_working_size(big[None], 32, 48)[0]
    assert script.score_dense(network, big, 16, 48) == script.score_dense(network, reduced, 16)


def test_released_protocol_is_random_crops_whichever_way_they_pass(script, network):
    def score(seed: int, at_once: int) -> float:
        return script.score_released(network, image, torch.Generator().manual_seed(seed), at_once)

    image = torch.rand(3, 40, 50)
    assert score(0, 25) == pytest.approx(score(0, 1), abs=1e-5)
    assert score(0, 25) != score(1, 25)
    assert np.isfinite(script.score_released(network, torch.rand(3, 20, 20), torch.Generator()))


def test_it_runs_from_the_command_line(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "CROPS", 4)
    for i in range(3):
        Image.fromarray(
            np.random.default_rng(i).integers(0, 256, (230, 240, 3), dtype=np.uint8)
        ).save(tmp_path / f"{i}.png")
    arguments = [
        "--rounds",
        "1",
        "--size",
        "60",
        "50",
        "--backbone",
        "test_convnext",
        "--photos",
        str(tmp_path),
        "--limit",
        "2",
    ]
    monkeypatch.setattr(
        "sys.argv", ["released_protocol.py", *arguments, "--stride", "200", "--crops", "1"]
    )
    script.main()
    printed = capsys.readouterr().out
    assert "2 images of" in printed
    assert printed.count("| released") == 4

"""Each example as a user runs it, on tiny input, with a tiny network in place of the bundled one."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import nn

import lifeiqa_plugin
from lifeiqa_plugin.network.lifeiqa import LifeIQA

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = LifeIQA(
        "test_efficientnet", embed_dim=24, num_heads=2, num_experts=2, depth=1,
        score_range=(0.0, 1.0), crop_size=64, working_size=64,
    )  # fmt: skip
    nn.init.normal_(network.decoder.head.weight, std=0.5)
    monkeypatch.setattr(lifeiqa_plugin, "build_lifeiqa", lambda pretrained=True: network)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))
    for i in range(3):
        photo.filter(ImageFilter.GaussianBlur(0.2 * i)).save(tmp_path / f"shot{i}.png")
    return tmp_path


def test_smallest_jpeg_writes_what_it_says(folder, capsys):
    example = load("smallest_jpeg")
    arguments = [str(folder / "shot0.png"), "-o", str(folder / "out.jpg"), "--tolerance", "1"]
    example.main(arguments)
    printed = capsys.readouterr().out
    size = (folder / "out.jpg").stat().st_size
    assert f"out.jpg: quality 10, {size:,} bytes" in printed
    assert len(printed.splitlines()) == 2 + len(example.QUALITIES)
    with pytest.raises(SystemExit, match=r"even quality 95 scores more than -1\.0 less"):
        example.main([*arguments[:-1], "-1"])


def test_smallest_jpeg_stops_at_the_first_that_is_worse():
    example = load("smallest_jpeg")
    made = [
        example.Version(quality, b"", score)
        for quality, score in [(90, 0.70), (80, 0.69), (70, 0.60), (60, 0.70)]
    ]
    assert example.smallest(made, 0.7, 0.02).quality == 80
    assert example.smallest(made, 0.9, 0.02) is None


def test_best_of_burst_ranks_and_says_whether_it_means_anything(folder, capsys):
    example = load("best_of_burst")
    shots = [str(folder / f"shot{i}.png") for i in range(3)]
    example.main(shots)
    printed = capsys.readouterr().out.splitlines()
    scores = [float(line.split()[0]) for line in printed[:3]]
    assert scores == sorted(scores, reverse=True)
    assert len(printed) == 4
    other = np.random.default_rng(9).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(other).resize((64, 64)).save(folder / "other.png")
    example.main([*shots, str(folder / "other.png")])
    assert "these do not all show the same" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="a burst has at least 2 photos"):
        example.main(shots[:1])


def test_the_verdict_of_a_burst_depends_on_chance_within_one_scene():
    example = load("best_of_burst")
    best = lifeiqa_plugin.ScoredImage("a", 1500, 1000, 0.8)
    second = dataclasses.replace(best, name="b", score=0.77)
    assert example.verdict([best, second]) == (
        "keep a: 0.030 ahead, and up to 0.02 is chance in one scene"
    )
    close = dataclasses.replace(second, score=0.79)
    assert example.verdict([best, close]) == (
        "a is ahead by only 0.010, and up to 0.02 is chance: look yourself"
    )
    small = dataclasses.replace(second, width=500, height=500)
    assert "by only 0.030, and up to 0.04 is chance" in example.verdict([best, small])


def test_gradient_ascent_raises_the_score_and_draws_what_it_did(folder, capsys):
    pytest.importorskip("matplotlib")
    example = load("gradient_ascent")
    out = folder / "ascent.png"
    original = folder / "shot1.png"
    arguments = [str(folder / "shot0.png"), "-o", str(out), "--steps", "4"]
    example.main([*arguments, "--original", str(original)])
    printed, nearness = capsys.readouterr().out.splitlines()
    before, after = (float(printed.split(": ")[1].split(";")[0].split(" -> ")[i]) for i in (0, 1))
    assert after > before
    assert f"the other model {before:.3f} -> {after:.3f}." in printed  # here it is the same one
    photo = lifeiqa_plugin.read_image(folder / "shot0.png")
    nearest = example.psnr(photo, lifeiqa_plugin.read_image(original))
    assert nearness.startswith(f"PSNR to {original}: {nearest:.2f} -> ")
    with Image.open(out) as plot:
        assert plot.size == (1600, 544)


def test_psnr_of_a_known_difference():
    black = torch.zeros(3, 4, 4)
    assert load("gradient_ascent").psnr(black, black + 0.1) == pytest.approx(20, abs=1e-4)


def test_the_climb_moves_no_pixel_further_than_its_steps(folder):
    example = load("gradient_ascent")
    image = lifeiqa_plugin.read_image(folder / "shot0.png")
    network = lifeiqa_plugin.build_lifeiqa().eval()
    climbed = example.climb(network, network, image, steps=3, rate=0.01)
    assert climbed.scores_of_another == pytest.approx(climbed.scores)
    assert (climbed.result - image).abs().max() <= 0.03 + 1e-6
    assert climbed.result.min() >= 0
    assert climbed.result.max() <= 1
    assert len(climbed.scores) == len(climbed.scores_as_jpeg) == 4
    assert climbed.scores[-1] > climbed.scores[0]


def test_expert_specialization_answers_five_questions(folder, capsys):
    pytest.importorskip("matplotlib")
    example = load("expert_specialization")
    out = folder / "experts.png"
    example.main([str(folder), "-o", str(out), "--limit", "2", "--rounds", "9"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[0].startswith("Do the experts specialize in distortions? ")
    with Image.open(out) as plot:
        assert plot.size == (1200, 2400)


@pytest.mark.parametrize(
    ("preference", "answer"), [(0.0, "No: no more"), (0.3, "Hardly: more than"), (3.0, "Yes (")]
)
def test_experts_that_specialize_are_told_from_chance(preference, answer):
    example = load("expert_specialization")
    shares = np.random.default_rng(0).random((12, 3, 3))  # photos, distortions, experts
    shares += preference * np.eye(3)  # distortion i prefers expert i
    shares /= shares.sum(2, keepdims=True)
    finding = example.compare_rows("Do they?", shares, list("abc"), list("xyz"), rounds=199)
    assert finding.sentence.startswith(f"Do they? {answer}")
    np.testing.assert_allclose(finding.table.sum(1), 1)
    assert example.mutual_information(np.eye(4) / 4) == pytest.approx(2)

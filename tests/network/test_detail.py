"""The nearer look at large photos: where it goes, what it takes off, and that all ways to score agree on it."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import lifeiqa_plugin
from lifeiqa_plugin.network.detail import DetailRule, find_part, is_large
from lifeiqa_plugin.runtimes.torch_engine import TorchEngine

RULE = {"offset": 0.02, "score": -0.001, "blur": 0.001}
PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "astronaut_0_clean.jpg"
SIZE = 64  # working size of these tests: large from 192 on, parts of 128


@pytest.fixture
def looking(tiny):
    """A network that looks twice, and the same one that looks once."""
    options = {"working_size": SIZE, "distortions": ("noise", "blur")}
    twice, once = tiny(detail=RULE, **options), tiny(detail=False, **options)
    once.load_state_dict(twice.state_dict())
    return twice, once


def photo(height: int = 200, width: int = 300) -> np.ndarray:
    """Smooth, but for a patch of noise near the lower right corner."""
    pixels = (
        np.linspace(60, 200, width).astype(np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2)
    )
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    pixels[-70:-10, -90:-10] = noise
    return pixels


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_the_part_is_where_the_detail_is():
    planes = photo()[::3, ::3].transpose(2, 0, 1) / 255
    assert find_part(planes, 200, 300, SIZE) == (200 - 128, 300 - 128)
    assert find_part(planes[:, :, ::-1], 200, 300, SIZE) == (200 - 128, 0)
    assert find_part(planes[:1, ::-1], 200, 300, SIZE) == (0, 300 - 128)


def test_an_image_is_large_from_three_working_sizes_on():
    assert is_large(192, 9999, SIZE)
    assert is_large(192, 192, SIZE)
    assert not is_large(9999, 191, SIZE)


def test_the_rule_adds_up_logits():
    rule = DetailRule.parse(RULE)
    names = ("noise", "blur")
    whole, near = np.array([0.8, 0.7, 0.002]), np.array([0.9, 0.2, 0.5])
    shares = np.array([[0.5, 0.9], [0.0, 0.0], [0.3, 1.0]])
    expected = []
    for score, part, (_, blur) in zip(whole, near, shares, strict=True):
        blur = min(max(blur, 0.001), 0.999)
        fall = 0.02 - 0.001 * math.log(part / (1 - part)) + 0.001 * math.log(blur / (1 - blur))
        expected.append(max(0.0, score - max(0.0, fall)))
    assert expected[2] == 0
    found = rule.apply(whole, near, shares, names)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    tensors = map(torch.from_numpy, (whole, near, shares))
    np.testing.assert_allclose(rule.apply(*tensors, names, torch.log), expected, rtol=1e-12)
    sharp = rule.apply(whole, np.full(3, 0.99), np.zeros((3, 2)), names)
    assert (DetailRule(-1.0, {}).apply(whole, near, shares, names) == whole).all()
    assert (sharp > found)[:2].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"detail": True},
            "detail must be False or numbers by name, with 'offset' among them, got True",
        ),
        ({"detail": {"score": 1.0}}, "with 'offset' among them, got {'score': 1.0}"),
        ({"detail": RULE}, r"got \(0.0, 1.0\) without blur; give detail=False for one look"),
        (
            {"detail": {"offset": 0}, "score_range": None},
            r"detail needs score_range \(0, 1\) .*, got None without any missing",
        ),
    ],
)
def test_options_that_cannot_be(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_large_images_are_looked_at_twice(looking):
    twice, once = looking
    x = torch.cat([to_tensor(photo()), to_tensor(photo()[::-1, ::-1])])
    with torch.no_grad():
        whole, found = once(x)[:, 0], twice(x)[:, 0]
        parts = torch.stack([x[0, :, 72:, 172:], x[1, :, :128, :128]])
        near = once(parts, return_details=True)
    expected = DetailRule.parse(RULE).apply(
        whole, near.score[:, 0], near.distortions, ("noise", "blur"), torch.log
    )
    torch.testing.assert_close(found, expected)
    assert (found < whole - 0.004).all()


def test_others_are_not(looking):
    twice, once = looking
    small, large = to_tensor(photo(191, 300)), to_tensor(photo())
    with torch.no_grad():
        assert torch.equal(twice(small), once(small))
    scores = []
    for network in looking:
        torch.manual_seed(0)  # for dropout
        scores.append(network.train()(large))
    assert torch.equal(*scores)


def test_the_gradient_flows_through_both_looks(looking):
    gradients = []
    for network in looking:
        x = to_tensor(photo()).requires_grad_()
        network(x).sum().backward()
        assert x.grad.isfinite().all()
        gradients.append(x.grad)
    change = (gradients[0] - gradients[1]).abs().sum(1)[0]
    assert change[72:, 172:].sum() > 0.9 * change.sum() > 0


def test_rows_say_what_the_network_says(looking):
    twice, once = looking
    pixels, small = photo(), photo(150, 190)
    images = [pixels, small, pixels[::-1]]
    expected = [twice(to_tensor(image)).item() for image in images]
    whole = [once(to_tensor(image)).item() for image in images]
    for batch_size in (1, 3):
        rows = list(lifeiqa_plugin.score(images, engine=TorchEngine(twice), batch_size=batch_size))
        assert [row.score for row in rows] == pytest.approx(expected, abs=1e-4)
        assert 0 < rows[0].detail < 1
        assert math.isnan(rows[1].detail)
    for engine, options in ((twice, {"detail": False}), (once, {})):
        rows = list(lifeiqa_plugin.score(images, engine=TorchEngine(engine), **options))
        assert [row.score for row in rows] == pytest.approx(whole, abs=1e-4)
        assert all(math.isnan(row.detail) for row in rows)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_part_of_an_image_that_is_turned(looking, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, "PNG", exif=exif)
    upright = lifeiqa_plugin.read_image(file.getvalue()).permute(1, 2, 0).numpy()
    engine = TorchEngine(looking[0])
    turned, plain = lifeiqa_plugin.score([file.getvalue(), upright], engine=engine)
    assert turned.detail == pytest.approx(plain.detail, abs=1e-6)
    assert turned.score == pytest.approx(plain.score, abs=1e-6)


def test_a_decoder_may_halve_the_part_but_no_more(looking):
    file = io.BytesIO()
    pixels = Image.fromarray(photo()).resize((1204, 804), Image.Resampling.BICUBIC)
    pixels.save(file, "JPEG", quality=95)
    engine = TorchEngine(looking[0])
    full, halved = (
        next(lifeiqa_plugin.score(file.getvalue(), engine=engine, exact=exact))
        for exact in (True, False)
    )
    assert halved.notes == ("decoded at 1/2 of its size",)
    assert halved.detail == pytest.approx(full.detail, abs=0.01)
    once = next(lifeiqa_plugin.score(file.getvalue(), engine=engine, exact=False, detail=False))
    assert once.notes == ("decoded at 1/4 of its size",)


def test_what_takes_something_off_is_among_the_distortions():
    """Of what the rule reads, the more of both looks, and only where the score fell; arrays or tensors."""
    rule, names = DetailRule.parse(RULE), ("noise", "blur")
    fell = np.array([True, True, False])
    whole = np.array([[0.1, 0.2], [0.1, 0.6], [0.1, 0.2]])
    near = np.array([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]])
    expected = [[0.1, 0.5], [0.1, 0.6], [0.1, 0.2]]
    np.testing.assert_allclose(rule.join(fell, whole, near, names), expected)
    tensors = map(torch.from_numpy, (fell, whole, near))
    np.testing.assert_allclose(rule.join(*tensors, names), expected)
    np.testing.assert_array_equal(whole[0], [0.1, 0.2])


@pytest.mark.slow
def test_a_blur_that_only_the_nearer_look_sees_is_named_by_all():
    """A sharp photo laid side by side, and the same with a Gaussian of 3 pixels; in every engine, and by explain."""
    with Image.open(PHOTO) as image:
        sharp = Image.fromarray(np.tile(np.asarray(image), (3, 3, 1))[:1152])
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    scorers = [lifeiqa_plugin.Scorer(engine="torch", device="cpu")]
    scorers += [lifeiqa_plugin.Scorer(engine="onnxruntime", fast=fast) for fast in (False, True)]
    for scorer in scorers:
        assert scorer(sharp).sentence.endswith("no flaw named")
        assert re.search("blur|out of focus", scorer(blurred).sentence)
    explanation = lifeiqa_plugin.explain(blurred, attribution_steps=0)
    assert re.search("blur|out of focus", explanation.sentence)
    expected = scorers[0](blurred).distortions
    assert explanation.distortions == pytest.approx(expected, abs=1e-3)

"""An explanation as a whole: what is in it, what it leaves as found, what it writes, and what it refuses."""

import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.explanation import details, figure
from lifeiqa_plugin.explanation.explain import explain

pytestmark = pytest.mark.slow

pytest.importorskip("matplotlib")


@pytest.fixture
def explanation(whole, photo):
    return explain(photo, whole, name="a <b> $x$ 写真.jpg", attribution_steps=2)


def test_every_part_has_its_shape_and_range(network, photo):
    explanation = explain(photo, network, attribution_steps=2)
    height, width = explanation.image.shape[:2]
    assert (height, width) == (90, 130)
    assert explanation.size == (130, 90)
    assert explanation.name == "image"
    assert explanation.quality_map.shape == (height, width)
    assert explanation.distortion_maps.shape == (len(explanation.distortions), height, width)
    assert ((explanation.distortion_maps >= 0) & (explanation.distortion_maps <= 1)).all()
    assert explanation.attention.shape == (2, 3, height, width)
    assert explanation.attribution.shape == (height, width)
    assert explanation.expert_share.shape == (3, 4)
    assert explanation.expert_map.shape == (4, height, width)
    np.testing.assert_allclose(explanation.expert_share.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(explanation.expert_map.sum(0), 1, rtol=1e-5)
    assert 0 <= explanation.quality_map.min() <= explanation.quality_map.max() <= 1
    assert np.ptp(explanation.quality_map) > 0
    np.testing.assert_allclose(explanation.attention.mean((2, 3)), 1, atol=0.15)
    assert tuple(explanation.distortions) == network.distortion_names


def test_score_and_std_are_those_of_the_network(network, photo):
    explanation = explain(photo, network, attribution_steps=0)
    with torch.no_grad():
        score, std = network(photo[None], return_std=True)
    # Attention with its weights takes another path through torch, which rounds in another order.
    assert explanation.score == pytest.approx(score.item(), abs=1e-6)
    assert explanation.std == pytest.approx(std.item(), abs=1e-6)
    assert explanation.attribution is None


def test_the_network_is_left_as_found(whole, photo):
    whole.train()
    whole.decoder.moe.eval()
    whole.decoder.head.weight.requires_grad_(False)
    whole.decoder.head.bias.grad = torch.ones(1)
    modes = [module.training for module in whole.modules()]
    flags = [parameter.requires_grad for parameter in whole.parameters()]
    weights = {key: value.clone() for key, value in whole.state_dict().items()}
    numbers = torch.get_rng_state()
    try:
        explain(photo, whole, attribution_steps=1)
        assert [module.training for module in whole.modules()] == modes
        assert [parameter.requires_grad for parameter in whole.parameters()] == flags
        for key, value in whole.state_dict().items():
            assert torch.equal(value, weights[key]), key
        assert torch.equal(torch.get_rng_state(), numbers)
        gradients = [parameter.grad for parameter in whole.parameters()]
        assert [gradient is not None for gradient in gradients].count(True) == 1
        assert torch.equal(whole.decoder.head.bias.grad, torch.ones(1))
    finally:
        whole.decoder.head.bias.grad = None
        whole.requires_grad_(True).eval()


def test_it_is_public_though_its_room_has_another_name():
    assert lifeiqa_plugin.explain is explain
    assert "explain" in lifeiqa_plugin.__all__


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (3, 900)])
def test_an_image_of_one_colour_is_explained_as_such(network, height, width):
    explanation = explain(torch.full((3, height, width), 0.5), network, attribution_steps=1)
    assert explanation.sentence == "one color throughout: there is nothing to judge"
    assert explanation.size == (width, height)
    assert figure.draw(explanation, "png").startswith(b"\x89PNG")


def test_weights_that_have_diverged_are_an_error_after_which_the_mode_is_as_before(photo, whole):
    whole.train()
    with torch.no_grad():
        before = whole.decoder.head.bias.clone()
        whole.decoder.head.bias.fill_(torch.nan)
    try:
        with pytest.raises(FloatingPointError, match="the score is not finite"):
            explain(photo, whole)
        assert whole.training
        assert whole.backbone.training
    finally:
        whole.eval()
        with torch.no_grad():
            whole.decoder.head.bias.copy_(before)


@pytest.mark.parametrize("steps", [-1, 2.5, "4"])
def test_a_number_of_steps_that_cannot_be_is_refused(photo, whole, steps):
    words = f"attribution_steps must be a whole number, at least 0, got {steps!r}"
    with pytest.raises(ValueError, match=words):
        explain(photo, whole, attribution_steps=steps)


def test_the_bundled_network_is_the_default(tmp_path):
    Image.new("RGB", (8, 8), "gray").save(tmp_path / "gray.png")
    explanation = explain(str(tmp_path / "gray.png"), attribution_steps=0)
    network = lifeiqa_plugin.build_lifeiqa().eval()
    with torch.no_grad():
        expected = network(torch.full((1, 3, 8, 8), 128 / 255)).item()
    assert explanation.name == "gray.png"
    assert explanation.score == pytest.approx(expected, abs=1e-6)


def test_it_saves_a_figure_twice_its_arrays_and_a_manifest(explanation, tmp_path):
    folder = tmp_path / "new" / "folder"
    explanation.save(folder)
    assert {path.name for path in folder.iterdir()} == {
        "figure.png", "figure.svg", "arrays.npz", "manifest.json",
    }  # fmt: skip
    with Image.open(folder / "figure.png") as picture:
        assert picture.width == 1600
        assert len(picture.convert("L").getcolors()) > 50
    root = ElementTree.parse(folder / "figure.svg").getroot()
    assert root.tag.endswith("svg")
    with np.load(folder / "arrays.npz") as arrays:
        np.testing.assert_allclose(arrays["quality_map"], explanation.quality_map, atol=1e-3)
        assert arrays["attention"].shape == (2, 3, 23, 33)
        assert arrays["distortion_maps"].shape == (3, 23, 33)
        np.testing.assert_array_equal(arrays["image"], explanation.image)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == "a <b> $x$ 写真.jpg"
    assert manifest["sentence"] == explanation.sentence
    assert manifest["score"] == pytest.approx(explanation.score, abs=1e-6)
    assert list(manifest["distortions"]) == ["blur", "noise", "dark"]


@pytest.mark.parametrize("draw", [figure.draw, details.draw_details])
def test_the_same_explanation_is_the_same_file(explanation, draw):
    for kind in ("png", "svg"):
        assert draw(explanation, kind) == draw(explanation, kind)


@pytest.mark.parametrize(("height", "width", "ratio"), [(64, 384, 1.5), (300, 100, 0.6)])
def test_the_figure_takes_the_shape_of_the_photo(explanation, height, width, ratio):
    """A panorama has all of the width, and its bars below it."""
    shaped = replace(
        explanation,
        image=np.zeros((height, width, 3), np.uint8),
        quality_map=np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width),
    )
    with Image.open(io.BytesIO(figure.draw(shaped, "png"))) as picture:
        assert picture.width / picture.height > ratio


def texts(explanation):
    """What stands in the figure, which the file has as comments beside the outlines of letters."""
    return "\n".join(re.findall("<!-- (.*?) -->", figure.draw(explanation, "svg").decode()))


def test_the_figure_says_sentence_score_and_the_worst_place(explanation):
    even = np.full_like(explanation.quality_map, 0.5)
    plain = replace(explanation, quality_map=even, score=0.5, std=0.1)
    said = texts(plain)
    assert plain.sentence in said
    assert "score 0.50" in said
    assert "no place is worse than the rest by more than the doubt" in said
    even = even.copy()
    even[:30, :30] = 0.1
    said = texts(replace(plain, quality_map=even))
    assert "outlined: the worst place, 0.10" in said


def test_bars_are_of_what_is_named_then_of_what_is_nearest_to_its_cut(explanation):
    naming = {
        "any blur": {"likely": 0.1, "sure": 0.2, "shares": [[0, 0.6], [1, 1]]},
        "noise": {"likely": 0.2, "sure": 0.3},
    }
    values = {"blur": 0.25, "noise": 0.1, "dark": 0.3}
    first, *others = figure.bars_of(
        replace(explanation, score=0.5, distortions=values, naming=naming)
    )
    assert first == figure.Bar("out of focus", pytest.approx(0.7), True)
    assert others == [figure.Bar("too dark", 0.3, False), figure.Bar("noise", 0.1, False)]


def test_an_existing_folder_is_refused(explanation, tmp_path):
    with pytest.raises(FileExistsError, match="exists; choose another folder, or pass overwrite"):
        explanation.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_refused(explanation, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileExistsError, match="file is a file; expected the name of a folder"):
            explanation.save(folder, overwrite=True)


def test_a_folder_that_may_not_be_written_is_refused(explanation, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match=f"new: no permission to write in {tmp_path}"):
        explanation.save(tmp_path / "new")


def test_a_failure_leaves_no_manifest_not_even_an_old_one(explanation, tmp_path, monkeypatch):
    explanation.save(tmp_path / "out")
    monkeypatch.setattr(np, "savez_compressed", _fail)
    with pytest.raises(OSError, match="disk is full"):
        explanation.save(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "manifest.json").exists()


def _fail(*args, **options):
    raise OSError("the disk is full")


def test_notebooks_get_the_figure_and_no_markup_from_names(explanation):
    shown = explanation._repr_html_()
    assert "data:image/png;base64," in shown
    assert "a &lt;b&gt;" in shown
    assert "<b>" not in shown


def test_colours_of_the_map_span_at_least_four_standard_deviations(explanation):
    low, high = details.quality_limits(explanation)
    assert high - low == pytest.approx(max(4 * explanation.std, np.ptp(explanation.quality_map)))
    assert low <= explanation.quality_map.min()
    assert explanation.quality_map.max() <= high


def test_the_figure_shows_the_distortion_whose_place_is_said_else_the_strongest(explanation):
    maps = np.zeros_like(explanation.distortion_maps)
    uniform = {"blur": 0.1, "noise": 0.3, "dark": 0.2}
    even = replace(explanation, distortions=uniform, distortion_maps=maps, score=0.5)
    assert details.main_flaw(even)[0] == "noise"
    assert even.sentence == "fair: cause not named"
    maps = maps.copy()
    maps[1, 60:, 90:] = 0.9
    quality = np.full_like(explanation.quality_map, 0.5)
    quality[60:, 90:] = 0.1
    local = replace(even, distortion_maps=maps, quality_map=quality, std=0.1)
    name, shown = details.main_flaw(local)
    assert name == "noise"
    np.testing.assert_array_equal(shown, maps[1])
    assert local.sentence == "fair: strong noise in the lower right"


def test_the_figure_needs_matplotlib_and_says_so(explanation, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'lifeiqa_plugin\[explain\]'"):
        figure.draw(explanation, "png")


def test_a_tiny_image_is_too_small_to_judge(network):
    pixels = torch.rand(3, 32, 90, generator=torch.Generator().manual_seed(0))
    assert explain(pixels, network, attribution_steps=0).sentence == "too small to judge"

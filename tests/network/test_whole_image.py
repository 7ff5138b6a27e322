"""Whole images in one pass, and the second head that tells distortions apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lifeiqa_plugin.network.decoder import pool_to_grid
from lifeiqa_plugin.network.lifeiqa import LifeIQA

TINY = "test_efficientnet"


def tiny(**options):
    decoder = {"embed_dim": 24, "num_heads": 2, "depth": 2, "num_experts": 4}
    scoring = {"score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110}
    network = LifeIQA(TINY, **(decoder | scoring | options)).eval()
    nn.init.normal_(network.decoder.head.weight, std=0.5)
    return network


@pytest.fixture
def whole():
    return tiny(whole_image=True)


@pytest.mark.parametrize(
    ("size", "working"),
    [
        ((110, 70), (110, 70)), ((70, 110), (70, 110)), ((64, 64), (64, 64)), ((97, 101), (97, 101)),
        ((220, 440), (110, 220)), ((300, 150), (220, 110)), ((1, 1), (64, 64)), ((20, 60), (64, 192)),
        ((1, 900), (64, 512)), ((3000, 2), (512, 64)),
    ],
)  # fmt: skip
def test_any_shape_passes_in_one_piece(whole, size, working):
    with torch.no_grad():
        details = whole(torch.rand(2, 3, *size), return_details=True)
    assert details.crop_offsets == [(0, 0)]
    assert details.crop_shape == working
    assert details.crop_scores.shape == (2, 1)
    assert torch.equal(details.score, details.crop_scores)
    assert details.attention.shape == (2, 1, 2, 6, 49)
    torch.testing.assert_close(details.attention.sum(-1), torch.ones(2, 1, 2, 6))
    assert ((details.score > 0) & (details.score < 1)).all()


@pytest.mark.parametrize("side", [32, 33, 47])
def test_small_images_need_no_crop(side):
    network = tiny(whole_image=True, crop_size=32)
    assert network(torch.rand(1, 3, side, 40)).isfinite().all()


def test_one_crop_is_the_whole_image(whole):
    """An image that is exactly one crop has one score, cut or whole."""
    crops, x = tiny(), torch.rand(3, 3, 64, 64)
    crops.load_state_dict(whole.state_dict())
    with torch.no_grad():
        assert torch.equal(whole(x), crops(x))
        larger = torch.rand(3, 3, 80, 100)
        assert not torch.equal(whole(larger), crops(larger)), "else nothing would be proven"


def test_it_is_backbone_and_decoder_on_the_image(whole):
    x = torch.rand(2, 3, 77, 105)
    with torch.no_grad():
        stages = whole.backbone((x - whole.mean) / whole.std)
        expected = whole.decoder(*stages).query_scores.mean(1, keepdim=True).sigmoid()
        torch.testing.assert_close(whole(x), expected)


def test_a_batch_is_its_images(whole):
    x = torch.rand(5, 3, 80, 70)
    with torch.no_grad():
        together, alone = whole(x), torch.cat([whole(one[None]) for one in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert together.std() > 1e-4, "equal scores would prove nothing"


def test_chunks_bound_the_memory_by_images(whole, monkeypatch):
    x, sizes, forward = torch.rand(5, 3, 80, 70), [], whole.backbone.forward
    with torch.no_grad():
        expected = whole(x)
        whole.chunk_size = 2
        monkeypatch.setattr(whole.backbone, "forward", lambda x: sizes.append(len(x)) or forward(x))
        torch.testing.assert_close(whole(x), expected, atol=1e-6, rtol=1e-6)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("size", [(70, 110), (300, 150), (5, 9)])
def test_gradient_reaches_the_image(whole, size):
    x = torch.rand(2, 3, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(whole(x).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_every_pixel_counts(whole):
    """Also those at the edges and in the corners."""
    x = torch.rand(1, 3, 97, 75, requires_grad=True)
    (gradient,) = torch.autograd.grad(whole(x).sum(), x)
    assert (gradient[0].abs().sum(0) > 0).all()


def test_export_and_compile(whole):
    x, other = torch.rand(1, 3, 80, 100), torch.rand(1, 3, 80, 100)
    with torch.no_grad():
        exported = torch.export.export(whole, (x,)).module()
        torch.testing.assert_close(exported(other), whole(other))
        compiled = torch.compile(whole, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(other), whole(other))


def test_fixed_backbones_are_refused():
    message = "whole_image needs a backbone that takes images of any size, got 'test_vit', which takes 160x160 only"
    with pytest.raises(ValueError, match=message):
        LifeIQA("test_vit", embed_dim=24, num_heads=2, whole_image=True)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_whole_image_is_a_switch(value):
    with pytest.raises(TypeError, match=f"whole_image must be True or False, got {value!r}"):
        tiny(whole_image=value)


# ---------------------------------------------------------------------------------------------------------- distortions


@pytest.mark.parametrize("whole_image", [False, True])
def test_distortions(whole_image):
    network = tiny(distortions=["blur", "noise", "jpeg"], whole_image=whole_image)
    assert network.distortion_names == ("blur", "noise", "jpeg")
    seen = []
    network.decoder.distortion_head.register_forward_hook(lambda *args: seen.append(args))
    details = network(torch.rand(2, 3, 80, 110), return_details=True)
    assert details.distortions.shape == (2, 3)
    assert ((details.distortions > 0) & (details.distortions < 1)).all()
    (_, _, logits) = seen[0]
    crops = 1 if whole_image else 4
    expected = logits.view(2, crops, 3).sigmoid().mean(1)
    torch.testing.assert_close(details.distortions, expected)


def test_distortions_are_told_from_the_mean_token():
    network = tiny(distortions=["blur", "noise"], whole_image=True)
    seen = {}
    network.decoder.head.register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    with torch.no_grad():
        details = network(torch.rand(2, 3, 80, 110), return_details=True)
    head = network.decoder.distortion_head
    expected = (seen["tokens"].mean(1) @ head.weight.T + head.bias).sigmoid()
    torch.testing.assert_close(details.distortions, expected)


def test_distortions_are_told_from_the_stages():
    """Mean and deviation of stage2 and of stage3's cells through two layers; the score sees nothing of it."""
    network = tiny(distortions=["blur", "noise"], distortions_from="stages", whole_image=True)
    x = torch.rand(2, 3, 80, 110)
    with torch.no_grad():
        stage2, stage3, _ = network.stages_of(network.normalize(x))
        details = network(x, return_details=True)
    cells = pool_to_grid(stage3, network.decoder.config.memory_grid).flatten(2)
    maps = [stage2.flatten(2), cells]
    statistics = torch.cat([x for m in maps for x in (m.mean(2), m.std(2, correction=0))], 1)
    expected = network.decoder.distortion_head(statistics).sigmoid()
    torch.testing.assert_close(
        details.distortions, expected, atol=1e-4, rtol=0
    )  # a deviation is sqrt(variance + 1e-6)
    constant = torch.full((1, 3, 64, 64), 0.5)
    network(constant, return_details=True).distortions.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_what_distortions_may_be_told_from():
    message = "distortions_from must be 'queries' or 'stages', got 'image'"
    with pytest.raises(ValueError, match=message):
        tiny(distortions=["blur"], distortions_from="image")


def test_a_network_without_distortions_has_no_second_head():
    network = tiny()
    assert network.distortion_names == ()
    assert not [key for key in network.state_dict() if "distortion" in key]
    assert network(torch.rand(2, 3, 64, 64), return_details=True).distortions.shape == (2, 0)
    named = tiny(distortions=("blur",))
    more = named.state_dict().keys() - network.state_dict().keys()
    assert more == {"decoder.distortion_head.weight", "decoder.distortion_head.bias"}


def test_the_second_head_changes_no_score():
    plain, named = tiny(), tiny(distortions=("blur", "noise"))
    named.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 80, 110)
    with torch.no_grad():
        assert torch.equal(plain(x), named(x))


@pytest.mark.parametrize("names", ["blur", ["blur", 3], [""], [None]])
def test_names_of_distortions(names):
    with pytest.raises(TypeError, match="distortions must be a list of names, got "):
        tiny(distortions=names)

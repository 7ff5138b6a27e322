"""The whole network, by crops and whole: what it promises about its score."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lifeiqa_plugin.network.crops import cut_crops
from lifeiqa_plugin.network.lifeiqa import LifeIQAOutput
from lifeiqa_plugin.network.moe import load_balancing_loss, router_z_loss


def test_the_network_of_these_tests_tells_images_apart(network):
    """Sanity of the fixture: different images get different scores."""
    scores = [network(torch.full((1, 3, 64, 64), level)).item() for level in (0.0, 0.3, 0.6, 0.9)]
    assert all(a != b for a, b in pairwise(scores))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (64, 64), (65, 110), (30, 700), (600, 400)])
def test_any_size(either, size):
    with torch.no_grad():
        score = either(torch.rand(2, 3, *size))
    assert score.shape == (2, 1)
    assert score.dtype == torch.float32
    assert ((score > 0) & (score < 1)).all()


@pytest.mark.parametrize(
    ("size", "working"),
    [
        ((110, 70), (110, 70)), ((97, 101), (97, 101)), ((220, 440), (110, 220)), ((20, 60), (64, 192)),
        ((3000, 2), (512, 64)),
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


def test_one_crop_is_the_whole_image(tiny, whole):
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


def test_score_is_the_mean_over_crops_of_the_mean_over_queries(network):
    x = torch.rand(2, 3, 80, 110)
    details = network(x, return_details=True)
    assert details.crop_offsets == [(0, 0), (0, 46), (16, 0), (16, 46)]
    for n, (top, left) in enumerate(details.crop_offsets):
        alone = network(x[:, :, top : top + 64, left : left + 64])
        torch.testing.assert_close(details.crop_scores[:, n], alone[:, 0])
    torch.testing.assert_close(details.crop_scores, details.query_scores.mean(2).sigmoid())
    torch.testing.assert_close(details.score, details.crop_scores.mean(1, keepdim=True))
    torch.testing.assert_close(network(x), details.score)


def test_score_range(tiny):
    raw, scaled = tiny(score_range=None), tiny(score_range=(1.0, 5.0))
    scaled.load_state_dict(raw.state_dict())
    x = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(scaled(x), 1 + 4 * raw(x).sigmoid())
    for bias, bound in ((100.0, 5.0), (-100.0, 1.0)):
        nn.init.constant_(scaled.decoder.head.bias, bias)
        torch.testing.assert_close(scaled(x), torch.full((4, 1), bound))


def test_batch_of_one_is_batch_of_eight(either):
    x = torch.rand(8, 3, 80, 70)
    with torch.no_grad():
        together, alone = either(x), torch.cat([either(one[None]) for one in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert together.std() > 1e-4, "equal scores would prove nothing"


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 1000])
def test_chunks_change_nothing(network, chunk_size):
    x = torch.rand(2, 3, 100, 180)
    with torch.no_grad():
        expected = network(x, return_details=True)
        network.chunk_size = chunk_size
        chunked = network(x, return_details=True)
    torch.testing.assert_close(chunked, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("whole_image", "batch", "sizes"),
    [(False, 2, [5, 5, 5, 1]), (True, 7, [5, 2])],  # eight crops of each image, or one
)
def test_chunks_bound_the_memory(tiny, monkeypatch, whole_image, batch, sizes):
    network, seen = tiny(whole_image=whole_image, chunk_size=5), []
    forward = network.backbone.forward
    monkeypatch.setattr(network.backbone, "forward", lambda x: seen.append(len(x)) or forward(x))
    network(torch.rand(batch, 3, 64, 512))
    assert seen == sizes


def test_test_sample(network):
    x = torch.rand(1, 3, 110, 110)
    assert network(x, return_details=True).crop_scores.shape == (1, 4)
    network.test_sample = 1
    details = network(x, return_details=True)
    assert details.crop_offsets == [(23, 23)]
    torch.testing.assert_close(network(x), network(x[..., 23:87, 23:87]))


def test_std_is_the_spread_of_queries_and_crops_on_a_line(tiny):
    x = torch.rand(2, 3, 80, 110)
    network = tiny(score_range=(0, 1), std_calibration=(0.05, 2.0))
    details = network(x, return_details=True)
    score, std = network(x, return_std=True)
    spread = details.query_scores.sigmoid().flatten(1).std(1, correction=0)
    torch.testing.assert_close(std[:, 0], 0.05 + 2 * spread)
    assert std.shape == score.shape == (2, 1)
    assert torch.equal(score, network(x))
    torch.testing.assert_close(std, details.std)


def test_gray_is_gray_repeated(network):
    gray = torch.rand(2, 1, 80, 110)
    torch.testing.assert_close(network(gray), network(gray.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_of_the_image(network, dtype):
    x = torch.rand(1, 3, 64, 64).to(dtype)
    score = network(x)
    assert score.dtype == torch.float32
    assert torch.equal(score, network(x.float()))


def test_same_bits_each_time(network):
    x = torch.rand(2, 3, 120, 150)
    with torch.no_grad():
        first = network(x)
        assert all(torch.equal(network(x), first) for _ in range(3))


def test_leaves_the_world_as_found(network):
    def world():
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        )

    x = torch.rand(1, 3, 120, 150)
    kept, before = x.clone(), world()
    network(x)
    network(x, return_details=True)
    assert world() == before
    assert torch.equal(x, kept)
    assert not network.training


@pytest.mark.slow
def test_a_huge_image_fits_in_memory(run_python, tmp_path):
    """100 megapixels within 3 GB: the image (1.2 GB) and PyTorch (0.4 to 0.9 GB) are most of it."""
    code = """
import resource, torch
from lifeiqa_plugin.network.lifeiqa import LifeIQA
network = LifeIQA("tf_efficientnet_lite0", embed_dim=48).eval()
with torch.inference_mode():
    network(torch.full((1, 3, 10_000, 10_000), 0.5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = run_python(
        "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parents[2])
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 3e9


@pytest.mark.parametrize("num_experts", [1, 4])
def test_details(tiny, num_experts):
    network = tiny(num_experts=num_experts, num_queries=5, memory_grid=3)
    details = network(torch.rand(2, 3, 80, 110), return_details=True)
    assert isinstance(details, LifeIQAOutput)
    tensors = {k: v for k, v in details._asdict().items() if isinstance(v, torch.Tensor)}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    assert shapes == {
        "score": (2, 1),
        "std": (2, 1),
        "crop_scores": (2, 4),
        "query_scores": (2, 4, 5),
        "attention": (2, 4, 2, 5, 9),
        "gates": (2, 4, 5, num_experts),
        "expert_index": (2, 4, 5, min(2, num_experts)),
        "distortions": (2, 0),
        "load_balancing_loss": (),
        "router_z_loss": (),
    }
    torch.testing.assert_close(details.attention.sum(-1), torch.ones(2, 4, 2, 5))
    torch.testing.assert_close(details.gates.sum(-1), torch.ones(2, 4, 5))
    assert details.attention.min() >= 0


@pytest.mark.parametrize("balancing", ["released", "switch"])
def test_side_losses_run_over_all_tokens(tiny, balancing):
    network = tiny(balancing=balancing)
    network.chunk_size = 3
    x = torch.rand(2, 3, 80, 110)
    details = network(x, return_details=True)
    with torch.no_grad():
        crops = cut_crops(x, details.crop_offsets, 64)
        routing = network.forward_crops(crops).routing
    torch.testing.assert_close(details.load_balancing_loss, load_balancing_loss(routing, balancing))
    torch.testing.assert_close(details.router_z_loss, router_z_loss(routing))


def test_every_parameter_learns(network):
    network.train()
    details = network(torch.rand(4, 3, 110, 110), return_details=True)
    (details.score.sum() + details.load_balancing_loss + details.router_z_loss).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert [name for name, p in network.decoder.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (200, 300)])
def test_gradient_to_the_image(either, size):
    x = torch.rand(2, 3, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(either(x).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_every_pixel_counts(whole):
    """Also those at the edges and in the corners."""
    x = torch.rand(1, 3, 97, 75, requires_grad=True)
    (gradient,) = torch.autograd.grad(whole(x).sum(), x)
    assert (gradient[0].abs().sum(0) > 0).all()


def test_following_the_gradient_raises_the_score(network):
    x = (0.3 + 0.4 * torch.rand(1, 3, 64, 64)).requires_grad_()
    before = network(x)
    (gradient,) = torch.autograd.grad(before, x)
    with torch.no_grad():
        assert network(x + 1e-3 * gradient.sign()) > before > network(x - 1e-3 * gradient.sign())


@pytest.mark.slow
def test_export_gives_the_same_numbers(either):
    x, other = torch.rand(2, 3, 80, 100), torch.rand(2, 3, 80, 100)
    with torch.no_grad():
        exported = torch.export.export(either, (x,)).module()
        torch.testing.assert_close(exported(other), either(other))


@pytest.mark.slow
def test_compile_follows_other_sizes(either):
    compiled = torch.compile(either, fullgraph=True, backend="eager")
    with torch.no_grad():
        for size in ((64, 64), (100, 80), (300, 110)):
            x = torch.rand(1, 3, *size)
            torch.testing.assert_close(compiled(x), either(x))
        with pytest.raises(RuntimeError, match="images must be finite"):
            compiled(torch.full((1, 3, 64, 64), float("nan")))

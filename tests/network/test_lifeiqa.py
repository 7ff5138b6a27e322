"""The whole network: sizes, backbones, crops, what it promises about its score, and what it refuses."""

from __future__ import annotations

import functools
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from lifeiqa_plugin.network.config import PRESETS, SWIN_B
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig
from lifeiqa_plugin.network.lifeiqa import LifeIQA, LifeIQAOutput
from lifeiqa_plugin.network.moe import Routing, load_balancing_loss, router_z_loss

TINY = "test_efficientnet"  # timm's own for tests: 0.1 M parameters, any input size


def tiny(**options):
    decoder = {"embed_dim": 24, "num_heads": 2, "depth": 2, "num_experts": 4}
    scoring = {"score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110}
    return LifeIQA(TINY, **(decoder | scoring | options)).eval()


@pytest.fixture
def network():
    """A tiny network whose scores differ visibly from image to image."""
    network = tiny()
    nn.init.normal_(network.decoder.head.weight, std=0.5)
    return network


@pytest.fixture
def no_memory(monkeypatch):
    """Build backbones without their weights, for counting."""
    create = timm.create_model

    def create_on_meta(*args, **options):
        with torch.device("meta"):
            return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", create_on_meta)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("num_experts", "depth", "parameters"),
    [
        (1, 4, 91_404_090),
        (2, 4, 92_586_428),
        (4, 4, 94_950_334),
        (8, 4, 99_678_146),
        (2, 2, 91_142_780),
    ],
)
def test_parameters_to_the_last_digit(no_memory, num_experts, depth, parameters):
    network = LifeIQA(num_experts=num_experts, depth=depth)
    assert count(network.backbone) == 86_741_176
    assert count(network) == parameters


def test_presets(no_memory):
    released, paper = LifeIQA(**PRESETS["released"]), LifeIQA(**PRESETS["paper"])
    learned_edges = 4 * 6 * 6
    assert count(released) == 99_678_146
    assert count(paper) == 94_950_334 + learned_edges
    assert released.config == LifeIQA().config | PRESETS["released"] == LifeIQA().config, (
        "the defaults are as released"
    )
    for network, grid, final, scaled, adjacency in (
        (released, 7, False, "experts", "fixed"),
        (paper, 6, True, "bypass", "learnable"),
    ):
        assert network.decoder.config.memory_grid == grid
        assert network.decoder.config.moe_scaled == scaled
        for layer in network.decoder.layers:
            assert layer.gcn.final_activation == final
            assert isinstance(layer.gcn.edge_weight, nn.Parameter) == (adjacency == "learnable")


def test_paper_preset_runs():
    details = tiny(**PRESETS["paper"])(torch.rand(1, 3, 64, 64), return_details=True)
    assert details.attention.shape == (1, 1, 2, 6, 36)
    assert details.gates.shape == (1, 1, 6, 4)


def small_decoder(stage4_channels=16, **options):
    options = {"embed_dim": 24, "num_heads": 2, "depth": 1} | options
    return Decoder([16, stage4_channels], DecoderConfig(**options)).eval()


def seen_by(module, run):
    """Return the arguments and the output of a part of a network while ``run`` is called."""
    seen = []
    hook = module.register_forward_hook(lambda _module, args, out: seen.append((args, out)))
    run()
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize("moe_scaled", ["experts", "bypass"])
def test_sides_of_the_residual(moe_scaled):
    decoder = small_decoder(moe_scaled=moe_scaled)
    stages = torch.randn(2, 16, 14, 14), torch.randn(2, 16, 7, 7)
    (normed,), (mixed, _) = seen_by(decoder.moe, lambda: decoder(*stages))
    (tokens,), _ = seen_by(decoder.head, lambda: decoder(*stages))
    expected = normed + 0.1 * mixed if moe_scaled == "experts" else mixed + 0.1 * normed
    torch.testing.assert_close(tokens, expected)


def test_context_and_memory_are_averages():
    decoder = small_decoder(stage4_channels=20)
    stage3, stage4 = torch.randn(2, 16, 14, 14), torch.randn(2, 20, 7, 7)
    (queries, memory, _), _ = seen_by(decoder.layers[0], lambda: decoder(stage3, stage4))
    weight, bias = decoder.context.weight, decoder.context.bias
    projected = torch.einsum("bchw,dc->bdhw", stage4, weight) + bias[:, None, None]
    torch.testing.assert_close(queries, decoder.query_tokens + projected.mean((2, 3))[:, None])
    for row, col in ((0, 0), (3, 5), (6, 6)):  # of the 7 x 7 grid, each cell 2 x 2
        cell = stage3[:, :, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].mean((2, 3))
        torch.testing.assert_close(memory[:, 7 * row + col], decoder.memory(cell))


@pytest.mark.parametrize("side", [3, 6, 7, 10, 14, 20])
def test_memory_grid_from_any_stage(side):
    decoder, stage3 = small_decoder(memory_grid=6), torch.randn(2, 16, side, side + 1)
    expected = nn.functional.adaptive_avg_pool2d(stage3, 6).flatten(2).mT
    stage4 = torch.randn(2, 16, 5, 5)
    (_, memory, _), _ = seen_by(decoder.layers[0], lambda: decoder(stage3, stage4))
    torch.testing.assert_close(memory, decoder.memory(expected))


def test_order_of_the_queries_does_not_matter(network):
    x, order = torch.rand(2, 3, 64, 64), torch.tensor([3, 0, 5, 1, 4, 2])
    before = network(x, return_details=True)
    with torch.no_grad():
        network.decoder.query_tokens.copy_(network.decoder.query_tokens[:, order])
    after = network(x, return_details=True)
    torch.testing.assert_close(after.score, before.score)
    torch.testing.assert_close(after.query_scores, before.query_scores[:, :, order])
    assert before.query_scores.std(2).min() > 1e-4, "equal queries would prove nothing"


# ------------------------------------------------------------------------------------------------------------ backbones


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet18", (256, 512)), ("tf_efficientnet_lite0", (112, 320)), ("mobilenetv3_small_100", (48, 576)),
        ("pvt_v2_b0", (160, 256)), ("convnext_atto", (160, 320)), ("test_vit", (64, 64)),
    ],
)  # fmt: skip
def test_backbones_run(backbone, channels):
    network = LifeIQA(backbone, embed_dim=24, num_heads=2, depth=1, num_experts=2).eval()
    assert tuple(network.backbone.feature_info.channels()) == channels
    with torch.no_grad():
        score = network(torch.rand(2, 3, network.crop_size, network.crop_size))
    assert score.shape == (2, 1)
    assert score.isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("swin_tiny_patch4_window7_224", (384, 768)), ("swin_small_patch4_window7_224", (384, 768)),
        (SWIN_B, (512, 1024)), ("convnext_tiny", (384, 768)), ("resnet50", (1024, 2048)),
        ("tf_efficientnet_lite2", (120, 352)), ("efficientnet_b0", (112, 320)), ("mobilenetv3_large_100", (112, 960)),
        ("pvt_v2_b2", (320, 512)), ("vgg11", (512, 512)), ("vit_tiny_patch16_224", (192, 192)),
    ],
)  # fmt: skip
def test_backbones_build(no_memory, backbone, channels):
    network = LifeIQA(backbone, embed_dim=24, num_heads=2, depth=1, num_experts=2)
    assert tuple(network.backbone.feature_info.channels()) == channels


def test_channels_last_backbone():
    """Swin gives (B, H, W, C); its decoder must see what it would see of the same stages channels-first."""
    network = LifeIQA(
        "swin_tiny_patch4_window7_224", embed_dim=24, num_heads=2, depth=1, num_experts=2
    ).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        stage3, stage4 = network.backbone((x - network.mean) / network.std)
        assert (stage3.shape, stage4.shape) == ((1, 14, 14, 384), (1, 7, 7, 768))
        expected = network.decoder(
            stage3.permute(0, 3, 1, 2), stage4.permute(0, 3, 1, 2), need_weights=True
        )
        details = network(x, return_details=True)
    torch.testing.assert_close(details.query_scores[:, 0], expected.query_scores)
    torch.testing.assert_close(
        details.attention[:, 0], expected.attention
    )  # rows and columns in their places
    assert details.attention.std() > 1e-5, "even attention would prove nothing"


@pytest.mark.parametrize(
    ("backbone", "crop_size", "mean"),
    [
        (TINY, 160, (0.485, 0.456, 0.406)), ("resnet18", 224, (0.485, 0.456, 0.406)),
        ("tf_efficientnet_lite2", 260, (0.5, 0.5, 0.5)),
    ],
)  # fmt: skip
def test_input_comes_from_timm(no_memory, backbone, crop_size, mean):
    config = timm.get_pretrained_cfg(backbone)
    network = LifeIQA(backbone, embed_dim=24, num_heads=2)
    assert network.crop_size == config.input_size[-1] == crop_size
    assert network.working_size == round(crop_size * 12 / 7)
    assert config.mean == mean
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(config.mean))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(config.std))


def test_backbone_sees_normalised_images(network, monkeypatch):
    seen, stages = [], [torch.zeros(1, 48, 4, 4), torch.zeros(1, 64, 2, 2)]
    monkeypatch.setattr(network.backbone, "forward", lambda x: seen.append(x) or stages)
    network(
        torch.tensor([0.485 + 0.229, 0.456, 0.406 - 0.225]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    )
    torch.testing.assert_close(
        seen[0], torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [("swin_tiny_patch4_window7", "swin_tiny_patch4_window7_224"), ("resnet_50", "resnet50"),
     ("resnet50.a1_in1", "resnet50.a1_in1k"), ("qqqqqq", "none, see timm.list_models()")],
)  # fmt: skip
def test_unknown_backbone_names_the_nearest(name, near):
    with pytest.raises(
        ValueError, match=f"backbone must be a timm model, got '{name}'; nearest names: "
    ) as error:
        LifeIQA(name)
    assert near in str(error.value)


def test_backbone_with_one_stage_is_refused(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, out_indices, **options: create(name, out_indices=(-9, -1), **options),
    )
    with pytest.raises(
        ValueError, match="backbone 'resnet18' cannot give its last 2 feature stages: "
    ):
        LifeIQA("resnet18")


# ---------------------------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (64, 64), (65, 110), (30, 700), (600, 400)])
def test_any_size(network, size):
    with torch.no_grad():
        score = network(torch.rand(2, 3, *size))
    assert score.shape == (2, 1)
    assert score.dtype == torch.float32
    assert ((score > 0) & (score < 1)).all()


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


def test_score_range():
    raw, scaled = tiny(score_range=None), tiny(score_range=(1.0, 5.0))
    scaled.load_state_dict(raw.state_dict())
    x = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(scaled(x), 1 + 4 * raw(x).sigmoid())
    for bias, bound in ((100.0, 5.0), (-100.0, 1.0)):
        nn.init.constant_(scaled.decoder.head.bias, bias)
        torch.testing.assert_close(scaled(x), torch.full((4, 1), bound))


def test_batch_of_one_is_batch_of_eight(network):
    x = torch.rand(8, 3, 80, 70)
    with torch.no_grad():
        together, alone = network(x), torch.cat([network(one[None]) for one in x])
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


def test_chunks_bound_the_memory(network, monkeypatch):
    network.chunk_size, sizes, forward = 5, [], network.backbone.forward
    monkeypatch.setattr(network.backbone, "forward", lambda x: sizes.append(len(x)) or forward(x))
    network(torch.rand(2, 3, 64, 512))  # eight crops of each
    assert sizes == [5, 5, 5, 1]


def test_test_sample(network):
    x = torch.rand(1, 3, 110, 110)
    assert network(x, return_details=True).crop_scores.shape == (1, 4)
    network.test_sample = 1
    details = network(x, return_details=True)
    assert details.crop_offsets == [(23, 23)]
    torch.testing.assert_close(network(x), network(x[..., 23:87, 23:87]))


def test_std_is_the_spread_of_queries_and_crops_on_a_line():
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
    x = torch.rand(1, 3, 120, 150)
    kept, state, numbers, legacy = (
        x.clone(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].copy(),
    )
    network(x)
    network(x, return_details=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == numbers
    assert (np.random.get_state()[1] == legacy).all()
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


# -------------------------------------------------------------------------------------------------------------- details


@pytest.mark.parametrize("num_experts", [1, 4])
def test_details(num_experts):
    network = tiny(num_experts=num_experts, num_queries=5, memory_grid=3)
    details = network(torch.rand(2, 3, 80, 110), return_details=True)
    assert isinstance(details, LifeIQAOutput)
    shapes = {
        name: tuple(value.shape)
        for name, value in details._asdict().items()
        if isinstance(value, torch.Tensor)
    }
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


def test_attention_is_that_of_every_layer():
    decoder = small_decoder(depth=3)
    stages = torch.randn(1, 16, 14, 14), torch.randn(1, 16, 7, 7)
    out = decoder(*stages, need_weights=True)
    assert out.attention.shape == (1, 3, 6, 49)
    assert decoder(*stages).attention is None
    for number, layer in enumerate(decoder.layers):
        run = functools.partial(decoder, *stages)
        (x, memory, _), _ = seen_by(layer, run)
        q, k, _ = layer.attention.in_proj_weight.chunk(3)
        normed = layer.norm(x + layer.gcn(x))
        heads = [
            (normed @ q[h].T) @ (memory @ k[h].T).mT / 12**0.5 for h in (slice(12), slice(12, 24))
        ]
        expected = sum(logits.softmax(-1) for logits in heads) / 2
        torch.testing.assert_close(out.attention[:, number], expected)


@pytest.mark.parametrize("balancing", ["released", "switch"])
def test_side_losses_run_over_all_tokens(balancing):
    network = tiny(balancing=balancing)
    network.chunk_size = 3
    x = torch.rand(2, 3, 80, 110)
    details = network(x, return_details=True)
    with torch.no_grad():
        crops = [
            x[b, :, t : t + 64, left : left + 64]
            for b in range(2)
            for t, left in details.crop_offsets
        ]
        routing = Routing(*network.forward_crops(torch.stack(crops)).routing)
    torch.testing.assert_close(details.load_balancing_loss, load_balancing_loss(routing, balancing))
    torch.testing.assert_close(details.router_z_loss, router_z_loss(routing))


def test_every_parameter_learns(network):
    network.train()
    details = network(torch.rand(4, 3, 110, 110), return_details=True)
    (details.score.sum() + details.load_balancing_loss + details.router_z_loss).backward()
    assert [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ] == []
    assert [name for name, p in network.decoder.named_parameters() if not p.grad.any()] == []


# ------------------------------------------------------------------------------------------------------------- gradient


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (200, 300)])
def test_gradient_to_the_image(network, size):
    x = torch.rand(2, 3, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_following_the_gradient_raises_the_score(network):
    x = (0.3 + 0.4 * torch.rand(1, 3, 64, 64)).requires_grad_()
    before = network(x)
    (gradient,) = torch.autograd.grad(before, x)
    with torch.no_grad():
        assert network(x + 1e-3 * gradient.sign()) > before > network(x - 1e-3 * gradient.sign())


# ------------------------------------------------------------------------------------------------------------ compilers


@pytest.mark.slow
def test_export_gives_the_same_numbers():
    network, x, other = (
        tiny(crop_size=224, working_size=384),
        torch.rand(2, 3, 224, 224),
        torch.rand(2, 3, 224, 224),
    )
    with torch.no_grad():
        exported = torch.export.export(network, (x,)).module()
        torch.testing.assert_close(exported(other), network(other))


@pytest.mark.slow
def test_compile_follows_other_sizes(network):
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        for size in ((64, 64), (100, 80), (300, 110)):
            x = torch.rand(1, 3, *size)
            torch.testing.assert_close(compiled(x), network(x))
        for wrong in (255 * torch.rand(1, 3, 64, 64), torch.full((1, 3, 64, 64), float("nan"))):
            with pytest.raises(RuntimeError, match=r"images must be finite and lie in \[0, 1\]"):
                compiled(wrong)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # of torch.jit, at times
def test_tracing_is_refused(network):
    with pytest.raises(RuntimeError, match=r"cannot be traced.*trace network\.forward_crops"):
        torch.jit.trace(network, torch.rand(1, 3, 64, 64))


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.long), "torch.int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), "torch.bool"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "torch.complex64"),
        (np.zeros((1, 3, 8, 8), dtype=np.float32), "ndarray"),
        ([torch.zeros(3, 8, 8)], "list"),
        ("photo.jpg", "str"),
        (None, "NoneType"),
    ],
)
def test_wrong_types_are_refused(network, x, got):
    message = rf"images must be a floating-point tensor in \[0, 1\], got {got}; divide 8-bit images by 255"
    with pytest.raises(TypeError, match=message):
        network(x)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 8, 8), (8, 8), (1, 1, 3, 8, 8), (1, 2, 8, 8), (1, 4, 8, 8), (1, 8, 8, 3),
        (0, 3, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0),
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused(network, shape):
    message = r"images must be \(B, 1 or 3, H, W\) with no empty side, got "
    with pytest.raises(ValueError, match=message) as error:
        network(torch.zeros(shape))
    assert str(error.value).endswith(str(shape))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (float("nan"), "minimum nan and maximum nan"),
        (float("inf"), r"minimum 0\.\d+ and maximum inf"),
        (-float("inf"), r"minimum -inf and maximum 0\.\d+"),
    ],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_images_that_are_not_finite_are_refused(network, value, got, requires_grad):
    x = torch.rand(2, 3, 20, 20)
    x[1, 2, 7, 9] = value
    with pytest.raises(ValueError, match=f"images must be finite, got {got}"):
        network(x.requires_grad_(requires_grad))


@pytest.mark.parametrize(
    ("low", "high", "got"),
    [(-0.51, 1, "minimum -0.51 and maximum 1"), (0, 255, "minimum 0 and maximum 255")],
)
def test_images_out_of_range_are_refused(network, low, high, got):
    x = torch.full((1, 3, 20, 20), 0.5)
    x[0, 0, 0, 0], x[0, 1, 1, 1] = low, high
    with pytest.raises(ValueError, match=rf"images must lie in \[0, 1\], got {got}; rescale them"):
        network(x)
    with pytest.raises(ValueError, match="images must lie in"):
        network(x.requires_grad_())


def test_pixels_a_little_outside_count_as_the_nearest_inside(network):
    """With and without a gradient; the score is that of the image as it would be saved."""
    x = 2 * torch.rand(1, 3, 80, 90) - 0.5
    with torch.no_grad():
        score = network(x)
        assert torch.equal(score, network(x.clamp(0, 1)))
    x.requires_grad_()
    torch.testing.assert_close(network(x), score)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    outside = (x < 0) | (x > 1)
    assert 0.4 < outside.float().mean() < 0.6
    assert not gradient[outside].any()
    assert gradient[~outside].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"memory_grid": 0}, "memory_grid must be at least 1, got 0"),
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"depth": 65}, "depth must be at most 64, got 65"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"graph": "wheel"}, "graph must be 'complete', 'ring', 'star', 'none' or a list of"),
        (
            {"graph": [[0, 1], [2, 6]]},
            r"graph must name nodes 0 .. 5, as num_queries=6, got the edge",
        ),
        (
            {"graph": [[0, 1, 2]]},
            r"list of \[source, target\] pairs, got \[0, 1, 2\] among its edges",
        ),
        (
            {"graph": [[0, 1.5]]},
            r"list of \[source, target\] pairs, got \[0, 1.5\] among its edges",
        ),
        ({"distortions": ["blur", "blur"]}, "distortions must differ from one another, got "),
        ({"embed_dim": 30}, "embed_dim must be a multiple of 4 and of num_heads=2, got 30"),
        (
            {"embed_dim": 24, "num_heads": 5},
            "embed_dim must be a multiple of 4 and of num_heads=5, got 24",
        ),
        ({"moe_scaled": "both"}, "moe_scaled must be 'experts' or 'bypass', got 'both'"),
        ({"balancing": "none"}, "balancing must be 'released' or 'switch', got 'none'"),
        ({"adjacency": "dense"}, "adjacency must be 'fixed' or 'learnable', got 'dense'"),
        (
            {"scatter_backend": "pyg"},
            "scatter_backend must be 'auto', 'torch' or 'torch_scatter', got 'pyg'",
        ),
        (
            {"score_range": (1, 1)},
            r"score_range must be \(low, high\) with low < high, got \(1.0, 1.0\)",
        ),
        ({"crop_size": 0}, "crop_size must be at least 1, got 0"),
        ({"crop_size": 31}, "crop_size must be at least 32 for 'test_efficientnet', got 31"),
        ({"std_calibration": (0, float("nan"))}, "std_calibration must be two finite numbers, got"),
        ({"score_range": (0, float("inf"))}, "score_range must be two finite numbers, got"),
        (
            {"crop_size": 200, "working_size": 199},
            "working_size must be at least crop_size=200, got 199",
        ),
        ({"working_size": 0}, "working_size must be at least 1, got 0"),
        ({"test_sample": 0}, "test_sample must be at least 1, got 0"),
        ({"chunk_size": -2}, "chunk_size must be at least 1, got -2"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_damaged_weights_give_no_score(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        network.decoder.head.weight[0, 3] = float("nan")
    for options in ({}, {"return_std": True}, {"return_details": True}):
        with pytest.raises(FloatingPointError, match="the score is not finite: the weights are"):
            network(x, **options)


def test_the_network_of_these_tests_tells_images_apart(network):
    """Sanity of the fixture above: different images get different scores."""
    scores = [network(torch.full((1, 3, 64, 64), level)).item() for level in (0.0, 0.3, 0.6, 0.9)]
    assert all(a != b for a, b in pairwise(scores))

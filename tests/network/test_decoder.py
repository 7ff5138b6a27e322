"""The decoder's steps by themselves: queries, memory, attention, the residual, and the head that names distortions."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from lifeiqa_plugin.network.config import PRESETS
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig, pool_to_grid


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


def test_paper_preset_runs(tiny):
    details = tiny(**PRESETS["paper"])(torch.rand(1, 3, 64, 64), return_details=True)
    assert details.attention.shape == (1, 1, 2, 6, 36)
    assert details.gates.shape == (1, 1, 6, 4)


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


@pytest.mark.parametrize("whole_image", [False, True])
def test_distortions(tiny, whole_image):
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


def test_distortions_are_told_from_the_mean_token(tiny):
    network = tiny(distortions=["blur", "noise"], whole_image=True)
    seen = {}
    network.decoder.head.register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    with torch.no_grad():
        details = network(torch.rand(2, 3, 80, 110), return_details=True)
    head = network.decoder.distortion_head
    expected = (seen["tokens"].mean(1) @ head.weight.T + head.bias).sigmoid()
    torch.testing.assert_close(details.distortions, expected)


def test_distortions_are_told_from_the_stages(tiny):
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


def test_readouts_are_added_to_the_score_of_every_query(tiny):
    """Mean and deviation of stage2, stage3's cells and stage4, through read-outs that a softmax of gates weighs."""
    network = tiny(readouts=2, whole_image=True)
    x = torch.rand(2, 3, 80, 110)
    with torch.no_grad():
        stage2, stage3, stage4 = network.stages_of(network.normalize(x))
        found = network.decoder(stage2, stage3, stage4).query_scores
        readout = network.decoder.readout
        cells = pool_to_grid(stage3, network.decoder.config.memory_grid)
        maps = [m.flatten(2) for m in (stage2, cells, stage4)]
        parts = [y for m in maps for y in (m.mean(2), (m.var(2, correction=0) + 1e-6).sqrt())]
        statistics = torch.cat(parts, 1)
        first, second = (readout.values(statistics)).unbind(1)
        share = (readout.gates(statistics) @ torch.tensor([1.0, -1.0])).sigmoid()
        readout.values.weight.zero_(), readout.values.bias.zero_()
        without = network.decoder(stage2, stage3, stage4).query_scores
    added = share * first + (1 - share) * second
    assert added.abs().min() > 1e-3
    torch.testing.assert_close(found - without, added[:, None].expand_as(found), atol=1e-5, rtol=0)


def test_a_network_without_readouts_is_the_papers(tiny):
    more = tiny(readouts=1).state_dict().keys() - tiny().state_dict().keys()
    assert {name.rsplit(".", 1)[0] for name in more if "readout" in name} == {
        "decoder.readout.values",
        "decoder.readout.gates",
    }
    assert not [name for name in tiny().state_dict() if "readout" in name]


def test_a_network_without_distortions_has_no_second_head(tiny):
    network = tiny()
    assert network.distortion_names == ()
    assert not [key for key in network.state_dict() if "distortion" in key]
    assert network(torch.rand(2, 3, 64, 64), return_details=True).distortions.shape == (2, 0)
    named = tiny(distortions=("blur",))
    more = named.state_dict().keys() - network.state_dict().keys()
    assert more == {"decoder.distortion_head.weight", "decoder.distortion_head.bias"}


def test_the_second_head_changes_no_score(tiny):
    plain, named = tiny(), tiny(distortions=("blur", "noise"))
    named.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 80, 110)
    with torch.no_grad():
        assert torch.equal(plain(x), named(x))

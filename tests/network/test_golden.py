"""Our decoder with the weights of the released one gives its numbers, and whole released checkpoints load.

``golden/*.npz`` were produced by running the released decoder in float32 with scaled random weights; experts, top-k and
depth are in the names, C = 48, 6 heads. They hold ``weight/<released state-dict key>``, ``input/stage3`` and
``input/stage4`` channels-last, and ``output/*``. The weights are random numbers, nothing of the released code's text is
in them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.released import convert_released_state_dict, released_config
from lifeiqa_plugin.network.decoder import Decoder, DecoderConfig
from lifeiqa_plugin.network.lifeiqa import SWIN_B, LifeIQA
from lifeiqa_plugin.network.moe import load_balancing_loss, router_z_loss

FILES = {"e4k2d2": (4, 2), "e2k2d1": (2, 1), "e8k2d4": (8, 4)}
OUTPUTS = {
    "queries", "memory", "tokens_first_layer", "tokens_last_layer", "router_logits", "gates", "expert_index", "moe_out",
    "tokens_out", "score", "load_balancing_loss", "router_z_loss",
}  # fmt: skip
SMALL_SWIN = "swin_tiny_patch4_window7_224"


def read(name):
    """Return the released weights, the two stages channels-first, and the outputs of one file."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    weights, inputs, outputs = (
        {key.removeprefix(kind): value for key, value in arrays.items() if key.startswith(kind)}
        for kind in ("weight/", "input/", "output/")
    )
    return weights, [inputs[stage].permute(0, 3, 1, 2) for stage in ("stage3", "stage4")], outputs


def decoder_of(weights):
    decoder = Decoder([512, 1024], DecoderConfig(num_heads=6, **released_config(weights))).eval()
    converted = convert_released_state_dict(weights)
    decoder.load_state_dict(
        {key.removeprefix("decoder."): value for key, value in converted.items()}
    )
    return decoder


@torch.no_grad()
def every_stage(decoder, stage3, stage4):
    """Run the decoder and return what passes between its parts, under the names of the golden files."""
    seen = {}

    first, last = decoder.layers[0], decoder.layers[-1]
    hooks = [
        first.register_forward_pre_hook(
            lambda _, args: seen.update(queries=args[0], memory=args[1])
        ),
        first.register_forward_hook(lambda _m, _x, out: seen.update(tokens_first_layer=out[0])),
        last.register_forward_hook(lambda _m, _x, out: seen.update(tokens_last_layer=out[0])),
        decoder.moe.register_forward_hook(lambda _m, _x, out: seen.update(moe_out=out[0])),
        decoder.head.register_forward_pre_hook(lambda _, args: seen.update(tokens_out=args[0])),
    ]
    output = decoder(stage3, stage4)
    for hook in hooks:
        hook.remove()
    return output, seen


@pytest.mark.parametrize("name", FILES)
def test_every_output_of_the_released_decoder(name):
    weights, stages, expected = read(name)
    output, ours = every_stage(decoder_of(weights), *stages)
    ours |= output.routing._asdict()
    ours["score"] = output.query_scores.mean(1, keepdim=True)
    ours["load_balancing_loss"] = load_balancing_loss(output.routing)
    ours["router_z_loss"] = router_z_loss(output.routing)
    assert expected.keys() == OUTPUTS
    for key, value in expected.items():
        torch.testing.assert_close(
            ours[key], value, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", FILES)
def test_released_configuration_is_read_off_the_shapes(name):
    num_experts, depth = FILES[name]
    expected = {"embed_dim": 48, "num_queries": 6, "depth": depth, "num_experts": num_experts}
    assert released_config(read(name)[0]) == expected


def test_the_numbers_depend_on_each_weight():
    """No converted tensor is ignored: the comparison above is about all of them."""
    weights, stages, _ = read("e4k2d2")
    decoder = decoder_of(weights)
    decoder(*stages).query_scores.sum().backward()
    gradients = {name: p.grad.abs().max().item() for name, p in decoder.named_parameters()}
    assert len(gradients) == 40
    assert min(gradients.values()) > 0, gradients


# ------------------------------------------------------------------------------------------ whole released checkpoints


def released_names(network):
    """Turn our state dict into a released one, by the names in section 4 of the specification (not by our table)."""
    out = {}
    for key, value in network.state_dict().items():
        part, name = key.split(".", 1)
        if part == "backbone":
            theirs = name.replace("layers_", "layers.")
            out[f"pretrain_model.{theirs}"] = value
            stage = theirs.replace("patch_embed.", "0.0.").replace("layers.0.", "0.1.")
            for number in (1, 2, 3):
                stage = (
                    f"{number}.{name.removeprefix(f'layers_{number}.')}"
                    if f"layers_{number}." in name
                    else stage
                )
            out[f"backbone_stages.{stage}"] = value
        elif name.startswith("moe.experts."):
            which, number = {"weight": ("weight", name[-1]), "bias": ("bias", name[-1])}[
                name.split(".")[2][:-1]
            ]
            for expert, tensor in enumerate(value):
                layer = {"1": 0, "2": 3}[number]
                out[f"MOE.experts.{expert}.net.{layer}.{which}"] = (
                    tensor.mT if which == "weight" else tensor
                )
        else:
            theirs = {
                "query_tokens": "bunch_embedding", "moe_scale": "gamma", "context.weight": "proj_layer4.weight",
                "context.bias": "proj_layer4.bias", "memory.weight": "proj_layer3.weight",
                "memory.bias": "proj_layer3.bias", "norm.weight": "norm3.weight", "norm.bias": "norm3.bias",
                "head.weight": "fc.weight", "head.bias": "fc.bias",
                "moe.router.linear.weight": "MOE.router.linear.weight",
                "moe.router.linear.bias": "MOE.router.linear.bias",
                "moe.mlp.0.weight": "MOE.net.0.weight", "moe.mlp.0.bias": "MOE.net.0.bias",
                "moe.mlp.3.weight": "MOE.net.2.weight", "moe.mlp.3.bias": "MOE.net.2.bias",
            }  # fmt: skip
            layer = (
                "bunch_decoder."
                + name.replace("gcn.conv", "GCN.gcn").replace("attention.", "multihead_attn.")
            ).replace(".norm.", ".norm2.")
            value = value[:, :, None, None] if name == "context.weight" else value
            out[theirs.get(name, layer)] = value
    return out


def with_buffers(state_dict):
    """Add the buffers that Swin keeps, once per copy of the backbone."""
    out = dict(state_dict)
    for key in state_dict:
        if key.endswith("relative_position_bias_table"):
            block = key.removesuffix("attn.relative_position_bias_table")
            out[f"{block}attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
            out[f"{block}attn_mask"] = torch.zeros(4, 49, 49)
    return out


@pytest.fixture(autouse=True)
def tiny_swin(monkeypatch):
    """Make Swin-T a hundred times smaller, with the same names but for the number of blocks."""
    create = timm.create_model

    def create_tiny(name, **options):
        tiny = (
            {"embed_dim": 12, "depths": (2, 2, 1, 2), "num_heads": (1, 2, 2, 4)}
            if name == SMALL_SWIN
            else {}
        )
        return create(name, **options, **tiny)

    monkeypatch.setattr(timm, "create_model", create_tiny)


@pytest.fixture
def small(tiny_swin):
    network = LifeIQA(SMALL_SWIN, embed_dim=48, depth=2, num_experts=2).eval()
    torch.nn.init.normal_(network.decoder.head.bias)
    return network


def test_a_released_swin_b_has_742_tensors(monkeypatch):
    create = timm.create_model

    def create_without_memory(*args, **options):
        with torch.device("meta"):
            return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", create_without_memory)
    network = LifeIQA(SWIN_B)
    state_dict = released_names(network)
    assert len(state_dict) == 742
    assert len([key for key in state_dict if not key.startswith("backbone_stages.")]) == 417
    converted = convert_released_state_dict(with_buffers(state_dict))
    ours = network.state_dict()
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}
    assert released_config(state_dict) == {
        "embed_dim": 384,
        "num_queries": 6,
        "depth": 4,
        "num_experts": 8,
    }


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"model": d, "epoch": 3}])
def test_a_released_checkpoint_loads_strictly(small, tmp_path, wrap):
    state_dict = with_buffers(released_names(small))
    assert sum(key.endswith("attn_mask") for key in state_dict) == 14
    torch.save(wrap(state_dict), tmp_path / "released.pth")
    loaded = build_lifeiqa(
        pretrained_model_path=tmp_path / "released.pth", backbone=SMALL_SWIN
    ).eval()
    assert loaded.config["depth"] == 2
    assert loaded.config["num_experts"] == 2
    for name, value in small.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))


def test_a_released_plain_network_loads(tmp_path):
    """One expert: ``MOE.net.{0,2}`` and no router."""
    network = LifeIQA(SMALL_SWIN, embed_dim=24, depth=1, num_experts=1)
    state_dict = released_names(network)
    assert [key for key in state_dict if key.startswith("MOE")] == [
        f"MOE.net.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    ]
    torch.save(state_dict, tmp_path / "plain.pth")
    loaded = build_lifeiqa(pretrained_model_path=tmp_path / "plain.pth", backbone=SMALL_SWIN)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_released_checkpoint_of_another_backbone_is_refused(small, tmp_path):
    torch.save(released_names(small), tmp_path / "released.pth")
    with pytest.raises(
        ValueError, match=r"released\.pth: the weights do not fit a LifeIQA with \d+ tensors: "
    ):
        build_lifeiqa(pretrained_model_path=tmp_path / "released.pth", backbone="test_efficientnet")


def test_names_that_are_not_released_are_refused(small, tmp_path):
    for name in (
        "MOE.experts.0.net.5.weight",
        "bunch_decoder.layers.0.norm1.weight",
        "head.weight",
    ):
        torch.save(released_names(small) | {name: torch.zeros(1)}, tmp_path / "more.pth")
        with pytest.raises(
            ValueError, match=f"more.pth: '{name}' is not a name of the released Life-IQA code"
        ):
            build_lifeiqa(pretrained_model_path=tmp_path / "more.pth", backbone=SMALL_SWIN)


@pytest.mark.parametrize(
    "name", ["MOE.experts.1.net.0.weight", "fc.bias", "bunch_decoder.layers.1.GCN.gcn2.weight"]
)
def test_missing_released_weights_are_named(small, tmp_path, name):
    state_dict = released_names(small)
    del state_dict[name]
    torch.save(state_dict, tmp_path / "less.pth")
    ours = {"MOE.experts.1.net.0.weight": name, "fc.bias": "decoder.head.bias"}.get(
        name, "decoder.layers.1.gcn.conv2.weight"
    )
    with pytest.raises(ValueError, match=rf"less\.pth: .*missing.*{ours}"):
        build_lifeiqa(pretrained_model_path=tmp_path / "less.pth", backbone=SMALL_SWIN)

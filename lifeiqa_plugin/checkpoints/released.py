"""The names that the released Life-IQA code gives to weights, turned into ours."""

from __future__ import annotations

import re
from typing import Any

import torch

from lifeiqa_plugin.network.tensor_files import StateDict

_RELEASED_NAMES = [
    (r"^bunch_embedding$", "decoder.query_tokens"),
    (r"^proj_layer4\.", "decoder.context."),
    (r"^proj_layer3\.", "decoder.memory."),
    (r"^bunch_decoder\.layers\.(\d+)\.GCN\.gcn(\d)\.", r"decoder.layers.\1.gcn.conv\2."),
    (r"^bunch_decoder\.layers\.(\d+)\.multihead_attn\.", r"decoder.layers.\1.attention."),
    (r"^bunch_decoder\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.norm."),
    (r"^norm3\.", "decoder.norm."),
    (r"^MOE\.router\.", "decoder.moe.router."),
    (r"^MOE\.net\.0\.", "decoder.moe.mlp.0."),
    (r"^MOE\.net\.2\.", "decoder.moe.mlp.3."),
    (r"^gamma$", "decoder.moe_scale"),
    (r"^fc\.", "decoder.head."),
    (r"^pretrain_model\.layers\.(\d)\.", r"backbone.layers_\1."),
    (r"^pretrain_model\.", "backbone."),
    (r"^backbone_stages\.0\.0\.", "backbone.patch_embed."),
    (r"^backbone_stages\.0\.1\.", "backbone.layers_0."),
    (r"^backbone_stages\.([123])\.", r"backbone.layers_\1."),
]

_EXPERT = re.compile(r"MOE\.experts\.\d+\.net\.[03]\.(weight|bias)")

_DERIVED = ("relative_position_index", "attn_mask")  # timm computes these buffers anew


def convert_released_state_dict(state_dict: StateDict) -> StateDict:
    """Rename a state dict of the released Life-IQA code; experts are stacked, the 1x1 convolution becomes a Linear.

    Raises:
        ValueError: a name that the released code does not have, or an expert of which a part is missing.
    """
    out: StateDict = {}
    for key, value in state_dict.items():
        if key.endswith(_DERIVED) or _EXPERT.fullmatch(key):
            continue
        for pattern, name in _RELEASED_NAMES:
            renamed, hits = re.subn(pattern, name, key)
            if hits:
                out[renamed] = value.flatten(1) if renamed == "decoder.context.weight" else value
                break
        else:
            raise ValueError(f"{key!r} is not a name of the released Life-IQA code")
    num_experts = released_config(state_dict)["num_experts"]
    if num_experts > 1:  # one layer of all experts -> one tensor (E, in, out) or (E, out)
        for ours, theirs in (("1", "0"), ("2", "3")):
            for kind in ("weight", "bias"):
                names = [f"MOE.experts.{e}.net.{theirs}.{kind}" for e in range(num_experts)]
                if missing := [name for name in names if name not in state_dict]:
                    raise ValueError(
                        f"{len(missing)} missing ({', '.join(missing[:3])}) for {num_experts} experts"
                    )
                stack = torch.stack([state_dict[name] for name in names])
                out[f"decoder.moe.experts.{kind}{ours}"] = (
                    stack.mT.contiguous() if kind == "weight" else stack
                )
    return out


def released_config(state_dict: StateDict) -> dict[str, Any]:
    """Read the decoder's arguments off the shapes of a released state dict; the others are as the code has them."""
    depth = len(
        {key.split(".")[2] for key in state_dict if key.startswith("bunch_decoder.layers.")}
    )
    router = state_dict.get("MOE.router.linear.bias")
    _, num_queries, embed_dim = state_dict["bunch_embedding"].shape
    return {
        "embed_dim": embed_dim,
        "num_queries": num_queries,
        "depth": depth,
        "num_experts": 1 if router is None else len(router),
    }

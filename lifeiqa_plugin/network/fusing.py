"""BatchNorm fused into the convolutions before it: a network for scoring only, with the same scores in less time."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lifeiqa_plugin.network.lifeiqa import LifeIQA

Network = TypeVar("Network", bound=LifeIQA)


def fuse_batch_norm(network: Network) -> Network:
    """Return a copy in evaluation mode whose backbone has no BatchNorm where one follows a convolution.

    In evaluation mode BatchNorm multiplies and adds constants, which the convolution can do itself. The copy holds
    other weights than a checkpoint, so it cannot be saved as one, and does not move.
    """
    fused = copy.deepcopy(network).set_trainable(False)
    names = {module: name for name, module in fused.backbone.named_modules()}
    for conv, norm in _find_pairs(fused):
        both = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = both.weight, both.bias
        is_more = isinstance(norm, BatchNormAct2d)
        rest = nn.Sequential(norm.drop, norm.act) if is_more else nn.Identity()
        fused.backbone.set_submodule(names[norm], rest)
    return fused


@torch.no_grad()
def _find_pairs(network: LifeIQA) -> list[tuple[Any, Any]]:
    """Run one image and see which BatchNorm is given just what a convolution has returned."""
    # the tensors are kept, so that no id comes twice
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs = []

    def note(conv: nn.Module, _: Any, out: Tensor) -> None:
        made[id(out)] = conv, out

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    handles = []
    for module in network.backbone.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(note))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            handles.append(module.register_forward_pre_hook(look))
    side = network.crop_size
    network.forward_crops(network.mean.new_zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return pairs

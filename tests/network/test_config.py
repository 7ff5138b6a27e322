"""Options: presets, names, ranges, and the sizes of the networks that they give."""

from __future__ import annotations

import dataclasses
import re

import pytest
from torch import nn

from lifeiqa_plugin.network.config import (
    PRESETS,
    LifeIQAConfig,
    check_option_names,
    option_names,
)
from lifeiqa_plugin.network.lifeiqa import LifeIQA


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("num_experts", "depth", "parameters"),
    [
        (1, 4, 91_404_090), (2, 4, 92_586_428), (4, 4, 94_950_334), (8, 4, 99_678_146), (2, 2, 91_142_780),
    ],
)  # fmt: skip
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


def test_flat_options_give_the_same_again():
    options = {"backbone": "resnet18", "score_range": [0, 1], "depth": 2, "distortions": ("a",)}
    config = LifeIQAConfig.from_options(options)
    assert (config.decoder.depth, config.crop_side, config.working_side) == (2, 224, 384)
    flat = config.to_options()
    assert list(flat) == option_names()
    assert flat.items() >= options.items(), "as they were given"
    assert LifeIQAConfig.from_options(flat) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.crop_size = 64


@pytest.mark.parametrize(("old", "new"), [("folded", "fused"), ("std_line", "std_calibration")])
def test_earlier_names_give_the_new_ones(old, new):
    with pytest.raises(TypeError, match=f"LifeIQA has no option '{old}'; it is now '{new}'"):
        check_option_names([old], more=["fused"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"depth": 65}, "depth must be at most 64, got 65"),
        ({"memory_grid": 0}, "memory_grid must be at least 1, got 0"),
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"graph": "wheel"}, "graph must be 'complete', 'ring', 'star', 'none' or a list of"),
        ({"graph": [[0, 1], [2, 6]]}, "graph must name nodes 0 .. 5, as num_queries=6, got the edge [2, 6]"),
        ({"graph": [[0, 1, 2]]}, "list of [source, target] pairs, got [0, 1, 2] among its edges"),
        ({"graph": [[0, 1.5]]}, "list of [source, target] pairs, got [0, 1.5] among its edges"),
        ({"distortions": ["blur", "blur"]}, "distortions must differ from one another, got "),
        ({"distortions_from": "image"}, "distortions_from must be 'queries' or 'stages', got 'image'"),
        ({"readouts": -1}, "readouts must be at least 1, got -1"),
        ({"embed_dim": 30}, "embed_dim must be a multiple of 4 and of num_heads=2, got 30"),
        ({"embed_dim": 24, "num_heads": 5}, "embed_dim must be a multiple of 4 and of num_heads=5, got 24"),
        ({"moe_scaled": "both"}, "moe_scaled must be 'experts' or 'bypass', got 'both'"),
        ({"balancing": "none"}, "balancing must be 'released' or 'switch', got 'none'"),
        ({"adjacency": "dense"}, "adjacency must be 'fixed' or 'learnable', got 'dense'"),
        ({"scatter_backend": "pyg"}, "scatter_backend must be 'auto', 'torch' or 'torch_scatter', got 'pyg'"),
        ({"score_range": (1, 1)}, "score_range must be (low, high) with low < high, got (1.0, 1.0)"),
        ({"score_range": (0, float("inf"))}, "score_range must be two finite numbers, got (0, inf)"),
        ({"naming": 3}, "and may give shares, pairs of numbers from 0 to 1; got 3"),
        ({"naming": {"blur": {"likely": 0.5, "sure": 0.4}}}, "naming must give each distortion"),
        ({"naming": {"blur": {"likely": 0.5}}}, "naming must give each distortion"),
        ({"naming": {"blur": {"likely": 0.1, "sure": 0.4, "below": 1}}}, "naming must give each distortion"),
        ({"naming": {"blur": {"likely": 0.1, "sure": 0.4, "shares": [[0, 2]]}}}, "naming must give each distortion"),
        ({"std_calibration": (0, float("nan"))}, "std_calibration must be two finite numbers, got (0, nan)"),
        ({"crop_size": 0}, "crop_size must be at least 1, got 0"),
        ({"crop_size": 31}, "crop_size must be at least 32 for 'test_efficientnet', got 31"),
        ({"crop_size": 200, "working_size": 199}, "working_size must be at least crop_size=200, got 199"),
        ({"working_size": 0}, "working_size must be at least 1, got 0"),
        ({"test_sample": 0}, "test_sample must be at least 1, got 0"),
        ({"chunk_size": -2}, "chunk_size must be at least 1, got -2"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(**options)


def test_fixed_backbones_are_refused():
    message = "whole_image needs a backbone that takes images of any size, got 'test_vit', which takes 160x160 only"
    with pytest.raises(ValueError, match=message):
        LifeIQA("test_vit", embed_dim=24, num_heads=2, whole_image=True)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_whole_image_is_a_switch(tiny, value):
    with pytest.raises(TypeError, match=f"whole_image must be True or False, got {value!r}"):
        tiny(whole_image=value)


@pytest.mark.parametrize("names", ["blur", ["blur", 3], [""], [None]])
def test_names_of_distortions(tiny, names):
    with pytest.raises(TypeError, match="distortions must be a list of names, got "):
        tiny(distortions=names)

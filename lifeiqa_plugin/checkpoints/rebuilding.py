"""From a type and options to a network again, and whether that gives the one that there was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lifeiqa_plugin.nearest import did_you_mean
from lifeiqa_plugin.network.config import option_names
from lifeiqa_plugin.network.lifeiqa import LifeIQA

RANDOM_FUNCTIONS = {
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.orthogonal_,
    nn.init.trunc_normal_,
    nn.init.uniform_,
    nn.init.xavier_normal_,
    nn.init.xavier_uniform_,
    torch.Tensor.bernoulli_,
    torch.Tensor.exponential_,
    torch.Tensor.normal_,
    torch.Tensor.random_,
    torch.Tensor.uniform_,
    torch.bernoulli,
    torch.normal,
    torch.rand,
    torch.randint,
    torch.randn,
    torch.randperm,
}

SETTINGS = (
    "crop_size",
    "working_size",
    "whole_image",
    "score_range",
    "balancing",
    "distortion_names",
)
"""What a checkpoint's options must say, beside the weights, for a network to be the same when it is read."""


class OwnRandomNumbers(TorchFunctionMode):
    """Inside, this thread draws from a generator of its own: for initial weights that will be overwritten.

    Other threads notice nothing, as they would of a seed that is put back afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator(torch.empty(0).device)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Give each function that draws the own generator."""
        kwargs = dict(kwargs or {})
        if func in RANDOM_FUNCTIONS:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def network_type(network: LifeIQA | type[LifeIQA]) -> str:
    """Return the name under which :func:`network_class` finds the class of a network."""
    kind = network if isinstance(network, type) else type(network)
    return "LifeIQA" if kind is LifeIQA else f"{kind.__module__}.{kind.__qualname__}"


def network_class(name: str) -> type[LifeIQA]:
    """Find LifeIQA or a subclass that has been defined by now, by its name or ``module.name``; imports nothing.

    Raises:
        ValueError: there is none; names the nearest.
    """
    known = {"LifeIQA": LifeIQA}
    for kind in _subclasses(LifeIQA):
        known |= {kind.__name__: kind, network_type(kind): kind}
    if name in known:
        return known[name]
    same = known.get(str(name).rpartition(".")[2])
    if same is not None:
        return same
    hint = did_you_mean(name, known, "import the module that defines it first")
    raise ValueError(
        f"network type must be LifeIQA or a subclass of it that has been imported, got {name!r}; {hint}"
    )


def _subclasses(kind: type[LifeIQA]) -> Iterator[type[LifeIQA]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def build(kind: type[LifeIQA], options: Mapping[str, Any]) -> LifeIQA:
    """Build a network and see that it remembers its options.

    Raises:
        TypeError, ValueError: as the class; an argument of a subclass that is not in its ``config``.
    """
    network = kind(**options)
    forgotten = [name for name in option_names(kind) if name not in network.config]
    if forgotten:
        name = forgotten[0]
        raise ValueError(
            f"{kind.__name__} forgets its argument {name!r}: its __init__ must say "
            f"self.config[{name!r}] = {name}, which checkpoints are read by"
        )
    return network


def rebuild(kind: type[LifeIQA], options: Mapping[str, Any]) -> LifeIQA:
    """Build a network whose weights will be overwritten: nobody's random numbers move."""
    with OwnRandomNumbers():
        return build(
            kind, {**options, **dict.fromkeys(filter(names_start, option_names(kind)), False)}
        )


def names_start(option: str) -> bool:
    """Say whether an argument names weights to start from, which a checkpoint does not need to be read again."""
    return option.endswith("_pretrained")


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of everything in a state dict."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def check_rebuildable(network: LifeIQA) -> None:
    """See that a network's class and options give it again, all but its weights.

    Raises:
        ValueError: they do not; says what differs.
    """
    again = rebuild(type(network), network.config)
    if difference := _difference(network, again):
        raise ValueError(
            f"not saved, as it could not be read again: {difference} a {type(network).__name__} built from its own "
            "options; give what was changed as options"
        )


def _difference(network: LifeIQA, again: LifeIQA) -> str:
    """Compare all but the values of weights: shapes, constants, settings; empty if there is no difference."""
    there, expected = shapes_of(network), shapes_of(again)
    keys = sorted(there.keys() | expected.keys())
    if changed := [key for key in keys if there.get(key) != expected.get(key)]:
        return f"{len(changed)} tensors ({', '.join(changed[:3])}) are not those of"
    buffers = dict(again.named_buffers())
    for name, value in network.named_buffers():
        if name in there:  # a weight as others
            continue
        if name not in buffers or not torch.equal(value.cpu().float(), buffers[name].float()):
            return f"{name} is not that of"
    for name in SETTINGS:
        got, rebuilt = getattr(network, name), getattr(again, name)
        if got != rebuilt:
            return f"{name} is {got!r}, but {rebuilt!r} in"
    return ""

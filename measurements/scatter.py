"""Measure what the scatter of one graph convolution costs, in plain torch and in torch-scatter.

    python measurements/scatter.py --rounds 30

The graph is the complete one, its messages come sorted by target. The rows of torch-scatter need it installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measuring import conditions, markdown_table, median_and_quartiles, median_ratio
from torch import Tensor

from lifeiqa_plugin.benchmark.timing import time_in_turn
from lifeiqa_plugin.network.graph import edges_of, load_torch_scatter, scatter_sum


def scatters(index: Tensor, num_nodes: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the ways to sum messages (B, E, C) per target node that work here, by name."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "index_add_": lambda m: m.new_zeros(m.shape[0], num_nodes, m.shape[2]).index_add_(
            1, index, m
        ),
        "ours, scatter_backend='torch'": lambda m: scatter_sum(m, index, num_nodes, "torch"),
    }
    module = load_torch_scatter()
    if module is None:
        return ways
    offsets = torch.searchsorted(index, torch.arange(num_nodes + 1))
    return ways | {
        "torch_scatter.scatter": lambda m: module.scatter(
            m, index, dim=1, dim_size=num_nodes, reduce="sum"
        ),
        "torch_scatter.segment_csr": lambda m: module.segment_csr(
            m, offsets.expand(len(m), -1), reduce="sum"
        ),
        "ours, scatter_backend='torch_scatter'": lambda m: scatter_sum(
            m, index, num_nodes, "torch_scatter"
        ),
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=50, help="calls per timing")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--batch", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(0)
    _, index = edges_of("complete", args.nodes)
    messages = torch.rand(args.batch, len(index), args.channels)
    tracked = messages.clone().requires_grad_()
    ways = scatters(index, args.nodes)
    for name, way in ways.items():
        torch.testing.assert_close(
            way(messages), messages.unflatten(1, (args.nodes, -1)).sum(2), msg=name
        )
    grad = torch.ones(args.batch, args.nodes, args.channels)
    forward = {name: lambda way=way: way(messages) for name, way in ways.items()}
    both = {
        name: lambda way=way: torch.autograd.grad(way(tracked), tracked, grad)
        for name, way in ways.items()
    }
    columns = [
        time_in_turn(functions, args.rounds, repeats=args.repeats) for functions in (forward, both)
    ]
    rows = [[name, *(cell for times in columns for cell in cells(times, name))] for name in ways]
    print(
        f"{conditions()}; {args.nodes} nodes, {len(index)} edges, {args.channels} channels, batch {args.batch}, "
        f"{args.rounds} rounds of {args.repeats} calls in turn\n"
    )
    print(
        markdown_table(["scatter", "forward, us", "ratio", "forward + backward, us", "ratio"], rows)
    )


def cells(seconds: dict[str, list[float]], name: str) -> list[str]:
    """Return one way's microseconds and its ratio to ``index_add_``."""
    ratio = median_ratio(seconds[name], seconds["index_add_"])
    return [median_and_quartiles([1e6 * s for s in seconds[name]], 0), f"{ratio:.2f}"]


if __name__ == "__main__":
    main()

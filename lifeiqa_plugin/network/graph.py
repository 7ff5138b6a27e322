"""Graph convolution by scatter over an edge list.

One graph convolution (Kipf & Welling 2017, equation 2) is ``X' = A X W + b`` with the normalized adjacency
``A = D^-1/2 (G + I) D^-1/2``. Here ``A`` is kept as edges: ``edge_index (2, E)`` holds (source, target) pairs sorted
by target, ``edge_weight (E,)`` the entries of ``A``; every edge carries a message, and a scatter sums them per target.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ScatterBackend = Literal["auto", "torch", "torch_scatter"]

Graph = Literal["complete", "ring", "star", "none"] | Sequence[Sequence[int]]
"""A graph by its name, or all its edges as [source, target] pairs."""


@functools.cache
def load_torch_scatter() -> ModuleType | None:
    """Return the ``torch_scatter`` module, or None where it is absent or was built for another torch (one warning)."""
    if importlib.util.find_spec("torch_scatter") is None:
        return None
    try:
        import torch_scatter
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        warnings.warn(
            f"torch_scatter is installed but does not load ({error}); using plain torch. "
            "Rebuild it: pip install --force-reinstall --no-cache-dir --no-build-isolation torch-scatter",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    module: ModuleType = torch_scatter
    return module


def resolve_scatter_backend(backend: ScatterBackend) -> Literal["torch", "torch_scatter"]:
    """Turn ``auto`` into the backend that measures fastest (plain torch, see docs/design.md).

    Raises:
        ValueError: unknown name.
        ImportError: ``torch_scatter`` was asked for by name and cannot be loaded.
    """
    if backend not in ("auto", "torch", "torch_scatter"):
        raise ValueError(
            f"scatter_backend must be 'auto', 'torch' or 'torch_scatter', got {backend!r}"
        )
    if backend != "torch_scatter":
        return "torch"
    if load_torch_scatter() is None:
        raise ImportError(
            "scatter_backend='torch_scatter' needs a working torch-scatter: pip install --no-build-isolation "
            "torch-scatter, or choose scatter_backend='auto'"
        )
    return "torch_scatter"


def scatter_sum(
    messages: Tensor, index: Tensor, num_nodes: int, backend: ScatterBackend = "auto"
) -> Tensor:
    """Sum the messages that share a target node; deterministic on CPU and CUDA.

    Args:
        messages: (B, E, C) one row per edge.
        index: (E,) target node of each edge, ascending.
        num_nodes: number of nodes N.
        backend: see :func:`resolve_scatter_backend`.

    Returns:
        (B, N, C), ``out[:, n] = sum of messages[:, e] over edges e with index[e] == n``.
    """
    if resolve_scatter_backend(backend) == "torch_scatter":
        nodes = torch.arange(num_nodes + 1, device=index.device)
        offsets = torch.searchsorted(index, nodes)  # (N + 1,) where the edges of each node begin
        offsets = offsets.expand(len(messages), -1)
        library: Any = load_torch_scatter()
        of_nodes: Tensor = library.segment_csr(messages, offsets, reduce="sum")
        return of_nodes
    out = messages.new_zeros(messages.shape[0], num_nodes, messages.shape[2])
    if not messages.is_cuda:
        return out.index_add(1, index, messages)
    # index_add adds in any order on CUDA; an accumulating index_put sorts first
    by_node = out.transpose(0, 1)  # (N, B, C)
    by_edge = messages.transpose(0, 1)  # (E, B, C)
    summed = by_node.index_put((index,), by_edge, accumulate=True)
    return summed.transpose(0, 1)


def edges_of(graph: Graph, num_nodes: int) -> Tensor:
    """Return ``edge_index (2, E)`` of a graph, on the CPU; edges run from source to target.

    Args:
        graph: ``complete`` joins every node with every node, itself included; ``ring`` each with its two neighbors;
            ``star`` node 0 with all others; ``none`` has no edges; anything else is a list of [source, target].
        num_nodes: number of nodes N.

    Raises:
        ValueError: an unknown name, an edge that is no pair of whole numbers, or names a node outside ``0 .. N - 1``.
    """
    nodes = range(num_nodes)
    if graph == "complete":
        edges = [[source, target] for target in nodes for source in nodes]
    elif graph == "ring":
        edges = [[node, (node + step) % num_nodes] for node in nodes for step in (-1, 1)]
    elif graph == "star":
        edges = [edge for node in nodes[1:] for edge in ([0, node], [node, 0])]
    elif graph == "none":
        edges = []
    else:
        edges = _checked_edges(graph, num_nodes)
    return torch.tensor(edges, dtype=torch.long, device="cpu").view(-1, 2).T


def _checked_edges(graph: object, num_nodes: int) -> list[list[int]]:
    wanted = "graph must be 'complete', 'ring', 'star', 'none' or a list of [source, target] pairs"
    if isinstance(graph, str) or not isinstance(graph, Sequence):
        raise ValueError(f"{wanted}, got {graph!r}")
    for edge in graph:
        if not isinstance(edge, Sequence) or len(edge) != 2 or {*map(type, edge)} != {int}:
            raise ValueError(f"{wanted}, got {edge!r} among its edges")
        if not 0 <= min(edge) <= max(edge) < num_nodes:
            raise ValueError(
                f"graph must name nodes 0 .. {num_nodes - 1}, as num_queries={num_nodes}, "
                f"got the edge {list(edge)}"
            )
    return [list(edge) for edge in graph]


def normalize_edges(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Add the identity to a graph and normalize: ``A = D^-1/2 (G + I) D^-1/2`` with ``D`` the row sums of ``G + I``.

    On the complete graph ``G`` is all ones, so ``A = (J + I) / (N + 1)``.

    Args:
        edge_index: (2, E) integer (source, target) pairs in any order; a repeated pair counts once.
        num_nodes: number of nodes N.

    Returns:
        ``edge_index (2, E')`` sorted by target and ``edge_weight (E',)`` float32.

    Raises:
        ValueError: wrong shape, or an edge that names a node outside ``0 .. N - 1``.
    """
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        raise ValueError(
            f"edge_index must name nodes 0 .. {num_nodes - 1}, got {edge_index.tolist()}"
        )
    source, target = edge_index
    adjacency = torch.zeros(num_nodes, num_nodes, device="cpu")
    adjacency[target, source] = 1.0
    adjacency += torch.eye(num_nodes, device="cpu")
    scale = adjacency.sum(1).rsqrt()
    normalized = scale[:, None] * adjacency * scale
    target, source = adjacency.nonzero(as_tuple=True)
    return torch.stack([source, target]), normalized[target, source]


class GCNConv(nn.Module):
    """One graph convolution, ``x_i' = W^T sum_j A_ij x_j + b``; W is Kaiming-uniform, b zero.

    Shapes: x (B, N, in_features), edge_index (2, E) sorted by target, edge_weight (E,) -> (B, N, out_features).
    """

    def __init__(
        self, in_features: int, out_features: int, scatter_backend: ScatterBackend = "auto"
    ) -> None:
        super().__init__()
        self.scatter_backend = resolve_scatter_backend(scatter_backend)
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        """Transform, send along the edges, sum per target."""
        source, target = edge_index
        nodes = x @ self.weight  # (B, N, out_features)
        weights = edge_weight[:, None].to(x.dtype)  # (E, 1)
        messages = nodes[:, source] * weights  # (B, E, out_features)
        summed = scatter_sum(messages, target, x.shape[1], self.scatter_backend)
        return summed + self.bias


class GCN(nn.Module):
    """Three graph convolutions C -> C/2 -> C/4 -> C on one graph, ReLU between them (paper section 3.2).

    Args:
        dim: C, channels of a node.
        num_nodes: N, nodes of the graph.
        edge_index: (2, E) the graph, see :func:`edges_of`.
        adjacency: ``fixed`` keeps the normalized adjacency constant, as in the released code; ``learnable`` makes its
            entries parameters of this layer that start there, as in the paper.
        final_activation: ReLU after the last convolution too, as in the paper.
        scatter_backend: see :func:`resolve_scatter_backend`.

    Shapes: (B, N, C) -> (B, N, C).
    """

    edge_index: Tensor
    edge_weight: Tensor

    def __init__(
        self,
        dim: int,
        num_nodes: int,
        edge_index: Tensor,
        adjacency: Literal["fixed", "learnable"] = "fixed",
        final_activation: bool = False,
        scatter_backend: ScatterBackend = "auto",
    ) -> None:
        super().__init__()
        if adjacency not in ("fixed", "learnable"):
            raise ValueError(f"adjacency must be 'fixed' or 'learnable', got {adjacency!r}")
        edge_index, edge_weight = normalize_edges(edge_index, num_nodes)
        default = torch.empty(0).device
        edge_index, edge_weight = edge_index.to(default), edge_weight.to(default)
        self.register_buffer("edge_index", edge_index, persistent=False)
        if adjacency == "learnable":
            self.edge_weight = nn.Parameter(edge_weight)
        else:
            self.register_buffer("edge_weight", edge_weight, persistent=False)
        self.final_activation = final_activation
        self.conv1 = GCNConv(dim, dim // 2, scatter_backend)
        self.conv2 = GCNConv(dim // 2, dim // 4, scatter_backend)
        self.conv3 = GCNConv(dim // 4, dim, scatter_backend)

    def forward(self, x: Tensor) -> Tensor:
        """Let the nodes talk."""
        x = F.relu(self.conv1(x, self.edge_index, self.edge_weight))
        x = F.relu(self.conv2(x, self.edge_index, self.edge_weight))
        x = self.conv3(x, self.edge_index, self.edge_weight)
        return F.relu(x) if self.final_activation else x

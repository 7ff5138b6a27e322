"""The graph convolution against dense matrices, slow loops and closed forms, on both scatter backends."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lifeiqa_plugin.network import graph
from lifeiqa_plugin.network.graph import GCN, GCNConv, edges_of, normalize_edges, scatter_sum

COMPLETE = edges_of("complete", 6)
DIRECTED = [[0, 1, 1, 4], [1, 2, 3, 0]]
GRAPHS = {
    "complete": (COMPLETE, 6),
    "one node": (edges_of("complete", 1), 1),
    "path": (torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]]), 4),
    "directed, node 5 alone": (torch.tensor(DIRECTED), 6),
    "unsorted, one pair twice": (torch.tensor([[3, 0, 0, 1], [0, 2, 2, 3]]), 4),
    "no edges": (torch.empty(2, 0, dtype=torch.long), 3),
}


@pytest.fixture(params=list(GRAPHS))
def any_graph(request):
    return GRAPHS[request.param]


@pytest.fixture
def torch_scatter():
    """Skip where torch-scatter is not installed, unless LIFEIQA_REQUIRE_TORCH_SCATTER=1 says that it must be."""
    try:
        return importlib.import_module("torch_scatter")
    except ImportError as error:
        if os.environ.get("LIFEIQA_REQUIRE_TORCH_SCATTER") == "1":
            pytest.fail(
                f"LIFEIQA_REQUIRE_TORCH_SCATTER=1, but torch_scatter cannot be imported: {error}"
            )
        pytest.skip("torch_scatter is not installed")


@pytest.fixture
def fresh_loader():
    """Let load_torch_scatter look again, before and after the test."""
    graph.load_torch_scatter.cache_clear()
    yield graph.load_torch_scatter
    graph.load_torch_scatter.cache_clear()


@pytest.fixture
def broken_torch_scatter(fresh_loader, tmp_path, monkeypatch):
    """Put first on the path a torch_scatter that fails as one built for another torch does."""
    (tmp_path / "torch_scatter.py").write_text(
        "raise OSError('undefined symbol: _ZN2at4_ops5zeros4callE')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_scatter", raising=False)
    return fresh_loader


def dense_adjacency(edge_index, num_nodes):
    """A = D^-1/2 (G + I) D^-1/2, entry by entry."""
    with_self = [[float(i == j) for j in range(num_nodes)] for i in range(num_nodes)]
    for source, target in set(zip(*edge_index.tolist(), strict=True)):
        with_self[target][source] += 1.0
    degree = [sum(row) for row in with_self]
    return torch.tensor(
        [
            [with_self[i][j] / (degree[i] * degree[j]) ** 0.5 for j in range(num_nodes)]
            for i in range(num_nodes)
        ]
    )


def values_and_gradients(function, *leaves):
    """Return the value of a function and the gradients of a fixed weighting of it."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    weighting = torch.linspace(-1, 1, value.numel()).view_as(value)
    return value, *torch.autograd.grad((value * weighting).sum(), leaves)


# ------------------------------------------------------------------------------------------------------------ adjacency


def test_edges_are_the_dense_adjacency(any_graph):
    edge_index, num_nodes = any_graph
    (source, target), weight = normalize_edges(edge_index, num_nodes)
    dense = torch.zeros(num_nodes, num_nodes).index_put((target, source), weight)
    torch.testing.assert_close(dense, dense_adjacency(edge_index, num_nodes))
    assert target.tolist() == sorted(target.tolist())
    assert len(set(zip(source.tolist(), target.tolist(), strict=True))) == len(weight)


@pytest.mark.parametrize("num_nodes", [1, 2, 6, 17])
def test_complete_graph_in_closed_form(num_nodes):
    (source, target), weight = normalize_edges(edges_of("complete", num_nodes), num_nodes)
    dense = torch.zeros(num_nodes, num_nodes).index_put((target, source), weight)
    expected = (torch.ones(num_nodes, num_nodes) + torch.eye(num_nodes)) / (num_nodes + 1)
    torch.testing.assert_close(dense, expected)
    eigenvalues = torch.linalg.eigvalsh(dense)
    torch.testing.assert_close(
        eigenvalues, torch.tensor([1 / (num_nodes + 1)] * (num_nodes - 1) + [1.0])
    )


def test_wrong_edges_are_refused():
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, E\), got \(3, 2\)"):
        normalize_edges(torch.zeros(3, 2, dtype=torch.long), 6)
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, E\), got \(2,\)"):
        normalize_edges(torch.zeros(2, dtype=torch.long), 6)
    with pytest.raises(
        ValueError, match=r"edge_index must name nodes 0 \.\. 2, got \[\[0\], \[3\]\]"
    ):
        normalize_edges(torch.tensor([[0], [3]]), 3)
    with pytest.raises(
        ValueError, match=r"edge_index must name nodes 0 \.\. 2, got \[\[-1\], \[1\]\]"
    ):
        normalize_edges(torch.tensor([[-1], [1]]), 3)


# ---------------------------------------------------------------------------------------------------------- convolution


def test_scatter_is_a_slow_loop():
    messages, index = torch.randn(2, 5, 3), torch.tensor([0, 0, 2, 2, 2])
    expected = torch.zeros(2, 4, 3)
    for b in range(2):
        for e in range(5):
            expected[b, index[e]] += messages[b, e]
    torch.testing.assert_close(scatter_sum(messages, index, 4), expected)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_edge_list_is_dense_in_value_and_gradient(any_graph, backend):
    edge_index, num_nodes = any_graph
    edges = normalize_edges(edge_index, num_nodes)
    conv, a = GCNConv(8, 4, backend), dense_adjacency(edge_index, num_nodes)
    leaves = torch.randn(3, num_nodes, 8), conv.weight, torch.randn(4)

    def sparse(x, weight, bias):
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x, *edges))

    for ours, dense in zip(
        values_and_gradients(sparse, *leaves),
        values_and_gradients(lambda x, w, b: a @ x @ w + b, *leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, dense, atol=1e-6, rtol=1e-6)


def test_initial_weights():
    conv = GCNConv(384, 192)
    bound = (
        6 / 192
    ) ** 0.5  # Kaiming-uniform: sqrt(6 / fan), torch takes the second axis for the fan
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert not conv.bias.any()


# --------------------------------------------------------------------------------------------------- three convolutions


def three_dense_layers(gcn, a, x, final_activation=False):
    x = F.relu(a @ x @ gcn.conv1.weight + gcn.conv1.bias)
    x = F.relu(a @ x @ gcn.conv2.weight + gcn.conv2.bias)
    x = a @ x @ gcn.conv3.weight + gcn.conv3.bias
    return F.relu(x) if final_activation else x


@pytest.mark.parametrize("final_activation", [False, True])
def test_gcn_is_three_dense_layers(any_graph, final_activation):
    edge_index, num_nodes = any_graph
    gcn = GCN(8, num_nodes, edge_index, final_activation=final_activation)
    x = torch.randn(2, num_nodes, 8)
    expected = three_dense_layers(gcn, dense_adjacency(edge_index, num_nodes), x, final_activation)
    torch.testing.assert_close(gcn(x), expected)
    assert (gcn(x) < 0).any() != final_activation


@pytest.mark.parametrize("adjacency", ["fixed", "learnable"])
def test_the_complete_graph_does_not_know_the_order_of_its_nodes(adjacency):
    gcn = GCN(8, 6, COMPLETE, adjacency=adjacency)
    x, order = torch.randn(2, 6, 8), torch.randperm(6)
    torch.testing.assert_close(gcn(x[:, order]), gcn(x)[:, order])


def test_another_graph_does_know_the_order_of_its_nodes():
    edge_index, num_nodes = GRAPHS["path"]
    gcn, x = GCN(8, num_nodes, edge_index), torch.randn(2, num_nodes, 8)
    order = torch.tensor([1, 0, 2, 3])
    assert not torch.allclose(gcn(x[:, order]), gcn(x)[:, order], atol=1e-3)


def test_learnable_starts_at_fixed_and_learns(any_graph):
    edge_index, num_nodes = any_graph
    fixed, learnable = GCN(16, num_nodes, edge_index), GCN(16, num_nodes, edge_index, "learnable")
    weights = fixed.state_dict()
    assert learnable.load_state_dict(weights, strict=False).missing_keys == ["edge_weight"]
    x = torch.randn(4, num_nodes, 16)
    torch.testing.assert_close(learnable(x), fixed(x), atol=0, rtol=0)
    assert "edge_weight" not in dict(fixed.named_parameters())
    learnable(x).square().sum().backward()
    assert (learnable.edge_weight.grad != 0).all()


def test_constants_stay_out_of_the_state_dict():
    gcn = GCN(8, 6, COMPLETE)
    assert sorted(gcn.state_dict()) == [
        f"conv{i}.{kind}" for i in (1, 2, 3) for kind in ("bias", "weight")
    ]
    assert {name for name, _ in gcn.named_buffers()} == {"edge_index", "edge_weight"}


def test_half_precision_keeps_its_type():
    assert (
        GCN(8, 6, COMPLETE).bfloat16()(torch.randn(1, 6, 8, dtype=torch.bfloat16)).dtype
        == torch.bfloat16
    )


# ------------------------------------------------------------------------------------------------------------- backends


def test_torch_scatter_is_torch_in_value_and_gradient(torch_scatter, any_graph):
    edge_index, num_nodes = any_graph
    plain, compiled = (
        GCN(16, num_nodes, edge_index, "learnable", False, name)
        for name in ("torch", "torch_scatter")
    )
    compiled.load_state_dict(plain.state_dict())
    x = torch.randn(3, num_nodes, 16)
    names, parameters = zip(*plain.named_parameters(), strict=True)

    def call(gcn):
        def function(x, *values):
            return torch.func.functional_call(gcn, dict(zip(names, values, strict=True)), (x,))

        return values_and_gradients(function, x, *parameters)

    for one, other in zip(call(plain), call(compiled), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_segments_are_cut_at_the_right_edges(monkeypatch):
    """What we hand to segment_csr, with a stand-in that loops; runs where torch-scatter is not installed too."""

    calls = []

    class StandIn:
        @staticmethod
        def segment_csr(messages, offsets, reduce):
            calls.append(len(messages))
            assert reduce == "sum"
            assert offsets.shape[0] == messages.shape[0]
            ends = offsets[0].tolist()
            return torch.stack([messages[:, i:j].sum(1) for i, j in pairwise(ends)], dim=1)

    monkeypatch.setattr(graph, "load_torch_scatter", lambda: StandIn)
    for edge_index, num_nodes in GRAPHS.values():
        one, other = (
            GCN(8, num_nodes, edge_index),
            GCN(8, num_nodes, edge_index, scatter_backend="torch_scatter"),
        )
        other.load_state_dict(one.state_dict())
        x = torch.randn(2, num_nodes, 8)
        torch.testing.assert_close(other(x), one(x))
    assert calls == 3 * len(GRAPHS) * [2]


def test_broken_binary_counts_as_absent_with_one_warning(broken_torch_scatter):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [broken_torch_scatter() for _ in range(3)] == [None] * 3
        with pytest.raises(
            ImportError, match="scatter_backend='torch_scatter' needs a working torch-scatter: pip "
        ):
            GCN(8, 6, COMPLETE, scatter_backend="torch_scatter")
        x, auto, plain = (
            torch.randn(2, 6, 8),
            GCN(8, 6, COMPLETE, scatter_backend="auto"),
            GCN(8, 6, COMPLETE, scatter_backend="torch"),
        )
    assert [(w.category, str(w.message).split(";")[0]) for w in caught] == [
        (
            RuntimeWarning,
            "torch_scatter is installed but does not load (undefined symbol: _ZN2at4_ops5zeros4callE)",
        )
    ]
    auto.load_state_dict(plain.state_dict())
    torch.testing.assert_close(auto(x), plain(x), atol=0, rtol=0)


def test_absent_torch_scatter_is_silent(fresh_loader, monkeypatch):
    monkeypatch.setattr(graph.importlib.util, "find_spec", lambda name: None)
    assert fresh_loader() is None
    with pytest.raises(ImportError, match="or choose scatter_backend='auto'"):
        GCNConv(8, 4, "torch_scatter")

"""The mixture of experts against a slow loop over tokens, and its two losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lifeiqa_plugin.network.moe import Routing, SparseMoE, load_balancing_loss, router_z_loss

DIM = 8


@torch.no_grad()
def slow_moe(moe, x):
    """Token by token: the K largest logits, softmax over those K, the chosen experts one after the other."""
    linear, experts = moe.router.linear, moe.experts
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for q in range(x.shape[1]):
            token = x[b, q]
            logits = [
                float(linear.weight[e] @ token + linear.bias[e]) for e in range(moe.num_experts)
            ]
            chosen = sorted(range(moe.num_experts), key=lambda e: -logits[e])[: moe.router.top_k]
            total = sum(math.exp(logits[e]) for e in chosen)
            for e in chosen:
                hidden = F.relu(experts.weight1[e].T @ token + experts.bias1[e])
                answer = experts.weight2[e].T @ hidden + experts.bias2[e]
                out[b, q] += math.exp(logits[e]) / total * answer
    return out


def route(logits, top_k):
    """A Routing as the router makes it."""
    kept, expert_index = logits.topk(top_k)
    return Routing(
        logits, torch.zeros_like(logits).scatter(-1, expert_index, kept.softmax(-1)), expert_index
    )


def balanced(num_experts, top_k, tokens=24):
    """Logits that choose every expert equally often: token t prefers experts t, t + 1, ..."""
    logits = torch.zeros(tokens, num_experts)
    for t in range(tokens):
        for k in range(top_k):
            logits[t, (t + k) % num_experts] = 3.0
    return logits


CASES = [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 2), (8, 3)]


@pytest.mark.parametrize(("num_experts", "top_k"), CASES)
def test_is_the_slow_loop(num_experts, top_k):
    moe = SparseMoE(DIM, num_experts, top_k).eval()
    x = torch.randn(3, 6, DIM)
    torch.testing.assert_close(moe(x)[0], slow_moe(moe, x))


@pytest.mark.parametrize(("num_experts", "top_k"), CASES)
def test_gates(num_experts, top_k):
    out, routing = SparseMoE(DIM, num_experts, top_k)(torch.randn(3, 6, DIM))
    assert out.shape == (3, 6, DIM)
    assert routing.router_logits.shape == routing.gates.shape == (3, 6, num_experts)
    assert routing.expert_index.shape == (3, 6, top_k)
    torch.testing.assert_close(routing.gates.sum(-1), torch.ones(3, 6))
    assert ((routing.gates > 0).sum(-1) == top_k).all()
    assert (routing.gates.gather(-1, routing.expert_index) > 0).all()


def test_one_expert_is_a_plain_network():
    moe = SparseMoE(DIM, 1).eval()
    x = torch.randn(3, 6, DIM)
    out, routing = moe(x)
    first, last = moe.mlp[0], moe.mlp[3]
    torch.testing.assert_close(
        out, F.gelu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    )
    assert torch.equal(routing.gates, torch.ones(3, 6, 1))
    assert not routing.expert_index.any()
    assert sum(p.numel() for p in moe.parameters()) == 8 * DIM**2 + 5 * DIM
    for balancing in ("released", "switch"):
        assert load_balancing_loss(routing, balancing).item() == 0
    assert router_z_loss(routing).item() == 0


def test_more_choices_than_experts_are_all_experts():
    assert SparseMoE(DIM, 2, 5)(torch.randn(1, 6, DIM))[1].expert_index.shape == (1, 6, 2)


@pytest.mark.parametrize(("num_experts", "top_k"), [(0, 2), (4, 0), (-1, 1)])
def test_wrong_numbers_are_refused(num_experts, top_k):
    message = f"num_experts and top_k must be at least 1, got {num_experts} and {top_k}"
    with pytest.raises(ValueError, match=message):
        SparseMoE(DIM, num_experts, top_k)


def test_dropout_only_in_training():
    moe, x = SparseMoE(DIM, 4, 2, dropout=0.5), torch.randn(2, 6, DIM)
    assert not torch.equal(moe(x)[0], moe(x)[0])
    moe.eval()
    assert torch.equal(moe(x)[0], moe(x)[0])


def test_initial_experts_are_linear_layers():
    experts = SparseMoE(384, 2).experts
    for parameter, fan_in in (
        (experts.weight1, 384), (experts.bias1, 384), (experts.weight2, 1536), (experts.bias2, 1536),
    ):  # fmt: skip
        assert 0.99 / fan_in**0.5 < parameter.abs().max() <= 1 / fan_in**0.5


# --------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("num_experts", "top_k"), [(2, 1), (4, 2), (8, 2), (8, 3)])
def test_perfect_balance_costs_top_k(num_experts, top_k):
    logits = balanced(num_experts, top_k)
    for balancing in ("released", "switch"):
        loss = load_balancing_loss(route(logits, top_k), balancing)
        torch.testing.assert_close(loss, torch.tensor(float(top_k)))


def test_collapse_costs_the_number_of_experts():
    logits = torch.full((10, 4), -50.0)
    logits[:, 2] = 50.0
    for balancing in ("released", "switch"):
        torch.testing.assert_close(
            load_balancing_loss(route(logits, 1), balancing), torch.tensor(4.0)
        )


def test_losses_are_slow_sums():
    routing = route(torch.randn(5, 6, 4), 2)
    logits, gates, chosen = (part.flatten(0, 1) for part in routing)
    released = switch = 0.0
    for e in range(4):
        share = sum(float(e in row) for row in chosen.tolist()) / 30
        released += 4 * share * sum(gates[t, e].item() for t in range(30)) / 30
        switch += 4 * share * sum(logits[t].softmax(0)[e].item() for t in range(30)) / 30
    torch.testing.assert_close(load_balancing_loss(routing), torch.tensor(released))
    torch.testing.assert_close(load_balancing_loss(routing, "switch"), torch.tensor(switch))
    z = sum(math.log(sum(math.exp(v) for v in row)) ** 2 for row in logits.tolist()) / 30
    torch.testing.assert_close(router_z_loss(routing), torch.tensor(z))


def test_z_loss_in_closed_form():
    equal = torch.full((5, 8), 2.0)  # logsumexp = 2 + log 8
    torch.testing.assert_close(router_z_loss(route(equal, 2)), torch.tensor((2 + math.log(8)) ** 2))
    zero = torch.full((5, 8), -math.log(8))
    torch.testing.assert_close(router_z_loss(route(zero, 2)), torch.tensor(0.0), atol=1e-12, rtol=0)


def test_with_all_experts_only_switch_can_balance():
    logits = torch.randn(12, 4, requires_grad=True)
    released = load_balancing_loss(route(logits, 4))
    torch.testing.assert_close(released, torch.tensor(4.0))
    (gradient,) = torch.autograd.grad(released, logits)
    torch.testing.assert_close(
        gradient, torch.zeros(12, 4), atol=1e-7, rtol=0
    )  # a sum of rounding errors

    biased = (torch.randn(12, 4) + torch.tensor([3.0, 0.0, 0.0, 0.0])).requires_grad_()
    (gradient,) = torch.autograd.grad(load_balancing_loss(route(biased, 2), "switch"), biased)
    assert gradient[:, 0].sum() > 0.01  # descent lowers the logits of the crowded expert


def test_switch_has_a_gradient_where_released_has_none():
    """K = 1: every gate is exactly 1, so only the full softmax can pull tokens apart."""
    logits = (torch.randn(12, 4) + torch.tensor([2.0, 0.0, 0.0, 0.0])).requires_grad_()
    (released,) = torch.autograd.grad(load_balancing_loss(route(logits, 1)), logits)
    (switch,) = torch.autograd.grad(load_balancing_loss(route(logits, 1), "switch"), logits)
    assert released.abs().max() < 1e-7 < 1e-3 < switch.abs().max()


def test_an_expert_without_tokens_has_a_zero_gradient():
    moe = SparseMoE(DIM, 4, 1)
    with torch.no_grad():
        moe.router.linear.weight.zero_()
        moe.router.linear.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))
    moe(torch.randn(2, 6, DIM))[0].square().sum().backward()
    for name, parameter in moe.experts.named_parameters():
        used = parameter.grad.flatten(1).abs().sum(1)
        assert used[1] > 0, name
        assert used[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0], name


# ------------------------------------------------------------------------------------------------------------ compilers


class WithLosses(torch.nn.Module):
    def __init__(self, num_experts, balancing):
        super().__init__()
        self.moe, self.balancing = SparseMoE(DIM, num_experts), balancing

    def forward(self, x):
        out, routing = self.moe(x)
        return out, load_balancing_loss(routing, self.balancing), router_z_loss(routing)


@pytest.mark.parametrize(
    ("num_experts", "balancing"), [(1, "released"), (4, "released"), (4, "switch")]
)
def test_compilers_can_follow(num_experts, balancing):
    network, x = WithLosses(num_experts, balancing).eval(), torch.randn(2, 6, DIM)
    expected = network(x)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), expected)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
    other = torch.randn(2, 6, DIM)  # other tokens choose other experts
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(other), network(other))

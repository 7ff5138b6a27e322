"""Evaluation mode for a while, every module as it was afterwards."""

from __future__ import annotations

import pytest
from torch import nn

from lifeiqa_plugin.network.evaluating import evaluating


def test_modes_come_back_after_an_error_too():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval(), nn.Dropout()))
    before = [module.training for module in network.modules()]

    def fail():
        with evaluating(network):
            assert not any(module.training for module in network.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in network.modules()] == before
    assert len(set(before)) == 2

"""The exported files that the package brings along, without which the light install has no network."""

from __future__ import annotations

import numpy as np
import pytest

from lifeiqa_plugin.checkpoints.models import BUNDLED, resolve
from lifeiqa_plugin.runtimes import create_engine


@pytest.mark.parametrize("name", BUNDLED)
def test_it_is_small_and_refers_to_the_bundled_weights(name):
    model = resolve(name)
    exported = model.exported().path
    assert exported.parent == model.path.parent
    assert model.path.name.encode() in exported.read_bytes()
    assert exported.stat().st_size < 500_000


@pytest.mark.parametrize("name", BUNDLED)
def test_it_was_written_from_these_weights(name):
    again = f"lifeiqa export --model {name} --link-weights --overwrite -o {resolve(name).exported().path}"
    about = create_engine("onnxruntime", name).metadata
    assert about.weights_sha256 == BUNDLED[name].sha256, f"run: {again}"


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("shape", [(1, 384, 512), (2, 250, 611)])
def test_it_says_what_the_network_says(name, shape):
    images = np.random.default_rng(0).random((shape[0], 3, *shape[1:]), np.float32)
    runtime, network = (
        create_engine("onnxruntime", name, device="cpu"),
        create_engine("torch", name, device="cpu"),
    )
    assert runtime.names == network.names
    assert runtime.working_shape(3000, 4000) == network.working_shape(3000, 4000)
    for found, expected in zip(runtime.score(images), network.score(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)

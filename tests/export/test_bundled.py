"""The exported file that the package brings along, without which the light install has no network."""

from __future__ import annotations

import numpy as np
import pytest

from lifeiqa_plugin.checkpoints.factory import BUNDLED, DEFAULT
from lifeiqa_plugin.runtimes import create_engine
from lifeiqa_plugin.runtimes.exported import BUNDLED_ONNX

pytest.importorskip("onnxruntime")

AGAIN = f"lifeiqa export --link-weights --overwrite -o {BUNDLED_ONNX}"


def test_it_is_small_and_refers_to_the_bundled_weights():
    weights = BUNDLED[DEFAULT]
    assert BUNDLED_ONNX.parent == weights.path.parent
    assert weights.file.encode() in BUNDLED_ONNX.read_bytes()
    assert BUNDLED_ONNX.stat().st_size < 500_000


def test_it_was_written_from_these_weights():
    about = create_engine("onnxruntime").metadata
    assert about.weights_sha256 == BUNDLED[DEFAULT].sha256, f"run: {AGAIN}"


@pytest.mark.parametrize("shape", [(1, 384, 512), (2, 250, 611)])
def test_it_says_what_the_network_says(shape):
    images = np.random.default_rng(0).random((shape[0], 3, *shape[1:]), np.float32)
    runtime, network = (
        create_engine("onnxruntime", device="cpu"),
        create_engine("torch", device="cpu"),
    )
    assert runtime.names == network.names
    assert runtime.working_shape(3000, 4000) == network.working_shape(3000, 4000)
    for found, expected in zip(runtime.score(images), network.score(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)

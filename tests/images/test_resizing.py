"""Resizing without torch gives torch's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.images import resizing
from lifeiqa_plugin.images.resizing import resize
from lifeiqa_plugin.network.crops import to_working_size, working_shape

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(384, 512), (700, 901), (60, 90), (1500, 130), (3, 2000)])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_resizes_as_torch_does(size, kind):
    """Torch's own float32 numbers are further from its float64 numbers: it rounds the places of the pixels."""
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    if kind == "float32":
        pixels = pixels.astype(np.float32) / 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    tensor = tensor / 255 if kind == "uint8" else tensor
    resized = resize(pixels, working_shape(*size, 224, 384))
    assert resized.dtype == np.float32
    assert resized.flags["C_CONTIGUOUS"]
    if kind == "uint8":
        image = Image.fromarray(pixels)
        np.testing.assert_array_equal(resize(image, working_shape(*size, 224, 384)), resized)
    exact = to_working_size(tensor, 224, 384)[0]
    np.testing.assert_allclose(resized, exact.numpy(), atol=3e-7)
    rounded = to_working_size(tensor.float(), 224, 384)[0]
    np.testing.assert_allclose(resized, rounded.numpy(), atol=2e-4)


def test_strips_do_not_show(monkeypatch):
    pixels = RNG.integers(0, 256, (500, 400, 3), dtype=np.uint8)
    whole = resize(pixels, (200, 160))
    monkeypatch.setattr(resizing, "STRIP", 7)
    np.testing.assert_allclose(resize(pixels, (200, 160)), whole, atol=3e-7)


@pytest.mark.parametrize("size", [(384, 512), (3000, 4000), (60, 90), (3, 2000)])
def test_no_product_is_so_large_that_blas_starts_threads(size, monkeypatch):
    products, matmul = [], np.matmul

    def remember(a, b, out):
        products.append(a.size * b.shape[1])
        return matmul(a, b, out=out)

    monkeypatch.setattr(resizing.np, "matmul", remember)
    resize(np.zeros((*size, 3), np.uint8), working_shape(*size, 224, 380))
    assert len(products) > 1
    assert max(products) <= resizing.ALONE


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_what_a_decoder_averaged_is_made_sharp_again(factor):
    """Of a slow wave; what is left is that coarser pixels sample the kernel in other places."""
    x = np.arange(960)
    wave = 0.5 + 0.4 * np.sin(x[:, None] / (3 * factor)) * np.cos(x / (4 * factor))
    pixels = np.repeat(wave[..., None], 3, axis=2).astype(np.float32)
    parts = pixels.reshape(960 // factor, factor, 960 // factor, factor, 3)
    averaged = parts.mean((1, 3))
    shape = (240 // factor, 200 // factor)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    wanted = resize(pixels, shape)[inner]
    blurred = np.abs(resize(averaged, shape)[inner] - wanted).max()
    restored = np.abs(resize(averaged, shape, factor)[inner] - wanted).max()
    assert blurred > 0.002
    assert restored < blurred / 3


def test_an_image_that_fits_is_not_touched():
    pixels = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        resize(pixels, (40, 30)), pixels.transpose(2, 0, 1).astype(np.float32) / 255
    )

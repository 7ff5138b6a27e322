"""The map against a slow loop, closed forms, and backbones of both kinds."""

import numpy as np
import pytest
import torch

from lifeiqa_plugin.explanation import dense
from lifeiqa_plugin.explanation.dense import (
    FLAW_WEIGHT,
    WINDOW_SIZES,
    WindowOutputs,
    WindowSize,
    attention_to_pixels,
    distortion_maps,
    quality_map,
    score_all_windows,
    score_windows,
    to_map,
)


def test_a_window_is_what_the_decoder_says_of_its_cells(whole):
    x = torch.rand(1, 3, 128, 192)
    windows = score_windows(whole, x, WindowSize(1, 2))
    stage2, stage3, stage4 = whole.backbone((x - whole.mean) / whole.std)
    assert stage4.shape[-2:] == (4, 6)
    assert stage3.shape[-2:] == (8, 12)
    assert windows.scores.shape == (3, 5)
    assert windows.gates.shape == (3, 5, 4)
    assert windows.tops == [0, 32, 64]
    assert windows.lefts == [0, 32, 64, 96, 128]
    assert windows.shape == (64, 64)
    for i, j in [(0, 0), (1, 3), (2, 4)]:
        output = whole.decoder(
            stage2[..., 4 * i : 4 * i + 8, 4 * j : 4 * j + 8],
            stage3[..., 2 * i : 2 * i + 4, 2 * j : 2 * j + 4],
            stage4[..., i : i + 2, j : j + 2],
        )
        expected = output.query_scores.mean().sigmoid().item()
        assert windows.scores[i, j] == pytest.approx(expected, abs=1e-5)
        strengths = output.distortion_logits[0].sigmoid().detach().numpy()
        np.testing.assert_allclose(windows.distortions[i, j], strengths, atol=1e-5)
        gates = output.routing.gates.mean((0, 1)).detach().numpy()
        np.testing.assert_allclose(windows.gates[i, j], gates, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(110, 110), (64, 64), (65, 200), (96, 81)])
def test_windows_cover_images_whose_cells_are_odd_or_few(whole, height, width):
    passes = score_all_windows(whole, torch.rand(1, 3, height, width))
    assert len(passes) == len(WINDOW_SIZES) == 2
    for windows in passes:
        values = to_map(windows, windows.scores, height, width)
        assert values.shape == (height, width)
        assert np.isfinite(values).all()
        assert windows.scores.min() - 1e-6 <= values.min()
        assert values.max() <= windows.scores.max() + 1e-6


def test_an_enlarged_image_has_its_windows_in_pixels_of_the_image(whole):
    x = torch.rand(1, 3, 128, 192)
    windows = score_windows(whole, x, WindowSize(1.5, 3))
    assert windows.scores.shape == (4, 7)
    assert windows.tops == [0, 21, 43, 64]
    assert windows.lefts == [0, 21, 43, 64, 85, 107, 128]
    assert windows.shape == (64, 64)
    enlarged = torch.nn.functional.interpolate(x, (192, 288), mode="bicubic", antialias=True)
    same = score_windows(whole, enlarged.clamp(0, 1), WindowSize(1, 3))
    np.testing.assert_array_equal(windows.scores, same.scores)


def test_a_backbone_of_fixed_size_sees_overlapping_crops(whole, monkeypatch):
    fixed = dense.preprocessing_of("test_efficientnet")._replace(is_fixed=True)
    monkeypatch.setattr(dense, "preprocessing_of", lambda name: fixed)
    x = torch.rand(1, 3, 64, 100)
    (windows,) = score_all_windows(whole, x)
    assert windows.tops == [0]
    assert windows.lefts == [0, 12, 24, 36]
    assert windows.shape == (64, 64)
    crops = torch.cat([x[..., left : left + 64] for left in windows.lefts])
    expected = whole.forward_crops(crops).query_scores.mean(1).sigmoid()
    np.testing.assert_allclose(windows.scores[0], expected.detach().numpy(), atol=1e-5)


def windows_of(scores, tops, lefts, shape, distortions=None, weight=1.0):
    none = np.zeros((*scores.shape, 0), np.float32)
    named = none if distortions is None else distortions
    return WindowOutputs(scores, named, none, tops, lefts, shape, weight)


def test_the_map_is_the_weighted_mean_of_the_views_where_no_distortions_are_named():
    coarse = windows_of(np.full((1, 1), 0.8, np.float32), [0], [0], (64, 64), weight=3.0)
    fine = windows_of(np.full((2, 2), 0.2, np.float32), [0, 32], [0, 32], (32, 32))
    unnamed = distortion_maps([coarse, fine], 64, 64)
    assert unnamed.shape == (0, 64, 64)
    np.testing.assert_allclose(quality_map([coarse, fine], unnamed, 64, 64), 0.65, rtol=1e-6)


def test_a_distortion_lowers_the_map_where_it_is_and_leaves_the_mean():
    scores = np.full((2, 2), 0.6, np.float32)
    strengths = np.full((2, 2, 3), 0.1, np.float32)
    strengths[1, 0, 2] = 0.9
    passes = [windows_of(scores, [0, 32], [0, 32], (32, 32), strengths)]
    maps = distortion_maps(passes, 64, 64)
    np.testing.assert_allclose(maps[2, 32:, :32], 0.9, rtol=1e-5)
    np.testing.assert_allclose(maps[2, :32], 0.1, rtol=1e-5)
    local = quality_map(passes, maps, 64, 64)
    # The strongest kind is .9 in one quarter and .1 in three, .3 on average.
    np.testing.assert_allclose(local[32:, :32], 0.6 - FLAW_WEIGHT * 0.6, rtol=1e-5)
    np.testing.assert_allclose(local[:32], 0.6 + FLAW_WEIGHT * 0.2, rtol=1e-5)
    assert local.mean() == pytest.approx(0.6, abs=1e-6)
    everywhere = quality_map(passes, np.full((3, 64, 64), 0.9, np.float32), 64, 64)
    np.testing.assert_allclose(everywhere, 0.6, rtol=1e-6)


def test_spread_of_one_value_is_that_value_everywhere():
    windows = windows_of(np.full((2, 3), 0.25, np.float32), [0, 20], [0, 20, 37], (40, 50))
    values = to_map(windows, windows.scores, 60, 87)
    np.testing.assert_allclose(values, 0.25, rtol=1e-6)


def test_spread_puts_a_low_window_where_it_is():
    scores = np.ones((3, 3), np.float32)
    scores[2, 0] = 0
    windows = windows_of(scores, [0, 20, 40], [0, 20, 40], (40, 40))
    values = to_map(windows, scores, 80, 80)
    row, column = divmod(int(values.argmin()), 80)
    assert row >= 60
    assert column < 20


def test_spread_of_several_channels_is_each_of_them():
    gates = np.random.default_rng(0).random((2, 2, 3)).astype(np.float32)
    windows = windows_of(np.zeros((2, 2), np.float32), [0, 8], [0, 8], (16, 16))
    together = to_map(windows, gates, 24, 24)
    for i in range(3):
        np.testing.assert_allclose(together[i], to_map(windows, gates[..., i], 24, 24), rtol=1e-6)


def test_even_attention_is_one_everywhere():
    attention = torch.full((2, 3, 4, 49), 1 / 49)
    pixels = attention_to_pixels(attention, [(0, 0), (0, 30)], (64, 64), (64, 94))
    assert pixels.shape == (3, 4, 64, 94)
    np.testing.assert_allclose(pixels, 1, rtol=1e-5)


def test_attention_on_one_token_is_brightest_on_its_cell():
    attention = torch.zeros(1, 1, 2, 16)
    attention[0, 0, 0, 4 * 1 + 3] = 1  # second row, last column
    attention[0, 0, 1, 4 * 3 + 0] = 1  # last row, first column
    first, second = attention_to_pixels(attention, [(0, 0)], (40, 80), (40, 80))[0]
    assert first[10:20, 60:].mean() > 3 * first.mean()
    assert second[30:, :20].mean() > 3 * second.mean()

"""A report of generated photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.report.collect import write_report
from lifeiqa_plugin.report.photos import Photo
from lifeiqa_plugin.scoring.rows import ScoredImage, Thresholds


def noise_photo(seed: int) -> Image.Image:
    """A coarse pattern that looks like no other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def network() -> LifeIQA:
    torch.manual_seed(0)
    return LifeIQA(
        "test_efficientnet", embed_dim=24, num_heads=2, num_queries=3, depth=2, num_experts=4,
        score_range=(0.0, 1.0), crop_size=64, working_size=110, whole_image=True,
        distortions=("blur", "noise", "dark"),
    ).eval()  # fmt: skip


@pytest.fixture(scope="session")
def report(network: LifeIQA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 130 photos, three of which are alike, with an image that could not be scored."""
    folder = tmp_path_factory.mktemp("report")
    rows = []
    for i in range(130):
        name = f"</script><b>{i}.jpg" if i == 7 else f"photo {i}.jpg"
        file = f"photos/{name.replace('/', '_')}"
        (folder / "photos").mkdir(exist_ok=True)
        seed = 50 if i in (50, 51, 52) else i
        noise_photo(seed).save(folder / file, quality=90 - i % 5)
        strengths = {
            "blur": 0.9 if i % 10 == 0 else 0.1,
            "noise": 0.6 if i % 26 == 0 else 0.0,
            "dark": 0.2,
        }
        rows.append(ScoredImage(file, 160, 120, (i + 1) / 140, 0.05 + 0.0001 * i, strengths))
    rows.append(ScoredImage("photos/broken.jpg", error="damaged image"))
    out = folder / "report.html"
    photos = [Photo(row, str(folder / row.name)) for row in rows]
    write_report(photos, out, Thresholds(), network, 3)
    return out

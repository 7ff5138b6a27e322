"""``lifeiqa_plugin.score``: the metric's own numbers, in order, lazily, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.words import FLAT

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def test_scores_are_those_of_the_metric():
    """In the exact mode, for ordinary sRGB files, batched or not, in any order."""
    paths = sorted(PHOTOS.glob("*_0_clean.jpg"))[:3]
    assert len(paths) == 3
    metric = pyiqa.create_metric("lifeiqa", device="cpu")
    expected = [metric(str(path)).item() for path in paths]
    single = list(lifeiqa_plugin.score(paths))
    batched = list(lifeiqa_plugin.score(reversed(paths), batch_size=2))[::-1]
    assert [row.name for row in single] == [str(path) for path in paths]
    for rows in (single, batched):
        assert [row.score for row in rows] == pytest.approx(expected, abs=1e-4)
        assert all(row.error is None and np.isfinite(row.std) for row in rows)
    with Image.open(paths[0]) as image:
        assert (single[0].width, single[0].height) == image.size


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_images_of_several_sizes_in_batches(engine, photos, batch_size):
    rows = list(lifeiqa_plugin.score(photos, engine=engine, batch_size=batch_size))
    assert [Path(row.name).stem for row in rows] == list("0123456789")
    assert [row.score for row in rows] == pytest.approx(np.arange(10) / 10, abs=0.02)
    assert max(shape[0] for shape in engine.batches) == min(batch_size, 4)
    assert rows[3].distortions == pytest.approx({"dark": 0.7, "bright": 0.3}, abs=0.02)


def test_each_image_has_its_sentence(engine, photos):
    engine.naming = {"bright": {"likely": 0.5, "sure": 0.7}}
    generator = np.random.default_rng(0)
    images = [
        generator.integers(low, high, (64, 64, 3), np.uint8) for low, high in ((0, 80), (80, 190))
    ]
    images += [np.full((70, 90, 3), 200, np.uint8), images[0][:50]]
    sentences = [row.sentence for row in lifeiqa_plugin.score(images, engine=engine)]
    assert sentences == ["bad: dark", "fair: likely bright", FLAT, "too small to judge"]
    engine.score_range = None
    assert next(lifeiqa_plugin.score(images, engine=engine)).sentence == "dark"


def test_errors_are_rows(engine, photos):
    (photos / "4.png").write_text("nothing")
    (photos / "5.png").unlink()
    (photos / "5.png").symlink_to("gone")
    rows = list(lifeiqa_plugin.score(photos, engine=engine, batch_size=4))
    assert [i for i, row in enumerate(rows) if row.error] == [4, 5]
    assert rows[4].error.startswith("cannot be read as an image (it is text)")
    assert rows[5].error == "link to a file that is not there"
    assert np.isnan(rows[4].score)
    assert np.isnan(rows[5].std)
    assert rows[6].score == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_score_that_is_no_number_is_an_error(engine, photos, monkeypatch, value):
    monkeypatch.setattr(engine, "score", lambda batch: _constant(float(value), len(batch)))
    row = next(lifeiqa_plugin.score(photos / "1.png", engine=engine))
    assert row.error == f"the network's score is {value}"


def _constant(value: float, count: int):
    from lifeiqa_plugin.runtimes import EngineOutput

    return EngineOutput(np.full(count, value), np.full(count, value), np.zeros((count, 2)))


def test_every_kind_of_image_and_of_collection(engine, photos):
    def score(images):
        return [
            (row.name, round(row.score, 1)) for row in lifeiqa_plugin.score(images, engine=engine)
        ]

    path = photos / "3.png"
    array = np.full((20, 20), 76, np.uint8)
    assert score(path) == score(str(path)) == [(str(path), 0.3)]
    assert score(path.read_bytes()) == score(array) == [("#0", 0.3)]
    assert score(torch.full((3, 20, 20), 0.3)) == [("#0", 0.3)]
    assert score(Named("mine", array)) == score([Named("mine", array)]) == [("mine", 0.3)]
    with Image.open(path) as image, open(path, "rb") as file:
        assert score(image) == score(file) == [(str(path), 0.3)]
    mixed = score(item for item in (path, array, path.read_bytes()))
    assert mixed == [(str(path), 0.3), ("#1", 0.3), ("#2", 0.3)]
    assert score([]) == []


def test_results_come_as_they_are_asked_for(engine, photos):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield photos / "1.png"

    rows = lifeiqa_plugin.score(endless(), engine=engine)
    assert taken == []
    assert next(rows).score == pytest.approx(0.1, abs=0.02)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be more than 0, got 0"),
        ({"time_limit": -1}, ValueError, "time_limit must be more than 0, got -1"),
        ({"workers": -1}, ValueError, "workers must be 0 or more, got -1"),
        ({"engine": "onnx"}, ValueError, "no engine is called 'onnx'"),
        (
            {"model": "nowhere.safetensors"},
            OSError,
            "'nowhere.safetensors' is neither a file nor a bundled model",
        ),
        ({"images": 7}, TypeError, "images must be an image, a folder or an iterable, got int"),
    ],
)
def test_errors_come_before_the_first_result(options, kind, message):
    with pytest.raises(kind, match=message):
        lifeiqa_plugin.score(**{"images": [], "engine": "torch"} | options)


def test_scoring_by_hand_imports_no_torch(run_python, tmp_path):
    """All but the torch engine."""
    code = """
import sys, numpy as np, lifeiqa_plugin
from lifeiqa_plugin.runtimes import EngineOutput
class Engine:
    names = ()
    def working_shape(self, height, width): return height, width
    def score(self, batch):
        mean = batch.mean((1, 2, 3))
        return EngineOutput(mean, mean, np.zeros((len(batch), 0)))
print(next(lifeiqa_plugin.score(np.ones((9, 9, 3)), engine=Engine())).score)
import lifeiqa_plugin.scoring.command
print({'torch', 'pyiqa', 'pandas', 'scipy', 'pyarrow'} & set(sys.modules))
"""
    done = run_python("-c", code, cwd=tmp_path, PYTHONPATH=Path(__file__).parents[2])
    assert done.stdout == "1.0\nset()\n", done.stderr

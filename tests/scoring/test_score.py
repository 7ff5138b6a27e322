"""``Scorer`` and ``score``: the metric's own numbers, in order, lazily, whatever the batch."""

from __future__ import annotations

import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.images.stream import Named
from lifeiqa_plugin.scoring.rows import Thresholds
from lifeiqa_plugin.words import FLAT

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"


def test_scores_are_those_of_the_metric():
    """In the exact mode, for ordinary sRGB files, batched or not, in any order."""
    paths = sorted(PHOTOS.glob("*_0_clean.jpg"))[:3]
    assert len(paths) == 3
    metric = pyiqa.create_metric("lifeiqa", device="cpu")
    expected = [metric(str(path)).item() for path in paths]
    single = list(lifeiqa_plugin.score(paths, exact=True))
    batched = list(lifeiqa_plugin.score(reversed(paths), batch_size=2, exact=True))[::-1]
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
    assert sentences == ["bad: too dark", "fair: likely bright", FLAT, "too small to judge"]
    engine.score_range = None
    assert next(lifeiqa_plugin.score(images, engine=engine)).sentence == "no flaw named"


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


def test_what_the_command_takes_the_function_takes(engine, score, photos):
    """Folders, globs, lists, archives; also archives among many images."""
    with tarfile.open("a.tar", "w") as archive:
        for path in ("photos/7.png", "photos/3.png"):
            archive.add(path)
    Path("list.txt").write_text("photos/1.png\na.tar\nphotos/none.png\n")
    for argument in ("photos", "photos/[3-5].png", "list.txt", "a.tar", "photos/2.png"):
        printed = ["\t".join(line.split("\t")[:2]) for line in score(argument)[1].splitlines()]
        rows = [
            f"{f'{row.score:.4f}' if row.error is None else f'error: {row.error}'}\t{row.name}"
            for row in lifeiqa_plugin.score(argument, engine=engine)
        ]
        assert rows == printed
        assert rows
    mixed = lifeiqa_plugin.score(["photos/2.png", Path("a.tar"), b""], engine=engine)
    assert [row.name for row in mixed] == [
        "photos/2.png",
        *[f"a.tar/photos/{i}.png" for i in (7, 3)],
        "#2",
    ]


def test_a_large_photo_has_one_score(engine, score, photos, tmp_path):
    """The command lets a JPEG decoder shrink it, and so does the function, unless both are told not to."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save("large.jpg", quality=20)
    found = {}
    for exact in (False, True):
        (row,) = lifeiqa_plugin.score("large.jpg", engine=engine, exact=exact)
        assert score("large.jpg", "-o", f"{exact}.jsonl", *["--exact"] * exact)[0] == 0
        of_command = json.loads(Path(f"{exact}.jsonl").read_text())
        assert row.to_dict().items() <= of_command.items()
        found[exact] = row
    usual = next(lifeiqa_plugin.score("large.jpg", engine=engine))
    assert found[False].to_dict() == usual.to_dict()
    assert found[False].notes == ("decoded at 1/8 of its size",)
    assert found[True].notes == ()
    assert found[False].score != found[True].score


def test_a_row_as_json(engine, photos):
    scorer = lifeiqa_plugin.Scorer(engine=engine)
    assert json.loads(json.dumps(scorer(photos / "7.png").to_dict(), allow_nan=False)) == {
        "path": str(photos / "7.png"),
        "width": 128,
        "height": 64,
        "score": pytest.approx(0.713726),
        "std": pytest.approx(0.071373),
        "distortion.dark": pytest.approx(0.2863),
        "distortion.bright": pytest.approx(0.7137),
        "detail": None,
        "sentence": FLAT,
        "note": None,
        "error": None,
        "verdict": "keep",
    }
    failed = scorer(b"").to_dict()
    assert (failed["score"], failed["std"], failed["verdict"]) == (None, None, None)
    assert failed["error"] == "empty file"


def test_verdicts(engine, photos):
    scorer = lifeiqa_plugin.Scorer(engine=engine)
    verdicts = [scorer(photos / f"{i}.png").verdict for i in (1, 4, 7)]
    assert verdicts == ["drop", "check", "keep"]
    assert scorer(np.zeros((20, 20), np.uint8)).verdict is None  # too small to judge
    assert scorer(photos / "4.png").to_dict(Thresholds(0.4, 0.2))["verdict"] == "keep"


def test_one_image_is_one_result(engine, photos):
    """What would be many images for ``many`` is an error here."""
    scorer = lifeiqa_plugin.Scorer(engine=engine)
    assert scorer(photos).error == "a folder, not a file"
    assert scorer(photos / "none.png").error == "no such file"


def test_threads_get_their_own_scores():
    paths = sorted(PHOTOS.glob("*.jpg"))[:6]
    scorer = lifeiqa_plugin.Scorer(device="cpu")
    expected = [scorer(path).to_dict() for path in paths]
    with ThreadPoolExecutor(6) as pool:
        assert [row.to_dict() for row in pool.map(scorer, paths * 3)] == expected * 3
    assert expected == [row.to_dict() for row in scorer.many(paths)]
    in_processes = lifeiqa_plugin.Scorer(device="cpu", workers=1)
    assert [in_processes(path).to_dict() for path in paths[:2]] == expected[:2]
    assert len(scorer.weights_sha256) == 64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_is_refused(run_python, tmp_path):
    """The threads of a runtime do not survive a fork, and it would wait for them for ever."""
    code = """
import os, sys, numpy, lifeiqa_plugin
scorer = lifeiqa_plugin.Scorer(engine=sys.argv[1], device="cpu")
image = numpy.zeros((64, 64), numpy.uint8)
print(scorer(image).error, flush=True)
if os.fork():
    os.wait()
else:
    try:
        scorer(image)
    except RuntimeError as error:
        print(str(error).replace(str(os.getpid()), "THIS").replace(str(os.getppid()), "PARENT"), flush=True)
    os._exit(0)
"""
    done = run_python(
        "-W", "ignore", "-c", code, "torch", cwd=tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="2"
    )
    assert done.stdout == (
        "None\nthis Scorer was loaded in process PARENT, whose threads are missing in its fork THIS; "
        "make a Scorer after the fork, one in each process\n"
    ), done.stderr


def test_public_names():
    assert {"Scorer", "score", "ScoredImage"} <= set(lifeiqa_plugin.__all__)
    assert set(lifeiqa_plugin.__all__) <= set(dir(lifeiqa_plugin))


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
        ({"max_pixels": 0}, ValueError, "max_pixels must be more than 0, got 0"),
        ({"images": "none.jpg"}, ValueError, "none.jpg: no such file or folder"),
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
    names, shrink_to = (), 2.0
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

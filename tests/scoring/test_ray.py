"""``lifeiqa_plugin.scoring.ray``: the rows of ``lifeiqa score``, and a worker of a real Ray that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lifeiqa_plugin.scoring import score as scoring_score
from lifeiqa_plugin.scoring.ray import Scorer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_scorer(engine, monkeypatch):
    monkeypatch.setattr(scoring_score, "create_engine", lambda *arguments: engine)
    return lambda *columns, **options: Scorer(*columns, **{"workers": 0} | options)


def column(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_rows_are_those_of_the_command(make_scorer, score, photos):
    (photos / "4.png").write_text("nothing")
    (photos / "5.png").unlink()
    Path("list.txt").write_text("\n".join(f"photos/{i}.png" for i in range(8)))
    assert score("list.txt", "-o", "s.parquet", "--keep", "0.65")[0] == 3
    expected = pd.read_parquet("s.parquet").drop(columns=["size", "mtime"])
    found = make_scorer(keep=0.65)({"path": column(*(f"photos/{i}.png" for i in range(8)))})
    pd.testing.assert_frame_equal(found.to_pandas(), expected)


def test_bytes_and_arrays(make_scorer, photos):
    content = [(photos / f"{i}.png").read_bytes() for i in (3, 7)]
    found = make_scorer()({"__key__": column("a\n", "b", 3), "jpg": column(*content, None)})
    assert found["path"].to_pylist() == ["a\\n", "b", "3"]
    assert found["score"].to_pylist()[:2] == pytest.approx([0.3, 0.7], abs=0.02)
    assert found["error"].to_pylist() == [None, None, "no image in this row"]
    pixels = np.full((2, 64, 64, 3), 51, np.uint8)
    found = make_scorer("pixels", "n")({"n": np.arange(2), "pixels": pixels})
    assert found["path"].to_pylist() == ["0", "1"]
    assert found["score"].to_pylist() == pytest.approx([0.2, 0.2], abs=0.02)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((), "images: no column image, bytes, .* among a, b"),
        (("a", "c"), "names: no column c among a, b"),
    ],
)
def test_columns_that_are_not_there(make_scorer, columns, message):
    with pytest.raises(ValueError, match=message):
        make_scorer(*columns)({"a": column("x"), "b": column("y")})


def test_a_process_that_decodes_is_the_default(engine, monkeypatch):
    """Else an image that crashes its decoder would take every worker that tries."""
    monkeypatch.setattr(scoring_score, "create_engine", lambda *arguments: engine)
    assert Scorer().scorer._workers == 1


DYING = """
import os, signal, sys
import ray
from lifeiqa_plugin.scoring.ray import Scorer

class Dying(Scorer):
    '''The first to have scored a batch is killed before it can say so.'''

    def __init__(self, **options):
        super().__init__(**options)
        open(f"{FOLDER}/pid-{os.getpid()}", "x").close()

    def __call__(self, batch):
        table = super().__call__(batch)
        try:
            open(f"{FOLDER}/killed", "x").close()
        except FileExistsError:
            return table
        os.kill(os.getpid(), signal.SIGKILL)

FOLDER = sys.argv[1]
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)  # two of them read and write
images = ray.data.read_binary_files(f"{FOLDER}/photos", include_paths=True, override_num_blocks=6)
options = {"engine": "onnxruntime", "device": "cpu", "exact": True}
two = ray.data.ActorPoolStrategy(size=2)
scored = images.map_batches(Dying, fn_constructor_kwargs=options, batch_size=3, compute=two)
scored.write_parquet(f"{FOLDER}/scores")
"""


@pytest.fixture
def noise(tmp_path) -> Path:
    """Sixteen images, one of them broken and one empty."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(16):
        Image.effect_noise((224, 224), 6 * i).save(folder / f"{i:02d}.png")
    (folder / "04.png").write_bytes((folder / "04.png").read_bytes()[:1000])
    (folder / "11.png").write_bytes(b"")
    return folder


def run(*arguments: str | Path, cwd: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_raylet_start_wait_time_s": "300"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if "timed out during startup" in done.stderr:
        pytest.skip("Ray itself does not start here: too much else runs on this machine")
    assert done.returncode == 0, done.stderr[-4000:]


def expected_rows(tmp_path: Path) -> pd.DataFrame:
    import lifeiqa_plugin

    rows = lifeiqa_plugin.score(tmp_path / "photos", engine="onnxruntime", device="cpu")
    return pd.DataFrame(
        [(row.name, row.score, row.error) for row in rows], columns=["path", "score", "error"]
    )


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(noise, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("onnxruntime")
    (tmp_path / "dying.py").write_text(DYING)
    run("dying.py", tmp_path, cwd=tmp_path)
    assert (tmp_path / "killed").exists()
    assert len(list(tmp_path.glob("pid-*"))) >= 3  # two workers, and who came for the dead one
    found = pd.read_parquet(tmp_path / "scores").sort_values("path").reset_index(drop=True)
    expected = expected_rows(tmp_path)
    assert found["path"].tolist() == expected["path"].tolist()
    assert found["error"].fillna("").tolist() == expected["error"].fillna("").tolist()
    assert found["error"].notna().sum() == 2
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-4)


@pytest.mark.slow
def test_score_with_ray(noise, tmp_path):
    """``examples/score_with_ray.py`` on two shards, of which one is done already."""
    pytest.importorskip("ray")
    shards, out = tmp_path / "shards", tmp_path / "scores"
    shards.mkdir()
    with tarfile.open(shards / "00001.tar", "w") as archive:
        for path in sorted(noise.glob("*.png")):
            archive.add(path, path.name)
    script = ROOT / "examples" / "score_with_ray.py"
    run(script, "shards", "scores", cwd=tmp_path)
    found = pd.read_parquet(out / "00001")
    expected = expected_rows(tmp_path)
    assert sorted(found["path"]) == [Path(path).stem for path in expected["path"]]
    assert found["error"].notna().sum() == 2
    before = sorted(out.rglob("*"))
    run(script, "shards", "scores", cwd=tmp_path)
    assert sorted(out.rglob("*")) == before

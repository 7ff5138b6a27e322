"""``lifeiqa score`` in shares: ``--shard`` for many processes, and a result for each archive."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def archives(photos, tmp_path) -> Path:
    """Three WebDataset shards as img2dataset writes them: ``000000012.jpg``, ``.json`` and ``.txt`` a sample."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for i in range(3):
        with tarfile.open(folder / f"0000{i}.tar", "w") as archive:
            for j in range(3):
                key = f"{10000 * i + j:09d}"
                archive.add(photos / f"{3 * i + j - i}.png", f"{key}.png")
                for ending in ("json", "txt"):
                    archive.addfile(tarfile.TarInfo(f"{key}.{ending}"), io.BytesIO())
    return folder


def test_shards_are_disjoint_and_complete(score):
    """Of a folder, a list and a table of paths."""
    names = [f"photos/{i}.png" for i in range(8)]
    Path("list.txt").write_text("\n".join(names))
    pd.DataFrame({"path": names}).to_parquet("table.parquet")
    inputs = ["photos", "list.txt", "table.parquet"]
    assert score(*inputs, "-o", "whole.parquet")[0] == 0
    whole = pd.read_parquet("whole.parquet")
    assert len(whole) == 26
    for i in range(3):
        code, printed, _ = score(*inputs, "-o", f"{i}.parquet", "--shard", f"{i}/3")
        assert code == 0
        assert f"{len(whole[i::3])} images, " in printed
        own = pd.read_parquet(f"{i}.parquet")
        pd.testing.assert_frame_equal(own, whole[i::3].reset_index(drop=True))


def test_a_shard_takes_archives_whole(score, archives):
    content = [Path("photos/5.png").read_bytes()] * 2
    pd.DataFrame({"jpg": content, "key": ["a", "b"]}).to_parquet("bytes.parquet")
    Path("list.txt").write_text("shards/00002.tar\nphotos/0.png\n")
    found = []
    for i in range(2):
        _, printed, _ = score(
            "shards/0000[01].tar", "bytes.parquet", "list.txt", "--shard", f"{i}/2"
        )
        found.append([line.split("\t")[1] for line in printed.splitlines()])
    members = [[f"shards/0000{i}.tar/{10000 * i + j:09d}.png" for j in range(3)] for i in range(3)]
    assert found[0] == [*members[0], "bytes.parquet/a", "bytes.parquet/b", "photos/0.png"]
    assert found[1] == [*members[1], *members[2]]


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/0", "1/2/3"])
def test_what_is_no_shard(score, text):
    code, _, error = score("photos", f"--shard={text}")
    assert code == 2
    assert f"--shard {text}: expected I/N with I from 0 to N - 1, such as 0/2 and 1/2" in error


def test_a_result_for_each_archive_joins_by_its_key(score, archives, engine):
    code, printed, _ = score("shards/*.tar", "-o", "scores")
    assert code == 0
    assert printed.splitlines() == [
        f"scores/0000{i}.parquet: 3 images, 3 scored, 0 failed" for i in range(3)
    ]
    table = pd.read_parquet("scores")
    assert list(table)[:4] == ["key", "path", "width", "height"]
    assert table["key"].tolist() == [f"{10000 * i + j:09d}" for i in range(3) for j in range(3)]
    meta = pd.DataFrame({"key": ["000010001"], "caption": ["four"]})
    assert meta.merge(table, on="key")["score"].tolist() == pytest.approx([0.3], abs=0.02)
    assert sorted(os.listdir("scores"))[0] == "00000.parquet"
    assert json.loads(Path("scores/_00001.parquet.json").read_text())["rows"] == 3


def test_archives_that_are_done_are_left_alone(score, archives, engine):
    """Whoever did them: two processes with a shard each, and then one for all."""
    assert score("shards/*.tar", "-o", "scores", "--shard", "1/2")[0] == 0
    assert os.listdir("scores").count("00001.parquet") == 1
    assert len([name for name in os.listdir("scores") if name.endswith("parquet")]) == 1
    engine.batches.clear()
    code, printed, _ = score("shards/*.tar", "-o", "scores")
    assert code == 0
    assert "scores/00001.parquet: finished before, 3 images" in printed
    assert len(engine.batches) == 6
    assert len(pd.read_parquet("scores")) == 9


def test_an_archive_that_breaks_off_costs_its_rest(score, archives):
    path = archives / "00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    assert score("shards/*.tar", "-o", "scores")[0] == 3
    table = pd.read_parquet("scores")
    broken = table[table["error"].notna()]
    assert broken["path"].tolist() == ["shards/00001.tar"]
    assert broken["key"].isna().all()
    assert len(table) == 7
    assert score("shards/*.tar", "-o", "scores")[0] == 3


def test_tables_have_a_result_each(score):
    content = [Path("photos/5.png").read_bytes()] * 2
    pd.DataFrame({"jpg": content, "key": ["a.1", "b"]}).to_parquet("t-0.parquet")
    pd.DataFrame({"path": ["photos/1.png"], "key": ["c"]}).to_parquet("t-1.parquet")
    assert score("t-0.parquet", "t-1.parquet", "-o", "scores")[0] == 0
    assert pd.read_parquet("scores/t-0.parquet")["key"].tolist() == ["a.1", "b"]
    named = pd.read_parquet("scores/t-1.parquet")
    assert named["path"].tolist() == ["photos/1.png"]
    assert named["key"].isna().all()


BAD_USAGE = [
    ("photos -o scores", r"takes \.tar and \.parquet, for each of which it gets a file, not photos/0"),
    ("shards/00000.tar 00000.tar.gz -o scores", r"00000\.tar\.gz and shards/00000\.tar would both become"),
    ("shards/00000.tar -o scores --shard-rows 2", r"with --shard-rows the name must end in \.parquet"),
    ("list.txt -o s.csv --copy-to d", r"shards/00000\.tar: --copy-to, --link-to and --xmp take files, not archives"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_USAGE)
def test_bad_usage(score, archives, arguments, message):
    shutil.copy("shards/00000.tar", "00000.tar.gz")
    Path("list.txt").write_text("shards/00000.tar\n")
    code, printed, error = score(*arguments.split())
    assert code == 2
    assert re.search(f"^lifeiqa score: .*{message}", error)
    assert printed == ""


@pytest.mark.slow
def test_torchrun(photos, tmp_path):
    """The documented command, with two processes on CPUs and the bundled network."""
    command = "lifeiqa_plugin score photos -o scores/$RANK.csv --shard $RANK/$WORLD_SIZE"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python",
         "bash", "-c", f"{sys.executable} -m {command} --workers 0 --device cpu"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables = [pd.read_csv(tmp_path / f"scores/{i}.csv") for i in range(2)]
    paths = [[int(Path(path).stem) for path in table["path"]] for table in tables]
    assert paths == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert all(table["score"].notna().all() for table in tables)

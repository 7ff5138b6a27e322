"""``lifeiqa evaluate``: checked first, with names below the folder, intervals, and a line for each checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.correlation import ceiling, correlations
from lifeiqa_plugin.datasets.trained_on import TrainedOn, digests_of
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.scoring.evaluation import intervals


@pytest.fixture
def folder(photos, tmp_path, monkeypatch) -> Path:
    """The photos, a csv of them, and two tiny networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lifeiqa_plugin.allocator.keep_freed_memory", lambda: False)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    phases = ["train", "val", "test"] * 3 + ["train"]
    meta = pd.DataFrame({"name": names, "mos": np.arange(10) / 10, "half": phases})
    meta.to_csv("meta.csv", index=False)
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_lifeiqa(
            pretrained=False,
            backbone="test_convnext",
            embed_dim=16,
            num_heads=2,
            depth=1,
            crop_size=32,
        )
        save_checkpoint(network, tmp_path / f"{seed}.safetensors", ModelCard("none", "none"))
    return tmp_path


def evaluate(*arguments: str) -> int:
    return cli.main(["evaluate", "meta.csv", "photos", "--device", "cpu", *arguments])


def test_numbers_names_and_intervals(folder, capsys):
    assert evaluate("--model", "0.safetensors", "--out", "new/scores.csv") == 0
    printed = capsys.readouterr()
    assert "10/10" in printed.err
    result = json.loads(printed.out)
    table, meta = pd.read_csv("new/scores.csv"), pd.read_csv("meta.csv")
    assert list(table["name"]) == list(meta["name"])
    network = build_lifeiqa(pretrained_model_path="0.safetensors").eval()
    with torch.no_grad():
        scores = [network(read_image(f"photos/{name}")[None]).item() for name in meta["name"]]
    np.testing.assert_allclose(table["score"], scores, atol=1e-5)
    expected = correlations(np.array(scores), np.arange(10) / 10)
    for name in ("plcc", "rmse"):  # gray images of nearly equal scores may change places
        assert result[name] == pytest.approx(expected[name], abs=1e-3)
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] + 1e-3, name
        assert result[name] <= high + 1e-3, name


def test_scores_are_found_by_name(folder, capsys):
    """Not by place, which would take the noise and turn the sign round."""
    meta = pd.read_csv("meta.csv")
    meta.insert(1, "noise", 1 - meta["mos"])
    meta.rename(columns={"mos": "rating"}).to_csv("other.csv", index=False)
    meta.to_csv("meta.csv", index=False)
    assert evaluate("--model", "0.safetensors") == 0
    expected = json.loads(capsys.readouterr().out)
    Path("other.csv").rename("meta.csv")
    assert evaluate("--model", "0.safetensors", "--mos-column", "rating") == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert evaluate("--model", "0.safetensors", "--mos-column", "noise") == 0
    turned = json.loads(capsys.readouterr().out)
    assert turned["srcc"] == pytest.approx(-expected["srcc"])


def test_a_line_for_each_checkpoint(folder, capsys):
    assert evaluate("--model", "0.safetensors", "1.safetensors", "--split", "half") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["model"] for line in lines] == ["0.safetensors", "1.safetensors"]
    assert [line["images"] for line in lines] == [3, 3]
    assert lines[0]["rmse"] != lines[1]["rmse"]


def save_trained_on(names, path):
    """A checkpoint that says that its network was trained on these photos."""
    learnt = TrainedOn.build(digests_of(f"photos/{name}" for name in names))
    network = build_lifeiqa(pretrained_model_path="0.safetensors")
    save_checkpoint(network, path, ModelCard("none", "none"), trained_on=learnt.to_text())


def test_images_that_were_trained_on_are_counted(folder, capsys):
    """Four of the ten were: both numbers are printed, and a line that says so."""
    names, mos = pd.read_csv("meta.csv")["name"], np.arange(10) / 10
    save_trained_on(names[:4], "known.safetensors")
    assert evaluate("--model", "known.safetensors", "0.safetensors") == 0
    printed = capsys.readouterr()
    assert "known.safetensors: 4 of 10 images were trained on: 6 left" in printed.err
    known, unknown = [json.loads(line) for line in printed.out.splitlines()]
    assert (known["trained_on"], unknown["trained_on"]) == (4, None)
    assert "not_trained_on" not in unknown
    assert known["srcc"] == unknown["srcc"]
    assert evaluate("--model", "known.safetensors", "--out", "scores.csv") == 0
    scores = pd.read_csv("scores.csv")["score"].to_numpy()
    left = known["not_trained_on"]
    assert left["images"] == 6
    assert left["rmse"] == pytest.approx(correlations(scores[4:], mos[4:])["rmse"], abs=1e-4)
    assert left["intervals"].keys() == known["intervals"].keys()


def test_nothing_left_and_nothing_learnt(folder, capsys):
    names = list(pd.read_csv("meta.csv")["name"])
    for name, part in (("all", names), ("none", [])):
        save_trained_on(part, f"{name}.safetensors")
    assert evaluate("--model", "all.safetensors", "none.safetensors") == 0
    of_all, of_none = map(json.loads, capsys.readouterr().out.splitlines())
    assert of_all["not_trained_on"] == {"images": 0.0}
    assert of_none["trained_on"] == 0
    assert "not_trained_on" not in of_none


BAD = [
    ([], "a.png,0.5\nb.png,0.7\n", ".*the first line is 'a.png,0.5', a row and no head"),
    ([], "name,mos\n1.png,50\n2.png,80\n", ".*mos goes from 50 to 80, but the network's"),
    ([], "name,mos\n1.png,0.1\nno.png,0.2\n", "1 of 2 images .*no.png: no such file; co"),
    ([], "name,noise,score\n1.png,1,0.1\n", r".*expected a column mos, got \['name', 'noi"),
    (["--split", "a"], None, r".*no column 'a'; its split columns are \[\]"),
    (["--split", "name"], None, ".*0 rows, with name test; name has 0.png"),
    (["--out", "photos"], None, "--out photos: expected the name of a csv to write"),
    (["--out", "meta.csv"], None, "--out meta.csv: this is the csv that is read; giv"),
    (["--phase", "val"], None, "--phase chooses rows of a split column; name it with"),
    (["--workers", "-1"], None, "--workers must be 0 or more, got -1"),
    (["--model", "lifeiqa-biq"], None, "--model 'lifeiqa-biq' is neither a file nor "),
    (["--model", "x.onnx"], None, "--model x.onnx: onnx; evaluate takes checkpoints"),
    (["--model", "0.safetensors", "1.safetensors", "--out", "x.csv"], None, "--out take"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "meta", "message"), BAD)
def test_what_is_refused_before_anything_is_scored(
    folder, capsys, monkeypatch, arguments, meta, message
):
    Path("x.onnx").touch()
    if meta:
        Path("meta.csv").write_text(meta)
    monkeypatch.setattr("lifeiqa_plugin.scoring.evaluation.score", None)
    assert evaluate(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert re.match(f"lifeiqa evaluate: {message}", error)
    assert error.count("\n") == 1


def test_a_target_that_may_not_be_written(folder, capsys, monkeypatch):
    """Tests may run as root, who may write everywhere."""
    monkeypatch.setattr("os.access", lambda *arguments: False)
    assert evaluate("--out", "new/scores.csv") == 2
    assert "new/scores.csv: no permission to write in ." in capsys.readouterr().err


def test_intervals_hold_the_value():
    rng = np.random.default_rng(0)
    mos = rng.random(100)
    scores = mos + 0.3 * rng.random(100)
    value = correlations(scores, mos)
    found = intervals(scores, mos)
    assert found.keys() == value.keys()
    for name, (low, high) in found.items():
        assert low < value[name] < high


def test_the_ceiling_stands_beside_accuracy_where_opinions_are_known(folder, capsys):
    meta = pd.read_csv("meta.csv")
    meta.assign(mos_std=0.5, votes=25).to_csv("meta.csv", index=False)
    assert evaluate("--model", "0.safetensors") == 0
    found = json.loads(capsys.readouterr().out)["ceiling"]
    expected = ceiling(meta["mos"].to_numpy(), np.full(10, 0.1))
    assert found == {name: round(value, 4) for name, value in expected.items()}
    assert 0.8 < found["srcc"] < 0.98
    meta.assign(mos_std=0.5).to_csv("meta.csv", index=False)
    assert evaluate("--model", "0.safetensors") == 0
    assert "ceiling" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mos_std": -1, "votes": 3}, "mos_std must be a number of 0 or more, got '-1'"),
        ({"mos_std": 1, "votes": 0}, "votes must be a number of 1 or more, got '0'"),
        ({"mos_std": "much", "votes": 9}, "mos_std must be a number of 0 or more, got 'much'"),
    ],
)
def test_opinions_that_cannot_be_are_refused(folder, capsys, columns, message):
    pd.read_csv("meta.csv").assign(**columns).to_csv("meta.csv", index=False)
    assert evaluate("--model", "0.safetensors") == 1
    assert capsys.readouterr().err == f"lifeiqa evaluate: meta.csv: {message}\n"

"""What ``tools/measure.py`` writes, of scores that are made up: nothing is scored here."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin.benchmark.photos import CLEAN
from lifeiqa_plugin.checkpoints.models import BUNDLED

COLUMNS = ["id", "what", "value", "command", "commit", "weights_sha256", "condition", "date"]


@pytest.fixture
def script(load, monkeypatch, tmp_path):
    """The script, with files of its own, in which two rows are, of niqe and of weights that are gone."""
    script = load("measure")
    results, templates = tmp_path / "results.csv", tmp_path / "tables.md"
    rows = (["niqe", "x", ".1", "c", "c", "", "", "d"], ["default_rated_srcc", *"abcdefg"])
    results.write_text("\n".join(map(",".join, [COLUMNS, *rows, []])))
    for name, path in (("RESULTS", results), ("TEMPLATES", templates)):
        monkeypatch.setitem(script.read_results.__globals__, name, path)
    monkeypatch.setattr(script, "RESULTS", results)
    monkeypatch.setattr(script.subprocess, "check_output", lambda *_, **__: "abcdef0\n")
    return script


@pytest.fixture
def written(script, monkeypatch, tmp_path):
    """Measure with a command line while tables show these ids; return the rows that are there then, by id."""

    def run(*ids: str, **options: object) -> dict[str, dict[str, str]]:
        given = [
            word
            for name, value in options.items()
            for word in (f"--{name.replace(chr(95), chr(45))}", str(value))
        ]
        monkeypatch.setattr(script.sys, "argv", ["measure.py", "--out", str(tmp_path), *given])
        (tmp_path / "tables.md").write_text("## one\n" + " ".join(f"{{{name}}}" for name in ids))
        script.main()
        with script.RESULTS.open(newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    return run


def pretend(store, builder, specs, datasets, device, workers, notes):
    """Score by the names: MOS for ``lifeiqa``, its opposite for the other; a change moves by .01 or its number."""
    for spec in specs:
        store.describe(spec.name)
        for dataset in datasets:
            lines = ["name,score,error"]
            for i, image in enumerate(dataset.images):
                score = image.mos if spec.name == "lifeiqa" else 1 - image.mos
                if dataset.kind == "levels":
                    score = 0.9 - int(image.groups["degree"]) / 10
                elif dataset.kind == "stability":
                    score = 0.5 + (image.groups["change"] != CLEAN) * (0.01 + i // 6 / 10)
                lines.append(f"{image.name},{score},")
            store.path(spec.name, dataset.name).write_text("\n".join([*lines, ""]))


@pytest.fixture
def sets(tmp_path):
    """An option file of three sets, one of each kind."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.new("RGB", (32, 32), (i, 9, 9)).save(photos / f"{i}.png")
    lines = [f"photos/{i % 2}.png,{i / 20},ss0{1 + i % 2}" for i in range(2)]
    lines += [f"{i}.png,{i / 20},ss0{1 + i % 2}" for i in range(2, 20)]
    for i in range(2, 20):
        (tmp_path / f"{i}.png").symlink_to(photos / f"{i % 2}.png")
    (tmp_path / "rated.csv").write_text("\n".join(["name,mos,subset", *lines, ""]))
    path = tmp_path / "sets.yml"
    path.write_text(
        f"rated: {{csv: {tmp_path}/rated.csv, root: {tmp_path}, within: subset}}\n"
        f"levels: {{levels: {photos}}}\nstability: {{stability: {photos}}}\n"
        "gone: {csv: ./gone.csv, optional: true}\n"
    )
    return path


def test_benchmark(script, written, sets, monkeypatch, capsys):
    monkeypatch.setattr(script, "score_all", pretend)
    ids = ["rated_srcc", "rated_ss01_plcc", "rated_within_srcc", "rated_kept_best_third"]
    ids += ["rated_bias", "levels_blur_falling", "levels_all_falling_trained", "stability_1_pixel"]
    both = [f"{model}_{name}" for model in ("default", "biqonly") for name in ids]
    found = written(*both, data_opt=sets, parts="benchmark")
    assert "gone is left out" in capsys.readouterr().err
    assert set(found) == {"niqe", *both}
    assert list(found["niqe"].values()) == ["niqe", "x", ".1", "c", "c", "", "", "d"]
    values = {name: row["value"] for name, row in found.items()}
    assert values["default_rated_srcc"] == "1.000 (1.000 - 1.000)"
    assert values["biqonly_rated_ss01_plcc"] == "-1.000 (-1.000 - -1.000)"
    assert values["biqonly_rated_within_srcc"] == "-1.000"
    assert values["default_rated_kept_best_third"] == "100.0 %"
    assert values["biqonly_rated_bias"] == ".050"
    assert values["default_levels_blur_falling"] == "100 %"
    assert values["default_levels_all_falling_trained"] == "100.0 %"
    assert values["default_stability_1_pixel"] == ".0600, .1090"
    row = found["biqonly_rated_srcc"]
    assert row["what"] == "rated srcc, lifeiqa-biq2021"
    assert row["commit"] == "abcdef0"
    assert row["weights_sha256"] == BUNDLED["lifeiqa-biq2021"].sha256
    assert row["condition"].startswith("20 images, bootstrap 95 % interval")
    monkeypatch.setattr(script, "TRAINED_ON", {("rated", "lifeiqa")})
    script.RESULTS.write_text(",".join(COLUMNS) + "\nniqe,x,.1,c,c,,,d\n")
    assert set(written(*both[:1], *both[8:9], data_opt=sets, parts="benchmark")) == {
        "niqe",
        "biqonly_rated_srcc",
    }


def test_scores_that_fail_end_it(script, written, sets, monkeypatch):
    monkeypatch.setattr(script, "score_all", lambda *given: given[-1].update(lifeiqa="no weights"))
    before = script.RESULTS.read_text()
    with pytest.raises(SystemExit, match=r"no scores: {'lifeiqa': 'no weights'}"):
        written("default_rated_srcc", data_opt=sets, parts="benchmark")
    assert script.RESULTS.read_text() == before


def test_parts_by_scripts(script, written, sets, load, monkeypatch, tmp_path):
    """Each part asks its script, and writes what that found."""
    for name in ("biq2021-test", "agiqa-test", "phone"):
        with sets.open("a") as file:
            file.write(f"{name}: {{csv: {tmp_path}/rated.csv, root: {tmp_path}}}\n")
    scored = [SimpleNamespace(score=i / 20 + 0.1, std=0.2 - i / 1000) for i in range(20)]
    monkeypatch.setattr(script.lifeiqa_plugin, "score", lambda *_, **__: scored)
    agreement, naming = load("scoring_agreement"), load("naming")
    monkeypatch.setattr(agreement, "compare_photos", lambda _: [["fast", *"12345"]])
    monkeypatch.setattr(script, "build_lifeiqa", FakeNetwork)
    monkeypatch.setattr(naming, "name_all", lambda *_, **__: None)
    monkeypatch.setattr(
        naming, "evaluate", lambda _, kind: naming.Found(kind, 0.97, 0.5, "", -0.25)
    )
    monkeypatch.setattr(naming, "evaluate_all", lambda _: ([0.5, 0.75, 1], [0.125, 0.5]))
    explanations = load("explanations")
    hits = {"quality": {"blur": [True, False], "noise": [True, True]}}
    monkeypatch.setattr(explanations, "find_quarters", lambda *_: hits)
    wanted = {
        "biqonly_calibration_line": "1.000, -.100",
        "default_calibration_rmse": ".100",
        "default_calibration_std_inside": "100 %, 100 %",
        "default_int8_agiqa_test_gain": "+.0000 (+.0000 to +.0000)",
        "default_way_fast_most": "2",
        "default_naming_colour_cast_rank": "-.25",
        "default_naming_right": "50.0 % / 75.0 % / 100.0 %",
        "default_explain_second_quality_corner": "75 % (blur 50, noise 100)",
    }
    found = {}
    for part in ("calibration", "int8", "naming", "explanations"):
        found = written(*wanted, data_opt=sets, parts=part)
    assert {name: found[name]["value"] for name in wanted} == wanted


class FakeNetwork:
    """Has a name for one distortion."""

    distortion_names = ("colour cast",)

    def eval(self):
        return self


def test_folds(script, written, sets, load, monkeypatch, tmp_path):
    readouts = load("fit_readouts")
    mos = np.linspace(0.1, 0.9, 30)
    monkeypatch.setattr(readouts, "open_sets", lambda _: {"livec": SimpleNamespace(mos=mos)})
    monkeypatch.setattr(readouts, "scores_of_folds", lambda *_: mos + 0.05)
    monkeypatch.setattr(script, "PARTS", {"benchmark": lambda _: []})
    found = written("default_livec_srcc", "default_livec_bias", data_opt=sets, seen=tmp_path)
    assert found["default_livec_srcc"]["value"] == "1.000 (1.000 - 1.000)"
    assert found["default_livec_bias"]["value"] == ".050"
    assert found["default_livec_bias"]["command"] == "python tools/fit_readouts.py check"

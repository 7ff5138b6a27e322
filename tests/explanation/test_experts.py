"""Mutual information in closed form, the permutation test on planted answers of both kinds, and the command."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from lifeiqa_plugin.checkpoints import factory
from lifeiqa_plugin.cli import main
from lifeiqa_plugin.explanation.experts import (
    PLACES,
    Use,
    compare_labels,
    compare_rows,
    entropy,
    findings,
    mutual_information,
    use_of,
)
from lifeiqa_plugin.explanation.experts_command import evenly

pytestmark = pytest.mark.slow


def test_information_of_independent_shares_is_0_and_of_a_permutation_is_their_entropy():
    independent = np.outer([0.2, 0.8], [0.5, 0.25, 0.25])
    assert mutual_information(independent) == pytest.approx(0, abs=1e-12)
    assert mutual_information(np.eye(4) / 4) == pytest.approx(2)
    assert entropy(np.array([0.5, 0.5, 0.0])) == pytest.approx(1)


def test_information_by_hand():
    joint = np.array([[0.4, 0.1], [0.1, 0.4]])
    expected = 2 * 0.4 * math.log2(0.4 / 0.25) + 2 * 0.1 * math.log2(0.1 / 0.25)
    assert mutual_information(joint) == pytest.approx(expected)


def photos_of(labels, dependence, seed=0):
    """Shares of 3 experts for 12 photos of each label; label i prefers expert i by ``dependence``."""
    generator = np.random.default_rng(seed)
    values, names, blocks = [], [], []
    for photo in range(12):
        for i, label in enumerate(labels):
            shares = generator.random(3)
            shares[i % 3] += dependence
            values.append(shares / shares.sum())
            names.append(label)
            blocks.append(str(photo))
    return np.array(values), names, blocks


def ask(dependence):
    values, names, blocks = photos_of(["blur", "dark", "noise"], dependence)
    return compare_labels("Do they?", values, names, blocks, ["1", "2", "3"], rounds=199)


def test_experts_that_specialise_are_found():
    finding = ask(3.0)
    assert finding.p_value == 1 / 200
    assert finding.explained > 0.05
    assert finding.sentence.startswith("Do they? Yes (")
    assert finding.rows == ["blur", "dark", "noise"]
    np.testing.assert_allclose(finding.table.sum(1), 1)
    assert list(finding.table.argmax(1)) == [0, 1, 2]


def test_experts_that_do_not_are_said_not_to():
    finding = ask(0.0)
    assert finding.p_value > 0.01
    assert finding.sentence.startswith("Do they? No: no more than chance would give (")


def test_a_difference_that_is_real_but_tiny_is_called_so():
    finding = ask(0.3)
    assert finding.p_value < 0.01
    assert finding.explained < 0.05
    assert "Hardly: more than chance, but very little" in finding.sentence


def test_the_content_of_a_photo_is_not_taken_for_its_label():
    """Each photo prefers an expert of its own; labels within a photo make no difference."""
    generator = np.random.default_rng(0)
    values, names, blocks = [], [], []
    for photo in range(9):
        for label in ("blur", "dark"):
            shares = np.full(3, 0.1) + 0.01 * generator.random(3)
            shares[photo % 3] += 1
            values.append(shares / shares.sum())
            names.append(label)
            blocks.append(str(photo))
    finding = compare_labels("?", np.array(values), names, blocks, ["1", "2", "3"], rounds=199)
    assert finding.p_value > 0.01


def test_rows_that_differ_are_told_from_rows_that_do_not():
    generator = np.random.default_rng(0)
    noise = generator.random((20, 3, 4)) + 0.5
    differ = noise.copy()
    differ[:, 1, 2] += 4
    for values, is_there in ((noise, False), (differ, True)):
        shares = values / values.sum(2, keepdims=True)
        finding = compare_rows("?", shares, list("abc"), list("wxyz"), rounds=199)
        assert (finding.p_value < 0.01) == is_there
    assert finding.table[1].argmax() == 2


def test_the_use_of_an_image_adds_up(network, photo):
    use = use_of(network, photo)
    assert use.experts.shape == (3, 4)
    assert use.places.shape == (3, len(PLACES))
    assert use.experts_by_place.shape == (len(PLACES), 4)
    for shares in use:
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)


def test_one_label_leaves_the_three_questions_without_labels():
    use = Use(np.full((2, 3), 1 / 3), np.full((2, 9), 1 / 9), np.full((9, 3), 1 / 3))
    found = findings([use, use], ["none", "none"], ["a", "b"], rounds=9)
    assert [finding.rows[0] for finding in found] == ["query 1", "query 1", "top left"]
    assert all(finding.information == pytest.approx(0, abs=1e-12) for finding in found)
    assert all(finding.p_value == 1 for finding in found)


@pytest.fixture
def folder(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(factory, "build_lifeiqa", lambda **options: whole)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def run(*arguments):
    return main(["experts", *map(str, arguments), "--rounds", "9"])


def test_a_folder_is_distorted_and_answers_five_questions(folder, capsys):
    pytest.importorskip("matplotlib")
    out = folder / "out"
    assert run(folder, "--limit", 2, "-o", out) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[0].startswith("Do the experts specialise in distortions? ")
    content = json.loads((out / "manifest.json").read_text())
    kinds = content["findings"][0]["rows"]
    assert {"none", "blur", "jpeg"} <= set(kinds)
    assert content["images"] == 2 * len(kinds)
    assert {path.name for path in out.iterdir()} == {"experts.png", "experts.svg", "manifest.json"}
    assert run(folder, "-o", out) == 1


def test_a_csv_names_its_distortions_and_a_broken_file_is_a_line(folder, capsys):
    pytest.importorskip("matplotlib")
    (folder / "broken.png").write_bytes(b"nothing")
    rows = ["name,mos,subset", "0.png,1,blur", "1.png,1,dark", "broken.png,1,dark", "2.png,1,blur"]
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")
    assert run(folder / "meta.csv", "-o", folder / "out") == 0
    assert "broken.png" in capsys.readouterr().err
    content = json.loads((folder / "out" / "manifest.json").read_text())
    assert content["images"] == 3
    assert content["findings"][0]["rows"] == ["blur", "dark"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--column", "kind"], "has no column 'kind'; it has name, mos"),
        ([], "has no column 'distortion' or 'subset'; it has name, mos"),
        (["--column", "mos", "--limit", "1"], "only 1 images can be read, 2 are needed"),
    ],
)
def test_what_cannot_be_answered_is_refused(folder, capsys, arguments, message):
    (folder / "meta.csv").write_text("name,mos\n0.png,1\n1.png,2\n")
    assert run(folder / "meta.csv", "-o", folder / "out", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 9) == [1, 2]

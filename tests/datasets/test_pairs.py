"""A csv of pairs: how votes are counted, what is refused, and the scale that is fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.optimize import brentq
from scipy.special import expit

from lifeiqa_plugin import cli
from lifeiqa_plugin.datasets.pairs import SPREAD, holds_pairs, read_pairs, scale_of
from lifeiqa_plugin.datasets.table import read_meta


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "pairs.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "text",
    [
        "left,right,winner\na,b,left\nb,a,a\na,b,b\na,b,tie\nc,b,right\n",
        "left,right,votes_left,votes_right\nb,a,1.5,2.5\nb,c,1,0\n",
    ],
)
def test_rows_of_the_same_two_images_are_counted_together(write, text):
    table = read_pairs(write(text))
    assert table.to_numpy().tolist() == [["a", "b", 2.5, 1.5], ["b", "c", 1, 0]]
    assert list(table) == ["left", "right", "votes_left", "votes_right"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("left,right\na,b\n", r"expected columns left, right and winner, .* without votes_left"),
        ("left,winner\na,left\n", r"got \['left', 'winner'\], without right"),
        ("left,right,winner\n", "expected a pair in each row, got 0 rows"),
        (
            "left,right,winner\na,b,left\nb,b,left\n",
            "an image is paired with itself; 1 rows are wrong, first line 3 with left 'b'",
        ),
        (
            "left,right,winner\na,b,1\n",
            "winner must be left, right, tie or an image's name; .* line 2 with winner '1'",
        ),
        ("left,right,votes_left,votes_right\na,b,x,1\n", "votes must be .* votes_left 'x'"),
        ("left,right,votes_left,votes_right\na,b,1,-1\n", "votes must be a number .* '-1'"),
        ("left,right,votes_left,votes_right\na,b,0,0\n", "a pair needs a vote; 1 rows"),
    ],
)
def test_what_is_no_vote_is_refused(write, text, error):
    with pytest.raises(ValueError, match=error):
        read_pairs(write(text))


def test_no_such_file_is_said():
    with pytest.raises(OSError, match=r"none\.csv: cannot be read as a csv of left, right"):
        read_pairs("none.csv")


def test_a_csv_of_scores_is_none_of_pairs(write):
    assert holds_pairs(write("left,right,winner\n"))
    assert not holds_pairs(write("name,left,right,mos\n"))
    assert not holds_pairs(write("name,mos\n"))
    assert not holds_pairs("none.csv")


def test_two_images_have_the_scale_that_their_votes_ask_for(write):
    table = scale_of(read_pairs(write("left,right,votes_left,votes_right\na,b,30,10\n")))
    best = brentq(lambda s: 40 * expit(2 * s) - 30 + s / SPREAD**2, 0, 2)
    assert list(table["name"]) == ["a", "b"]
    np.testing.assert_allclose(table["mos"], expit([best, -best]), atol=1e-5)


def test_strengths_that_made_the_votes_are_found_again(write):
    rng, strength = np.random.default_rng(0), np.linspace(-1.5, 1.5, 12)
    lines = ["left,right,votes_left,votes_right"]
    for i in range(12):
        for j in range(i):
            won = rng.binomial(400, expit(strength[i] - strength[j]))
            lines.append(f"{i:02d},{j:02d},{won},{400 - won}")
    table = scale_of(read_pairs(write("\n".join(lines)))).sort_values("name")
    np.testing.assert_allclose(table["mos"], expit(strength), atol=0.03)


def test_an_image_that_always_won_stays_on_the_scale(write):
    mos = scale_of(read_pairs(write("left,right,winner\na,b,a\nb,c,b\n")))["mos"]
    assert 1 > mos[0] > mos[1] > mos[2] > 0


def test_images_that_nobody_compared_have_no_scale(write):
    table = read_pairs(write("left,right,winner\na,b,a\nc,d,c\n"))
    with pytest.raises(ValueError, match="fall into 2 groups with no pair between them"):
        scale_of(table)


def test_the_command_writes_both_files(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(name)
    write("left,right,winner\na.png,b.png,left\nb.png,a.png,tie\n")
    assert cli.main(["prepare", "pairs", ".", "-o", "out.csv", "--scale", "new/scale.csv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "out.csv: 1 pairs of 2 images, 2 votes",
        f"{Path('new/scale.csv')}: mos of 2 images",
    ]
    assert read_pairs("out.csv").to_numpy().tolist() == [["a.png", "b.png", 1.5, 0.5]]
    assert read_meta("new/scale.csv")["mos"].is_monotonic_decreasing
    assert pd.read_csv("out.csv").to_numpy().tolist() == [["a.png", "b.png", 1.5, 0.5]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pairs", ".", "--mos-range", "1", "5"], "--mos-range does not describe pairs"),
        (["pairs", ".", "--splits", "3"], "--splits does not describe pairs"),
        (["pairs", ".", "-o", "pairs.csv"], "--out and --scale: expected different files"),
        (["pairs", ".", "-o", "out.csv"], "1 of 2 images cannot be used: b.png: no such file"),
        (["folder", ".", "--scale", "s.csv"], "--scale describes pairs, not folder"),
    ],
)
def test_what_the_command_refuses(write, tmp_path, monkeypatch, capsys, arguments, error):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    write("left,right,winner\na.png,b.png,left\n")
    assert cli.main(["prepare", *arguments]) != 0
    assert error in capsys.readouterr().err
    assert not Path("out.csv").exists()

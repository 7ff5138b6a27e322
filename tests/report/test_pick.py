"""``lifeiqa pick``: pairs on which metrics disagree, rated in a real browser, and back into the benchmark."""

import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.report.pick_command import find_pairs, read_scores

from .conftest import noise_photo

COUNT = 12
NAMES = [f"photos/{i:02d}.png" for i in range(COUNT - 1)] + ['photos/a, "b".png']
SCORES = {"a": [i / 20 for i in range(COUNT)], "b": [((5 * i) % COUNT) / 20 for i in range(COUNT)]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Photos, one of a name that a csv must quote, and scores of two metrics; works in there."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i, name in enumerate(NAMES):
        Image.new("L", (48, 32), 20 * i).save(name)
    for metric, scores in SCORES.items():
        write_scores(f"{metric}.csv", scores)
    return tmp_path


def write_scores(path: str, scores: list[float], names: list[str] = NAMES) -> None:
    pd.DataFrame({"path": names, "score": scores}).to_csv(path, index=False)


def pick(*arguments: str) -> int:
    return cli.main(["pick", "a.csv", "b.csv", *arguments])


def read(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def brute_gap(ranks: np.ndarray, first: int, second: int) -> float:
    differences = np.abs(ranks[first] - ranks[second])
    return differences.max() - differences.min()


def test_pairs_are_those_that_one_metric_calls_equal_and_the_other_different():
    ranks = np.random.default_rng(0).permuted(np.tile(np.linspace(0, 1, 200), (2, 1)), axis=1).T
    pairs = find_pairs(ranks, 30)
    assert len({frozenset(pair[1:3]) for pair in pairs}) == 30
    assert [pair.equal for pair in pairs[:4]] == [0, 1, 0, 1]
    for pair in pairs:
        differences = ranks[pair.better] - ranks[pair.worse]
        assert abs(differences[pair.equal]) <= 1 / 20
        assert pair.gap == differences[pair.different] - abs(differences[pair.equal])
    # the widest gap of all is found, but for pairs across the border of two parts
    most = max(brute_gap(ranks, *two) for two in combinations(range(200), 2))
    assert 0.9 * most < max(pair.gap for pair in pairs) <= most


def test_a_pair_comes_once_though_three_metrics_have_it():
    ranks = np.array([[0, 0, 0.5], [0.5, 0.5, 1], [1, 1, 0]])
    pairs = find_pairs(ranks, 9)
    assert pairs
    assert len({frozenset(pair[1:3]) for pair in pairs}) == len(pairs)


def test_the_lists_to_rate(folder, capsys):
    assert pick("--count", "5") == 0
    assert capsys.readouterr().out.splitlines() == [
        "rate.html: 5 pairs, also in rate_pairs.csv", "rate_images.csv: 5 images",
    ]  # fmt: skip
    pairs = read("rate_pairs.csv")
    assert [pair["equal_by"] for pair in pairs] == ["a.csv", "b.csv", "a.csv", "b.csv", "a.csv"]
    assert {pair["winner"] for pair in pairs} == {""}
    rows = read("rate_images.csv")
    assert list(rows[0]) == ["name", "mos", "spread", "rank.a.csv", "rank.b.csv"]
    ranks = np.arange(COUNT) / (COUNT - 1)
    spread = {name: abs(i - (5 * i) % COUNT) / (COUNT - 1) for i, name in enumerate(NAMES)}
    assert [float(row["spread"]) for row in rows] == pytest.approx(
        sorted(spread.values(), reverse=True)[:5], abs=1e-4
    )
    assert all(float(row["rank.a.csv"]) in ranks.round(4) for row in rows)
    assert all(spread[row["name"]] == pytest.approx(float(row["spread"]), abs=1e-4) for row in rows)


def test_either_side_may_have_the_better_score(folder):
    pick()
    better = [
        SCORES[pair["different_by"][0]][NAMES.index(pair["left"])]
        > SCORES[pair["different_by"][0]][NAMES.index(pair["right"])]
        for pair in read("rate_pairs.csv")
    ]
    assert 0 < sum(better) < len(better)


def test_scores_that_benchmark_keeps(folder):
    """A lower score may be better; of a second try the score counts."""
    kept = []
    for metric, lower_better in (("up", False), ("down", True)):
        path = Path("scores", metric, "photos.csv")
        path.parent.mkdir(parents=True)
        path.write_text("name,score,error\nx,,damaged\nx,1.0,\ny,2.0,\nz,,damaged\n")
        about = {"metric": {"lower_better": lower_better}}
        path.with_name("metric.json").write_text(json.dumps(about))
        kept.append(path)
    names, scores = read_scores(kept)
    assert names == ["x", "y"]
    assert scores.tolist() == [[1, -1], [2, -2]]


def test_scores_in_shards(folder):
    """Two files of Parquet in a folder, as ``lifeiqa score --shard-rows`` leaves them."""
    Path("b.parquet").mkdir()
    table = pd.read_csv("b.csv")
    for number, part in enumerate((table[:5], table[5:])):
        part.to_parquet(f"b.parquet/part-{number:05d}.parquet")
    whole, shards = (read_scores([Path("a.csv"), Path(b)]) for b in ("b.csv", "b.parquet"))
    assert shards[0] == whole[0] == NAMES
    np.testing.assert_array_equal(shards[1], whole[1])


def test_images_that_one_metric_did_not_score(folder, capsys):
    write_scores("short.csv", SCORES["b"][1:], NAMES[1:])
    names, scores = read_scores([Path("a.csv"), Path("short.csv")])
    assert names == NAMES[1:]
    assert scores.T.tolist() == [SCORES["a"][1:], SCORES["b"][1:]]
    assert capsys.readouterr().err == "1 images are left out: not scored in each file\n"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["a.csv", "./a.csv"], 2, "scores of two metrics or more are needed, a file of each"),
        (["a.csv", "b.csv", "--count", "0"], 2, "--count must be at least 1, got 0"),
        (["a.csv", "b.csv", "-o", "x"], 2, "-o x: a page is written, so the name must end in .html"),
        (["a.csv", "no.csv"], 1, "no.csv: no such file; expected scores of 'lifeiqa score -o' or of"),
        (["a.csv", "same.csv"], 1, "all scores put the 12 images in the same order"),
        (
            ["a.csv", "other.csv"], 1,
            "0 of 24 images have a score in each file, expected two or more; the first names are "
            "'photos/00.png', '/photos/00.png'",
        ),
        (
            ["a.csv", "b.csv", "--images", "photos"], 1,
            "of the 12 images to rate are not below",
        ),
        (["a.csv", "twice.csv"], 1, "twice.csv: 'x' has two scores"),
        (["a.csv", "text.csv"], 1, "text.csv: row 1: column 'score': expected a number, got 'good'"),
        (["a.csv", "mos.csv"], 1, "mos.csv: row 1: expected the columns path and score"),
    ],
)  # fmt: skip
def test_what_cannot_be(folder, capsys, arguments, status, says):
    write_scores("same.csv", [3 * score for score in SCORES["a"]])
    write_scores("other.csv", SCORES["a"], [f"/{name}" for name in NAMES])
    Path("twice.csv").write_text("name,score\nx,1\nx,2\n")
    Path("text.csv").write_text("path,score\nx,good\n")
    Path("mos.csv").write_text("name,mos\nx,1\n")
    assert cli.main(["pick", *arguments]) == status
    assert says in capsys.readouterr().err
    assert not list(folder.glob("rate*"))


@pytest.mark.parametrize("there", ["rate.html", "rate_pairs.csv", "rate_images.csv"])
def test_a_list_that_was_filled_in_is_kept(folder, capsys, there):
    Path(there).write_text("mine")
    assert pick() == 1
    assert f"{there}: exists; name another page with -o" in capsys.readouterr().err
    assert [path.name for path in folder.glob("rate*")] == [there]


SAID = "document.querySelector('#count').textContent"
SEEN = "[...document.querySelectorAll('.pair img')].every(img => img.complete && img.naturalWidth)"


@pytest.mark.slow
def test_from_scores_over_votes_to_2afc(folder, tab):
    """The loop: scores of two models, the page, ``prepare pairs``, ``benchmark``."""
    for i, name in enumerate(NAMES):
        noise_photo(i).save(name)
    models = {"a.csv": "lifeiqa", "b.csv": "lifeiqa-biq2021"}
    for path, model in models.items():
        Path(path).unlink()
        assert cli.main(["score", "photos", "-o", path, "--model", model, "--workers", "0"]) == 0
    assert pick("--count", "6") == 0
    pairs, likes = read("rate_pairs.csv"), {row["path"]: row["score"] for row in read("a.csv")}
    url = (folder / "rate.html").as_uri()
    tab.errors.clear()
    tab.open(url)
    for rated, pair in enumerate(pairs):  # the rater is of one mind with the first model
        assert tab.becomes(SAID, f"{rated} of 6 pairs rated")
        assert tab.becomes(SEEN, True)
        tab.press("ArrowLeft" if likes[pair["left"]] > likes[pair["right"]] else "ArrowRight")
    assert tab.becomes("document.querySelector('#pair').hidden", True)
    assert tab.run(SAID) == "6 of 6 pairs rated"
    tab.press("Backspace")
    tab.open(url)  # what was rated is still there
    assert tab.becomes(SAID, "5 of 6 pairs rated")
    assert tab.becomes(SEEN, True)
    tab.click("#tie")
    assert tab.becomes(SAID, "6 of 6 pairs rated")
    Path("votes.csv").write_text(tab.run("votesCsv()"))
    assert tab.errors == []
    votes = read("votes.csv")
    sides = [[(row["left"], row["right"]) for row in rows] for rows in (pairs, votes)]
    assert sides[0] == sides[1]
    assert votes[-1]["winner"] == "tie"
    assert cli.main(["prepare", "pairs", ".", "--scores", "votes.csv"]) == 0
    data = ["-d", "meta_info_pairs.csv", "--no-speed", "--samples", "9"]
    assert cli.main(["benchmark", "-m", *models.values(), *data, "-o", "out"]) == 0
    found = pd.read_csv("out/2afc.csv").set_index("metric")["2afc"]
    assert found["lifeiqa"] == pytest.approx(5.5 / 6)
    assert found["lifeiqa-biq2021"] < 0.9


@pytest.mark.slow
def test_the_page_takes_no_vote_on_a_photo_that_is_gone(folder, tab):
    assert pick() == 0
    first = read("rate_pairs.csv")[0]["left"]
    Path(first).unlink()
    tab.open((folder / "rate.html").as_uri())
    said = f"{first} cannot be shown: it or the page has moved, or browsers do not know its kind."
    assert tab.becomes("document.querySelector('#said').textContent", said)
    tab.press("ArrowLeft")
    assert tab.run(SAID).startswith("0 of ")
    tab.errors.clear()

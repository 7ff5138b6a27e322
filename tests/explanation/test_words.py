"""The sentence, case by case."""

import numpy as np
import pytest

from lifeiqa_plugin.explanation.words import (
    BANDS,
    CUTS,
    LOCAL,
    PHRASES,
    PLACES,
    RANKED,
    LocalFlaw,
    band_of,
    by_ninth,
    find_local_flaw,
    name_flaws,
    write_sentence,
)

NONE = dict.fromkeys(CUTS, 0.0)


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (1.0, "excellent"), (0.8, "excellent"), (0.79, "good"), (0.6, "good"), (0.59, "fair"), (0.45, "fair"),
        (0.44, "poor"), (0.3, "poor"), (0.29, "bad"), (0.0, "bad"),
    ],
)  # fmt: skip
def test_five_words_for_the_score(score, word):
    assert band_of(score) == word
    said = write_sentence(score, 0.08, NONE)
    assert said == f"{word}: {'nothing stands out' if score >= 0.6 else 'cause not named'}"


@pytest.mark.parametrize(
    ("score", "distortions", "expected"),
    [
        (0.2, {}, "bad: this model names no distortions"),
        (0.2, {"blur": 0.3}, "bad: likely blur"),
        (0.2, {"blur": 0.3, "motion blur": 0.3}, "bad: blur"),
        (0.2, {"blur": 0.6, "motion blur": 0.3}, "bad: out of focus"),
        (0.2, {"blur": 0.1, "motion blur": 0.7}, "bad: motion blur"),
        (0.2, {"noise": 0.55}, "bad: noise"),
        (0.5, {"noise": 0.55}, "fair: slight noise"),
        (0.2, {"noise": 0.65}, "bad: clear noise"),
        (0.2, {"noise": 0.8}, "bad: strong noise"),
        (0.2, {"dark": 0.5, "noise": 0.3, "blur": 0.8}, "bad: out of focus, likely too dark, likely noise"),
        (0.5, {"dark": 0.9, "colour cast": 0.9, "over-exposed": 0.9}, "fair: cause not named"),
        (0.7, {"dark": 0.9, "noise": 0.2}, "good: nothing stands out"),
        (0.7, {"blocking": 0.4}, "good: likely blocks from compression"),
        (0.7, {"blocking": 0.55}, "good: slight blocks from compression"),
        (0.5, {"something new": 0.8}, "fair: something new"),
        (0.2, {"noise": 0.9, "warped": 0.8, "patchy": 0.75, "dark": 0.7}, "bad: strong noise, strong warping, patches"),
    ],
)  # fmt: skip
def test_flaws(score, distortions, expected):
    assert write_sentence(score, 0.08, distortions) == expected


def test_every_kind_that_is_named_has_its_cuts():
    from lifeiqa_plugin.distortions.kinds import KINDS

    assert CUTS.keys() - {"any blur"} == KINDS.keys()
    assert PHRASES.keys() <= CUTS.keys()
    assert set(RANKED) <= KINDS.keys()
    assert all(0 < cut.likely < cut.sure < 1 for cut in CUTS.values())


def test_nothing_is_fine_below_good_whatever_is_named():
    for score in np.linspace(0, BANDS["good"], 30, endpoint=False):
        for name in CUTS:
            for strength in (0.0, 0.3, 0.6, 0.9):
                said = write_sentence(score, 0.08, {name: strength})
                assert "nothing" not in said
                assert "fine" not in said


def with_ninth(ninth, value, rest=0.5):
    row, column = divmod(ninth, 3)
    values = np.full((30, 30), rest, np.float32)
    values[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = value
    return values


@pytest.mark.parametrize("ninth", range(9))
def test_the_worst_place_is_said_if_it_is_worse_than_the_doubt_and_not_good(ninth):
    low = with_ninth(ninth, 0.1)
    named = f"fair: noise; worst {PLACES[ninth]}"  # and not slight, since it is elsewhere that it is less
    assert write_sentence(0.5, 0.1, {"noise": 0.55}, low) == named
    assert write_sentence(0.5, 0.13, {"noise": 0.55}, low) == "fair: slight noise"
    assert write_sentence(0.5, float("nan"), {"noise": 0.55}, low) == "fair: slight noise"
    assert write_sentence(0.5, 0.1, NONE, low) == "fair: cause not named"
    assert write_sentence(0.7, 0.1, NONE, low) == "good: no flaw named"
    high = with_ninth(ninth, 0.61, rest=0.9)
    assert write_sentence(0.85, 0.01, NONE, high) == "excellent: nothing stands out"


def test_a_local_flaw_is_said_with_its_place_where_the_quality_is_low_too():
    local = LocalFlaw("noise", 0.8, "at the top")
    flaws = {"blur": 0.6, "noise": 0.3}
    low = with_ninth(1, 0.3)
    assert (
        write_sentence(0.5, 0.1, flaws, low, local) == "fair: strong noise at the top, out of focus"
    )
    everywhere = {"noise": 0.5}
    assert write_sentence(0.5, 0.1, everywhere, low, local) == "fair: slight noise"
    even = np.full((30, 30), 0.5, np.float32)
    assert write_sentence(0.5, 0.1, flaws, even, local) == "fair: out of focus, likely noise"
    good = with_ninth(1, 0.4, rest=0.8)
    said = write_sentence(0.75, 0.1, NONE, good, local)
    assert said == "good: strong noise at the top"
    shadow = LocalFlaw("dark", 0.9, "at the top")
    assert write_sentence(0.4, 0.1, NONE, low, shadow) == "poor: cause not named"
    elsewhere = LocalFlaw("noise", 0.8, "on the left")
    said = write_sentence(0.75, 0.03, NONE, good, elsewhere)
    assert said == "good: no flaw named"


def test_another_scale_of_scores_gives_the_same_words():
    low = with_ninth(4, 0.1)
    expected = write_sentence(0.5, 0.1, {"noise": 0.7}, low)
    assert write_sentence(3, 0.4, {"noise": 0.7}, 1 + 4 * low, score_range=(1, 5)) == expected
    assert write_sentence(70, 9, {"noise": 0.7}, low, score_range=None) == "clear noise"
    assert write_sentence(70, 9, NONE, low, score_range=None) == "no flaw named"


def test_what_is_sure_comes_first():
    assert name_flaws(0.1, {"dark": 0.59, "noise": 0.51}) == ["noise", "likely too dark"]


@pytest.mark.parametrize("ninth", range(9))
def test_a_flaw_is_local_where_one_ninth_stands_out(ninth):
    even = np.full((30, 30), 0.2, np.float32)
    maps = np.stack([even, with_ninth(ninth, 0.2 + 1.2 * LOCAL, 0.2), with_ninth(ninth, 0.1, 0.2)])
    found = find_local_flaw(["blur", "noise", "dark"], maps)
    assert found.name == "noise"
    assert found.strength == pytest.approx(0.2 + 1.2 * LOCAL, abs=1e-6)
    assert found.place == PLACES[ninth]
    # A ninth stands out by 8 / 9 of the difference.
    assert find_local_flaw(["noise"], with_ninth(ninth, 0.2 + 1.1 * LOCAL, 0.2)[None]) is None


def test_without_distortions_no_flaw_is_local():
    assert find_local_flaw([], np.zeros((0, 30, 30), np.float32)) is None


def test_ninths_of_a_map_that_three_does_not_divide():
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert by_ninth(values).shape == (9,)
    assert by_ninth(values)[0] == pytest.approx(values[:2, :2].mean())
    assert by_ninth(values)[8] == pytest.approx(values[3:, 4:].mean())

"""The sentence, case by case."""

import numpy as np
import pytest

from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.words import (
    ANY_BLUR,
    LOCAL,
    LOCAL_DARK,
    MEANT,
    PHRASES,
    PLACES,
    RANKED,
    LocalFlaw,
    band_of,
    by_ninth,
    find_flaws,
    find_local_flaw,
    write_sentence,
)

NONE = dict.fromkeys(KINDS, 0.0)

NAMING = {
    ANY_BLUR: {"likely": 0.25, "sure": 0.5, "shares": [[0, 0.3], [0.5, 0.8], [1, 0.9]]},
    "noise": {"likely": 0.25, "sure": 0.5},
    "blocking": {"likely": 0.3, "sure": 0.5},
    "dark": {"likely": 0.3, "sure": 0.6},
    "over-smoothed": {"likely": 0.3, "sure": 0.5, "shares": [[0, 0.3], [1, 0.4]]},
}


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (1.0, "excellent"), (0.8, "excellent"), (0.79, "good"), (0.6, "good"), (0.59, "fair"), (0.45, "fair"),
        (0.44, "poor"), (0.3, "poor"), (0.29, "bad"), (0.0, "bad"),
    ],
)  # fmt: skip
def test_five_words_for_the_score(score, word):
    assert band_of(score) == word
    said = write_sentence(score, 0.08, NONE, NAMING)
    assert said == f"{word}: {'no flaw named' if score >= 0.6 else 'cause not named'}"


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
        (0.7, {"dark": 0.9, "noise": 0.2}, "good: no flaw named"),
        (0.7, {"blocking": 0.4}, "good: no flaw named"),
        (0.59, {"blocking": 0.4}, "fair: likely blocks from compression"),
        (0.5, {"motion blur": 0.3}, "fair: likely blur"),
        (0.5, {"over-smoothed": 0.9}, "fair: cause not named"),
        (0.4, {"over-smoothed": 0.9}, "poor: smearing by noise reduction"),
        (0.7, {"blocking": 0.55}, "good: slight blocks from compression"),
        (0.5, {"something new": 0.8}, "fair: something new"),
        (0.2, {"noise": 0.9, "warped": 0.8, "patchy": 0.75, "dark": 0.7}, "bad: strong noise, strong warping, patches"),
    ],
)  # fmt: skip
def test_flaws(score, distortions, expected):
    assert write_sentence(score, 0.08, distortions, NAMING) == expected


def test_what_is_said_is_said_of_kinds():
    assert PHRASES.keys() <= {*KINDS, ANY_BLUR}
    assert {*RANKED, *MEANT} <= KINDS.keys()


def test_flaws_have_the_share_of_their_table():
    noise, blur = find_flaws(0.5, {"motion blur": 0.25, "noise": 0.3}, NAMING)
    assert (blur.name, blur.share) == (ANY_BLUR, pytest.approx(0.55))
    assert np.isnan(noise.share)
    assert not noise.is_sure


def test_without_cuts_there_is_one_for_all():
    found = find_flaws(0.2, {"blur": 0.39, "noise": 0.41, "something new": 0.6})
    assert [flaw.phrase for flaw in found] == ["something new", "likely noise"]


def with_ninth(ninth, value, rest=0.5):
    row, column = divmod(ninth, 3)
    values = np.full((30, 30), rest, np.float32)
    values[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = value
    return values


@pytest.mark.parametrize("ninth", range(9))
def test_the_worst_place_is_said_if_it_is_worse_than_the_doubt_and_not_good(ninth):
    low, place = with_ninth(ninth, 0.1), PLACES[ninth]
    named = f"fair: noise; worst {place}"  # and not slight, since it is elsewhere that it is less
    assert write_sentence(0.5, 0.1, {"noise": 0.55}, NAMING, low) == named
    assert write_sentence(0.5, 0.13, {"noise": 0.55}, NAMING, low) == "fair: slight noise"
    assert write_sentence(0.5, float("nan"), {"noise": 0.55}, NAMING, low) == "fair: slight noise"
    assert write_sentence(0.5, 0.1, NONE, NAMING, low) == f"fair: cause not named; worst {place}"
    assert write_sentence(0.7, 0.1, NONE, NAMING, low) == f"good: no flaw named; worst {place}"
    high = with_ninth(ninth, 0.61, rest=0.9)
    assert write_sentence(0.85, 0.01, NONE, NAMING, high) == "excellent: no flaw named"


def test_a_local_flaw_is_said_with_its_place_where_the_quality_is_low_too():
    local = LocalFlaw("noise", 0.8, "at the top")
    flaws = {"blur": 0.6, "noise": 0.3}
    low = with_ninth(1, 0.2)
    said = write_sentence(0.5, 0.1, flaws, NAMING, low, local)
    assert said == "fair: strong noise at the top, out of focus"
    everywhere = {"noise": 0.5}
    assert write_sentence(0.5, 0.1, everywhere, NAMING, low, local) == "fair: slight noise"
    even = np.full((30, 30), 0.5, np.float32)
    said = write_sentence(0.5, 0.1, flaws, NAMING, even, local)
    assert said == "fair: out of focus, likely noise"
    good = with_ninth(1, 0.4, rest=0.8)
    said = write_sentence(0.75, 0.1, NONE, NAMING, good, local)
    assert said == "good: strong noise at the top"
    elsewhere = LocalFlaw("noise", 0.8, "on the left")
    said = write_sentence(0.75, 0.15, NONE, NAMING, good, elsewhere)
    assert said == "good: no flaw named"


def test_a_dark_place_is_said_but_as_no_flaw():
    shadow = LocalFlaw("dark", 0.9, "at the top")
    low = with_ninth(1, 0.3)
    assert (
        write_sentence(0.7, 0.1, NONE, NAMING, low, shadow)
        == "good: no flaw named; dark at the top"
    )
    assert (
        write_sentence(0.4, 0.1, NONE, NAMING, low, shadow)
        == "poor: cause not named; dark at the top"
    )
    assert write_sentence(0.4, 0.13, NONE, NAMING, low, shadow) == "poor: cause not named"
    assert write_sentence(0.4, 0.1, {"noise": 0.5}, NAMING, low, shadow) == "poor: noise"


def test_another_scale_of_scores_gives_the_same_words():
    low = with_ninth(4, 0.1)
    expected = write_sentence(0.5, 0.1, {"noise": 0.7}, NAMING, low)
    assert (
        write_sentence(3, 0.4, {"noise": 0.7}, NAMING, 1 + 4 * low, score_range=(1, 5)) == expected
    )
    assert write_sentence(70, 9, {"noise": 0.7}, NAMING, low, score_range=None) == "clear noise"
    assert write_sentence(70, 9, NONE, NAMING, low, score_range=None) == "no flaw named"


def test_what_is_sure_comes_first():
    found = find_flaws(0.1, {"dark": 0.59, "noise": 0.51}, NAMING)
    assert [flaw.phrase for flaw in found] == ["noise", "likely too dark"]


@pytest.mark.parametrize(("name", "least"), [("noise", LOCAL), ("dark", LOCAL_DARK)])
@pytest.mark.parametrize("ninth", range(9))
def test_a_flaw_is_local_where_one_ninth_stands_out(ninth, name, least):
    """By 8 / 9 of the difference."""
    names = ["blur", name, "colour cast"]
    maps = [with_ninth(ninth, value, 0.2) for value in (0.2, 0.2 + 1.2 * least, 1)]
    found = find_local_flaw(names, np.stack(maps))
    assert (found.name, found.place) == (name, PLACES[ninth])
    assert found.strength == pytest.approx(0.2 + 1.2 * least, abs=1e-6)
    maps[1] = with_ninth(ninth, 0.2 + 1.1 * least, 0.2)
    assert find_local_flaw(names, np.stack(maps)) is None


def test_without_distortions_no_flaw_is_local():
    assert find_local_flaw([], np.zeros((0, 30, 30), np.float32)) is None


def test_ninths_are_counted_row_by_row():
    maps = np.zeros((2, 7, 10), np.float32)
    maps[0, :3, 7:] = 4  # 7 rows fall into 3, 2 and 2, 10 columns into 4, 3 and 3
    maps[1, 5:, :4] = 1
    expected = [[0, 0, 4, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0, 0]]
    np.testing.assert_allclose(by_ninth(maps), expected)

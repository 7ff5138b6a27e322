"""The sentence, case by case."""

import numpy as np
import pytest

from lifeiqa_plugin.explanation.words import LOCAL, PLACES, LocalFlaw, describe, find_local_flaw

EVEN = np.full((30, 30), 0.7, np.float32)


@pytest.mark.parametrize(
    ("distortions", "expected"),
    [
        ({}, "this model names no distortions"),
        ({"blur": 0.1, "dark": 0.0}, "nothing stands out"),
        (
            {"dark": 0.6, "motion blur": 0.9, "noise": 0.1},
            "soft from motion blur, dark; the rest is fine",
        ),
        ({"dark": 0.3, "noise": 0.6}, "noisy, slightly dark"),
        ({"something new": 0.8, "dark": 0.0}, "something new; the rest is fine"),
        (
            {"a": 0.3, "b": 0.4, "c": 0.45, "d": 0.0},
            "slightly c, slightly b; the rest is fine",
        ),
    ],
)
def test_flaws(distortions, expected):
    assert describe(distortions, None, EVEN, 0.05, is_flat=False) == expected


def with_ninth(ninth, value):
    row, column = divmod(ninth, 3)
    values = EVEN.copy()
    values[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = value
    return values


@pytest.mark.parametrize("ninth", range(9))
def test_the_worst_place_is_named_if_it_is_worse_than_the_doubt(ninth):
    values = with_ninth(ninth, 0.5)
    assert describe({"dark": 0.9}, None, values, 0.1, False) == f"dark; worst {PLACES[ninth]}"
    assert describe({"dark": 0.9}, None, values, 0.3, False) == "dark"


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        (0.8, "noisy at the top, dark, slightly a, slightly b; the rest is fine"),
        (0.3, "dark, slightly noisy at the top, slightly a; the rest is fine"),
    ],
)
def test_a_local_flaw_is_said_with_its_place(strength, expected):
    local = LocalFlaw("noise", strength, "at the top")
    flaws = {"dark": 0.6, "noise": 0.1, "blur": 0.0, "a": 0.45, "b": 0.4}
    assert describe(flaws, local, EVEN, 0.1, False) == expected
    assert describe(flaws, local, with_ninth(1, 0.5), 0.1, False) == expected  # the same place
    elsewhere = describe(flaws, local, with_ninth(3, 0.5), 0.1, False)
    assert elsewhere == f"{expected}; worst on the left"


@pytest.mark.parametrize("ninth", range(9))
def test_a_flaw_is_local_where_one_ninth_stands_out(ninth):
    maps = np.stack([EVEN, with_ninth(ninth, 0.7 + 1.2 * LOCAL), with_ninth(ninth, 0.2)])
    found = find_local_flaw(["blur", "noise", "dark"], maps)
    assert found.name == "noise"
    assert found.strength == pytest.approx(0.7 + 1.2 * LOCAL, abs=1e-6)
    assert found.place == PLACES[ninth]
    # A ninth stands out by 8 / 9 of the difference.
    assert find_local_flaw(["noise"], with_ninth(ninth, 0.7 + 1.1 * LOCAL)[None]) is None


def test_without_distortions_no_flaw_is_local():
    assert find_local_flaw([], np.zeros((0, 30, 30), np.float32)) is None


def test_of_one_colour_nothing_is_said():
    said = describe({"dark": 0.9}, None, EVEN, 0.1, is_flat=True)
    assert said == "one colour throughout: there is nothing to judge"

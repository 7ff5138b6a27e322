"""The sentence, case by case."""

import numpy as np
import pytest

from lifeiqa_plugin.explanation.words import PLACES, describe

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
    assert describe(distortions, EVEN, 0.05, is_flat=False) == expected


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_the_worst_place_is_named_if_it_is_worse_than_the_doubt(row, column):
    values = EVEN.copy()
    values[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = 0.5
    assert describe({"dark": 0.9}, values, 0.1, False) == f"dark; worst {PLACES[row][column]}"
    assert describe({"dark": 0.9}, values, 0.3, False) == "dark"


def test_of_one_colour_nothing_is_said():
    said = describe({"dark": 0.9}, EVEN, 0.1, is_flat=True)
    assert said == "one colour throughout: there is nothing to judge"

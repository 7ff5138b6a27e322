"""Which columns of a csv are the images and the scores, in every command that reads one."""

from __future__ import annotations

import pandas as pd
import pytest

from lifeiqa_plugin.datasets.table import Columns, find_name_and_mos, read_meta

FOUND = {
    "name,mos": ("name", "mos"),
    "mos,name": ("name", "mos"),
    "name,noise,mos": ("name", "mos"),
    "img_name,mos,std,split": ("img_name", "mos"),
    "Image Name,MOS, Filename": (" Filename", "MOS"),
    "path,MOS,mos": ("path", "mos"),
    "photo,rating": ("photo", "rating"),  # two columns, as earlier versions read them
}


@pytest.mark.parametrize("header", FOUND)
def test_columns_are_found_by_name(header):
    assert find_name_and_mos("x.csv", header.split(",")) == FOUND[header]


@pytest.mark.parametrize(
    ("header", "asked", "message"),
    [
        (
            "name,noise,score",
            Columns(),
            r"x\.csv: expected a column mos, got \['name', 'noise', 'score'\]; name yours with --mos-column, or ren",
        ),
        (
            "photo,noise,mos",
            Columns(),
            r"expected a column name or img_name or .*; name yours with --name-column",
        ),
        ("name,mos", Columns("rating"), r"expected a column rating, got \['name', 'mos'\]"),
        ("name,mos", Columns(name="photo"), r"expected a column photo, got \['name', 'mos'\]"),
        ("name,mos", Columns("name"), "the column 'name' cannot be both the images and their sco"),
        ("a.png,0.5", Columns(), "the first line is 'a.png,0.5', a row and no header; begin the"),
        ("name", Columns(), r"expected a column mos, got \['name'\]"),
    ],
)
def test_columns_that_are_not_there(header, asked, message):
    with pytest.raises(ValueError, match=message):
        find_name_and_mos("x.csv", header.split(","), asked)


def test_images_and_scores_come_first_whatever_their_order(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("noise,mos,name,rating\n3,0.5,007,9\n2,0.75,b,8\n")
    table = read_meta(path)
    expected = {"name": ["007", "b"], "mos": [0.5, 0.75], "noise": ["3", "2"], "rating": ["9", "8"]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)
    asked = read_meta(path, Columns("rating", "name"))
    assert list(asked) == ["name", "rating", "noise", "mos"]
    assert list(asked["rating"]) == [9, 8]

"""Stars in sidecars: what photo tools read, what is left alone, and that all can be taken back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from lifeiqa_plugin.scoring.stars import remove_stars, write_stars

RATING = 'xmp:Rating="{}"'


def ratings(folder: str | Path = "photos") -> dict[str, str]:
    return {
        path.name: path.read_text().partition('xmp:Rating="')[2].partition('"')[0]
        for path in sorted(Path(folder).glob("*.xmp"))
    }


def test_verdicts_become_stars(score):
    code, printed, _ = score("photos", "-o", "s.csv", "--xmp")
    assert code == 0
    assert "10 images rated; 0 have a rating or sidecar of their own" in printed
    stars = ("-1", "-1", "-1", "1", "1", "2", "3", "4")
    assert ratings() == {f"{i}.png.xmp": star for i, star in enumerate(stars)}
    assert ratings("photos/below") == {"8.png.xmp": "5", "9.png.xmp": "5"}


def test_what_is_drawn_back_is_what_was_written(score):
    before = sorted(Path().rglob("*"))
    score("photos", "-o", "s.csv", "--xmp")
    changed = Path("photos/3.png.xmp")
    changed.write_text(changed.read_text() + "<!-- edited -->")
    code, printed, _ = score("photos", "-o", "s.csv", "--xmp-undo")
    assert code == 0
    assert "9 sidecars removed; 1 are not as lifeiqa wrote them and stay" in printed
    changed.unlink()
    score("photos", "-o", "s.csv", "--xmp-undo")
    assert sorted(Path().rglob("*")) == sorted([*before, Path("s.csv"), Path("s.csv.json")])


def test_a_finished_result_is_rated_and_rated_anew_for_other_thresholds(score):
    score("photos", "-o", "s.csv")
    score("photos", "-o", "s.csv", "--xmp")
    assert ratings()["4.png.xmp"] == "1"
    score("photos", "-o", "s.csv", "--drop", ".5", "--xmp")
    assert ratings()["4.png.xmp"] == "-1"


def test_ratings_of_others_stay(score):
    Path("photos/1.png.xmp").write_text("of another program")
    Path("photos/2.xmp").write_text(RATING.format(5))
    with open("photos/3.png", "ab") as file:
        file.write(b'<rdf xmp:Rating="4"/>')
    _, printed, _ = score("photos", "-o", "s.csv", "--xmp")
    assert "7 images rated; 3 have a rating or sidecar of their own" in printed
    assert Path("photos/1.png.xmp").read_text() == "of another program"
    assert {"2.png.xmp", "3.png.xmp"}.isdisjoint(ratings())


def test_beside_raw_files_lightroom_finds_its_own_name(tmp_path):
    raw = tmp_path / "shot.ARW"
    raw.touch()
    rows = [{"path": str(raw), "score": 0.75, "verdict": "keep"}]
    assert write_stars(rows).startswith("1 images rated; 0 have")
    assert ratings(tmp_path) == {"shot.ARW.xmp": "4", "shot.xmp": "4"}
    assert remove_stars(rows).startswith("2 sidecars removed; 0 are not")
    assert ratings(tmp_path) == {}


def test_names_of_all_kinds(score):
    names = ["-dash.png", 'a\'b "c";$(touch x).png']
    for name in names:
        Image.new("L", (64, 64), 200).save(f"photos/{name}")
    score("photos", "-o", "s.csv", "--xmp")
    assert {f"{name}.xmp" for name in names} <= set(ratings())


def test_exiftool_reads_them(score):
    if shutil.which("exiftool") is None:
        pytest.skip("no exiftool on this machine")
    score("photos", "-o", "s.csv", "--xmp")
    said = subprocess.run(
        ["exiftool", "-s3", "-XMP-xmp:Rating", "photos/7.png.xmp"], capture_output=True, text=True
    )
    assert said.stdout == "4\n"

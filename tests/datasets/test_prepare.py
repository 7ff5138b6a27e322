"""``lifeiqa prepare``: each set from a generated folder of its layout, with the trap that it is known for."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from lifeiqa_plugin.datasets.prepare import prepare, random_split, split_groups
from lifeiqa_plugin.datasets.readers import DATASETS, Row
from lifeiqa_plugin.datasets.table import Columns


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)


def make_biq2021(root):
    write(root, *(f"Images/ss01 ({i}).jpg" for i in range(1, 41)))
    rows = [f"ss01 ({i}).jpg,{i / 100},," for i in range(1, 31)]
    rows[0] = "SS01 (1).JPG,0.01,,"  # one name differs in case
    (root / "Train (Images and MOS).csv").write_text("Image Name,MOS,,\n" + "\n".join(rows) + "\n")
    rows = [f"ss01 ({i}).jpg,{i / 100}" for i in range(31, 41)]
    (root / "Test (Images and MOS).csv").write_text("Image Name,MOS\n" + "\n".join(rows) + "\n")
    return {"Images/ss01 (1).jpg": 0.01, "Images/ss01 (40).jpg": 0.4}, 40


def make_livec(root):
    practice, real = [f"t{i}.bmp" for i in range(1, 8)], [f"{i}.bmp" for i in range(3, 13)]
    write(root, *(f"Images/trainingImages/{n}" for n in practice), *(f"Images/{n}" for n in real))
    (root / "Data").mkdir()
    names = np.array([[n] for n in practice + real], dtype=object)
    savemat(root / "Data/AllImages_release.mat", {"AllImages_release": names})
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.arange(17.0)[None]})
    return {"Images/3.bmp": 0.07, "Images/12.bmp": 0.16}, 10


def make_koniq10k(root):
    write(root, *(f"1024x768/{i}.jpg" for i in range(12)))
    sets = ["training"] * 6 + ["validation"] * 3 + ["test"] * 3
    rows = [f"{i}.jpg,0,0,0.2,0.7,0.1,105,{i * 5},0.5,{s}" for i, s in enumerate(sets)]
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
    (root / "koniq10k_distributions_sets.csv").write_text(header + "\n".join(rows) + "\n")
    return {"1024x768/0.jpg": 0.0, "1024x768/11.jpg": 0.55}, 12


def make_kadid10k(root):
    names = [f"I{i:02d}_{k:02d}_01.png" for i in range(1, 8) for k in (1, 2)]
    write(root, *(f"images/{n}" for n in names))
    rows = [f"{n},{n[:3]}.png,{1 + 4 * (n[4:6] == '02')},0.1" for n in names]
    (root / "dmos.csv").write_text("dist_img,ref_img,dmos,var\n" + "\n".join(rows) + "\n")
    return {"images/I01_01_01.png": 0.0, "images/I01_02_01.png": 1.0}, 14


def make_spaq(root):
    write(root, *(f"TestImage/{i:05d}.jpg" for i in range(6)))
    (root / "Annotations").mkdir()
    rows = [f"{i:05d}.jpg,{i * 20},1" for i in range(6)]
    text = "Image name,MOS,Brightness\n" + "\n".join(rows) + "\n"
    (root / "Annotations/MOS and Image attribute scores.csv").write_text(text)
    return {"TestImage/00000.jpg": 0.0, "TestImage/00005.jpg": 1.0}, 6


def make_csiq(root):
    """The sheet's order (by level) is not the folders' (by image)."""
    images = ["1600", "aerial_city", "boston", "bridge", "butterfly_flower"]
    kinds = {
        "noise": "awgn/{}.AWGN",
        "jpeg 2000": "jpeg2000/{}.jpeg2000",
        "contrast": "contrast/{}.contrast",
    }
    lines = []
    for level in (2, 1):
        for kind, pattern in kinds.items():
            for image in reversed(images):
                write(root, f"dst_imgs/{pattern.format(image)}.{level}.png")
                lines.append(f"{image},0,{kind},{level},0,{0.25 * level}")
    (root / "csiq.DMOS.csv").write_text(
        "image,dst_idx,dst_type,dst_lev,dmos_std,dmos\n" + "\n".join(lines) + "\n"
    )
    return {
        "dst_imgs/awgn/1600.AWGN.1.png": 0.75,
        "dst_imgs/jpeg2000/boston.jpeg2000.2.png": 0.5,
    }, 30


def make_tid2013(root):
    names = [f"i{i:02d}_{k:02d}_1.bmp" for i in range(1, 7) for k in (1, 2)]
    write(root, *(f"distorted_images/{n}" for n in names))
    (root / "mos_with_names.txt").write_text(
        "".join(f"{i * 0.75} {n.upper()[:1] + n[1:]}\n" for i, n in enumerate(names))
    )
    return {"distorted_images/i01_01_1.bmp": 0.0, "distorted_images/i06_02_1.bmp": 11 / 12}, 12


def make_live(root):
    counts = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
    names = [
        f"{folder}/img{i}.bmp" for folder, count in counts.items() for i in range(1, count + 1)
    ]
    copies = np.arange(982) % 7 == 3
    write(root, *names)
    dmos = np.where(copies, 0.0, np.arange(982) / 10)
    savemat(root / "dmos.mat", {"dmos": dmos[None], "orgs": copies[None]})
    references = np.array([[f"ref{i % 29}.bmp" for i in range(982)]], dtype=object)
    savemat(root / "refnames_all.mat", {"refnames_all": references})
    return {"jp2k/img1.bmp": 1.0, "jpeg/img2.bmp": 1 - 22.8 / 100}, int((~copies).sum())


def make_flive(root):
    """Images above 640 pixels are the test set; is_valid, in the list of the others, is val."""
    write(root, *(f"database/blur/{i}.jpg" for i in range(10)))
    labels = "".join(f"blur/{i}.jpg,{i * 10}\n" for i in range(10))
    (root / "database/labels_image.csv").write_text("name,mos\n" + labels)
    small = "".join(f"blur/{i}.jpg,{i * 10},{i > 5}\n" for i in range(8))
    (root / "database/labels=640_padded.csv").write_text("name_image,mos_image,is_valid\n" + small)
    (root / "database/labels640.csv").write_text(
        "name_image,mos_image\nblur/8.jpg,80\nblur/9.jpg,90\n"
    )
    return {"database/blur/0.jpg": 0.0, "database/blur/9.jpg": 0.9}, 10


def make_agiqa3k(root):
    """Three generators draw each of ten prompts; the images are in a folder, which the csv does not say."""
    names = [
        f"{kind}_normal_{i:03d}.jpg" for kind in ("AttnGAN", "glide", "sd1.5") for i in range(10)
    ]
    write(root, *(f"AGIQA-3K/{n}" for n in names))
    lines = [f'{n},"prompt, {n[-7:-4]}",{i / 6}' for i, n in enumerate(names)]
    (root / "data.csv").write_text("name,prompt,mos_quality\n" + "\n".join(lines) + "\n")
    return {"AGIQA-3K/AttnGAN_normal_000.jpg": 0.0, "AGIQA-3K/sd1.5_normal_009.jpg": 29 / 30}, 30


def make_avt_ai(root):
    keys = [f"{kind}/p{i:02d}" for kind in ("glide", "own") for i in range(1, 8)]
    write(root, *(f"images/{key}.png" for key in keys))
    (root / "evaluation_quality_appeal").mkdir()
    lines = [f"{key},{1 + i % 5},0.9,{key[-3:]}" for i, key in enumerate(keys)]
    text = "image_key,rating,std,prompt\n" + "\n".join(lines) + "\n"
    (root / "evaluation_quality_appeal/quality.csv").write_text(text)
    return {"images/glide/p01.png": 0.0, "images/own/p03.png": 1.0}, 14


MAKERS = {
    name.removeprefix("make_"): maker
    for name, maker in globals().items()
    if name.startswith("make_")
}
SUBSETS = {
    "biq2021": {"ss01"}, "kadid10k": {"type 01", "type 02"}, "avt_ai": {"glide", "own"},
    "live": {"jp2k", "jpeg", "wn", "gblur", "fastfading"}, "agiqa3k": {"AttnGAN", "glide", "sd1.5"},
}  # fmt: skip
OFFICIAL = {"biq2021": (27, 3, 10), "koniq10k": (6, 3, 3), "flive": (6, 2, 2)}


def test_every_set_is_tested():
    assert MAKERS.keys() == DATASETS.keys() - {"folder"}


@pytest.mark.parametrize("name", MAKERS)
def test_set(name, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out" / "meta.csv"
    root.mkdir()
    expected, count = MAKERS[name](root)
    about = prepare(name, root, out)
    table = pd.read_csv(out)
    assert len(table) == count
    assert f"{count} images" in about
    mos = dict(zip(table["name"], table["mos"], strict=True))
    assert {key: mos[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert list(table)[:3] == ["name", "mos", "mos_raw"]
    check_splits(table)
    if name in SUBSETS:
        assert set(table["subset"]) == SUBSETS[name]
    assert ("official_split" in table) == (name in OFFICIAL)
    if name in OFFICIAL:
        assert (
            tuple(table["official_split"].value_counts()[["train", "val", "test"]])
            == OFFICIAL[name]
        )


def check_splits(table):
    """Ten different splits, all three phases in each, no reference in two."""
    splits = [f"ratio712_seed123_split_{i:02d}" for i in range(1, 11)]
    assert len({tuple(table[split]) for split in splits}) > 5
    for split in splits:
        assert set(table[split]) == {"train", "val", "test"}
        if "reference" in table:
            assert table.groupby("reference")[split].nunique().max() == 1


def test_koniq_without_sets_has_its_scores_under_another_name(tmp_path):
    write(tmp_path, *(f"512x384/{i}.jpg" for i in range(5)))
    rows = "".join(f"{i}.jpg,{i},{20 * i}\n" for i in range(5))
    (tmp_path / "koniq10k_scores_and_distributions.csv").write_text(
        "image_name,MOS,MOS_zscore\n" + rows
    )
    prepare("koniq10k", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    assert list(table["mos"]) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert "official_split" not in table
    assert table["name"][0] == "512x384/0.jpg"


def test_csiq_sheet_is_found_below_its_explanation(tmp_path, monkeypatch):
    """The authors' xlsx; what pandas makes of it is given here, so that the test needs no openpyxl."""
    make_csiq(tmp_path)
    as_csv = pd.read_csv(tmp_path / "csiq.DMOS.csv")
    (tmp_path / "csiq.DMOS.csv").rename(tmp_path / "csiq.DMOS.xlsx")
    cells = pd.DataFrame(
        [
            ["CSIQ", *[None] * 5],
            [None] * 6,
            list(as_csv),
            *as_csv.astype(object).to_numpy().tolist(),
        ]
    )
    cells.insert(0, "margin", None)
    monkeypatch.setattr(pd, "read_excel", lambda *_, **arguments: cells.set_axis(range(7), axis=1))
    prepare("csiq", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    assert len(table) == 30
    assert table["mos"][table["name"] == "dst_imgs/awgn/1600.AWGN.1.png"].item() == 0.75
    cells[cells == "dst_type"] = "type"
    with pytest.raises(ValueError, match=r"all_by_image has no line with dst_type"):
        prepare("csiq", tmp_path, tmp_path / "meta.csv")


def test_near_twins_of_test_images_are_in_no_phase(tmp_path):
    """Two training images are test images again, one reduced and one brighter; images alone do not count."""
    _, count = make_biq2021(tmp_path)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "Images").iterdir()):
        Image.fromarray(rng.integers(0, 200, (48, 64, 3), dtype=np.uint8)).resize((192, 144)).save(
            path, quality=95
        )
    for train, test, change in (
        (3, 31, lambda p: p.resize((96, 72))),
        (30, 40, lambda p: p.point(lambda v: v + 40)),
    ):
        with Image.open(tmp_path / f"Images/ss01 ({test}).jpg") as image:
            change(image).save(tmp_path / f"Images/ss01 ({train}).jpg", quality=80)
    about = prepare("biq2021", tmp_path, tmp_path / "meta.csv", drop_near_duplicates=True)
    assert "10 test, 2 near_duplicate" in about
    table = pd.read_csv(tmp_path / "meta.csv").set_index("name")
    assert len(table) == count
    assert set(table.index[table["official_split"] == "near_duplicate"]) == {
        "Images/ss01 (3).jpg",
        "Images/ss01 (30).jpg",
    }
    assert set(table["ratio712_seed123_split_01"]) == {"train", "val", "test"}
    prepare("biq2021", tmp_path, tmp_path / "all.csv")
    assert (pd.read_csv(tmp_path / "all.csv")["official_split"] == "near_duplicate").sum() == 0


def test_twins_need_an_official_split(tmp_path):
    make_kadid10k(tmp_path)
    with pytest.raises(
        ValueError,
        match="--drop-near-duplicates needs an official split to compare, kadid10k has none",
    ):
        prepare("kadid10k", tmp_path, tmp_path / "meta.csv", drop_near_duplicates=True)
    assert not (tmp_path / "meta.csv").exists()


def test_splits_are_the_same_each_time_and_by_reference():
    rows = [Row(f"{i}.png", 0.0, f"r{i % 20}") for i in range(100)]
    shared = split_groups(rows)
    assert shared == [row.reference for row in rows]
    first = random_split(shared, 3)
    assert first == random_split(shared, 3) != random_split(shared, 4)
    assert [first.count(phase) for phase in ("train", "val", "test")] == [70, 10, 20]
    with pytest.raises(ValueError, match="needs at least 5 images or references, got 4"):
        random_split(split_groups(rows[:4]), 1)


def test_what_belongs_together_in_a_split():
    rows = [
        Row("a", 0, reference="r"),
        Row("b", 0, group="g"),
        Row("c", 0),
        Row("d", 0, "r", group="g"),
        Row("e", 0),
    ]
    assert split_groups(rows) == ["r", "r", "c", "r", "e"]
    assert split_groups(rows, [None, None, 0, None, 0]) == ["r", "r", "c", "r", "c"]
    assert split_groups([rows[2], rows[0]], [5, 5]) == ["c", "c"]


def make_bursts(root):
    """Twelve scenes of two shots each, from one of six cameras."""
    rng, lines = np.random.default_rng(0), ["name,mos,camera"]
    for i in range(12):
        scene = Image.fromarray(rng.integers(0, 200, (48, 64, 3), dtype=np.uint8))
        for shot in "ab":
            scene.resize((128, 96) if shot == "a" else (96, 72)).save(root / f"{i}{shot}.png")
            lines.append(f"{i}{shot}.png,{i / 12 + (shot == 'b') / 50},{i % 6}")
    (root / "scores.csv").write_text("\n".join(lines) + "\n")


def test_near_duplicates_in_splits_are_counted_and_kept_together(tmp_path):
    make_bursts(tmp_path)
    about = prepare("folder", tmp_path, tmp_path / "m.csv", splits=3)
    low, high = map(
        int,
        re.search(
            "24 images are near-duplicates of others; (.*) to (.*) test images", about
        ).groups(),
    )
    assert 0 < low <= high <= 5
    assert about.endswith("not in test: --group-near-duplicates keeps them together")
    about = prepare("folder", tmp_path, tmp_path / "m.csv", splits=3, group_near_duplicates=True)
    assert about.endswith("24 images are near-duplicates of others; no split separates them")
    table = pd.read_csv(tmp_path / "m.csv")
    scene = table["name"].str[:-5]
    for i in (1, 2, 3):
        assert table.groupby(scene)[f"ratio712_seed123_split_{i:02d}"].nunique().max() == 1


def test_a_column_that_no_split_separates(tmp_path):
    make_bursts(tmp_path)
    prepare("folder", tmp_path, tmp_path / "m.csv", splits=3, group="camera")
    table = pd.read_csv(tmp_path / "m.csv")
    for i in (1, 2, 3):
        assert table.groupby("camera")[f"ratio712_seed123_split_{i:02d}"].nunique().max() == 1
    with pytest.raises(
        ValueError, match=r"expected a column lens, got \['name', 'mos', 'camera'\]"
    ):
        prepare("folder", tmp_path, tmp_path / "m.csv", group="lens")


@pytest.mark.parametrize(
    ("scores", "kind", "message"),
    [
        (
            "name,mos\na.png,high\n",
            ValueError,
            r"1 scores that are not numbers, first 'high' of 'a\.png'",
        ),
        ("name,mos\na.png,\n", ValueError, "1 scores that are not numbers, first ''"),
        ("name,mos\na.png,5\nb.png,5\n", ValueError, "all 2 scores are 5; nothing can be learned"),
        (
            "name,mos,mos_raw\na.png,5,1\n",
            ValueError,
            "column 'mos_raw' is one that prepare writes",
        ),
        ("name,mos\n", ValueError, "expected a number for each image, got no rows"),
        ("name,score,x\na.png,1,2\n", ValueError, "expected a column mos, got .*'score'"),
        (
            "name,mos\na.png,1\nb.png,2\nc.png,3\n",
            OSError,
            r"2 of 3 images cannot be used: .*b\.png: damaged .*c\.png: no",
        ),
    ],
)
def test_bad_folders(tmp_path, scores, kind, message):
    Image.effect_noise((40, 40), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "scores.csv").write_text(scores)
    with pytest.raises(kind, match=message):
        prepare("folder", tmp_path, tmp_path / "meta.csv")
    assert not (tmp_path / "meta.csv").exists()


def test_scores_of_a_folder_may_be_a_spreadsheet(tmp_path, monkeypatch):
    """What pandas makes of it is given here, so that the test needs no openpyxl."""
    rows = [(f"{i}.png", str(i), "") for i in range(5)]
    for name, _, _ in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "scores.xlsx").touch()
    asked = []

    def read_excel(path, **how):
        asked.append((path.name, how["dtype"]))
        return pd.DataFrame(rows, columns=["name", "mos", "camera"])

    monkeypatch.setattr(pd, "read_excel", read_excel)
    prepare("folder", tmp_path, tmp_path / "meta.csv", scores=tmp_path / "scores.xlsx")
    prepare("folder", tmp_path, tmp_path / "same.csv")
    assert asked == [("scores.xlsx", str)] * 2
    assert list(pd.read_csv(tmp_path / "meta.csv")["mos"]) == [0, 0.25, 0.5, 0.75, 1]
    assert (tmp_path / "meta.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()


SCALES = {  # mos_range, lower_better -> the mos written, or the error
    (0, 50): "scores go from 10 to 90, outside the scale 0 to 50; correct --mos-range",
    (20, 100): "scores go from 10 to 90, outside the scale 20 to 100; correct --mos-range",
    (100, 0): "--mos-range must rise, got 100 0; if lower scores are better, add --lower-better",
}


def make_folder(root):
    write(root, *(f"{i}.png" for i in range(5)))
    rows = "".join(f"{i}.png,{10 + 20 * i},{i:03d},=1+1,{'ab'[i % 2]}\n" for i in range(5))
    (root / "scores.csv").write_text("name,mos,camera,note,subset\n" + rows)


@pytest.mark.parametrize("mos_range", SCALES)
def test_a_range_that_does_not_fit(tmp_path, mos_range):
    make_folder(tmp_path)
    with pytest.raises(ValueError, match=SCALES[mos_range]):
        prepare("folder", tmp_path, tmp_path / "meta.csv", mos_range=mos_range)
    assert not (tmp_path / "meta.csv").exists()


@pytest.mark.parametrize(
    ("lower_better", "expected", "scale"),
    [(False, [0.1, 0.3, 0.5, 0.7, 0.9], "0 100"), (True, [0.9, 0.7, 0.5, 0.3, 0.1], "100 0")],
)
def test_what_was_read_and_written_is_said(tmp_path, lower_better, expected, scale):
    """Further columns are kept as they are written; mos_range is the score of the worst and of the best."""
    make_folder(tmp_path)
    about = prepare(
        "folder", tmp_path, tmp_path / "m.csv", mos_range=(0, 100), lower_better=lower_better
    )
    assert "read:    minimum 10, median 50, maximum 90\n" in about
    assert "written: minimum 0.1, median 0.5, maximum 0.9 (higher better)\n" in about
    assert f"({'lower' if lower_better else 'higher'} better) -> 0 to 1" in about
    table = pd.read_csv(tmp_path / "m.csv", dtype=str)
    assert table["mos"].astype(float).tolist() == pytest.approx(expected)
    assert set(table["mos_range"]) == {scale}
    assert table["camera"].tolist() == ["000", "001", "002", "003", "004"]
    assert set(table["note"]) == {"=1+1"}
    assert table["subset"].tolist() == list("ababa")


def test_scores_outside_of_a_published_scale(tmp_path):
    make_koniq10k(tmp_path)
    path = tmp_path / "koniq10k_distributions_sets.csv"
    path.write_text(path.read_text().replace(",55,", ",155,"))
    with pytest.raises(ValueError, match="0 to 155, outside the scale 0 to 100; this release is"):
        prepare("koniq10k", tmp_path, tmp_path / "meta.csv")


def test_live_has_scores_beyond_its_scale(tmp_path):
    make_live(tmp_path)
    content = {"orgs": np.zeros((1, 982), bool), "dmos": np.linspace(-2, 110, 982)[None]}
    savemat(tmp_path / "dmos.mat", content)
    about = prepare("live", tmp_path, tmp_path / "meta.csv")
    assert "scores -2 to 110 (lower better) -> 0 to 1" in about
    mos = pd.read_csv(tmp_path / "meta.csv")["mos"]
    assert (mos.min(), mos.max()) == (0, 1)


def test_splits_of_livec(tmp_path):
    """The list of halves is in the package; the bundled models saw all."""
    make_livec(tmp_path)
    assert "bundled_split: 10 train" in prepare("livec", tmp_path, tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv")
    assert set(table["half"]) == {"A", "B"}
    assert (table["half_split"] == "test").tolist() == (table["half"] == "B").tolist()
    assert set(table["half_split"]) == {"train", "test"}


def test_lists_of_what_the_bundled_models_saw():
    halves = pd.read_csv(files("lifeiqa_plugin.datasets") / "livec_halves.csv")
    assert halves["half"].value_counts().to_dict() == {"A": 581, "B": 581}
    biq = pd.read_csv(files("lifeiqa_plugin.datasets") / "biq2021_bundled_split.csv")
    assert biq["bundled_split"].value_counts().to_dict() == {"val": 985, "near_duplicate": 212}


def test_bundled_split_of_biq2021(tmp_path):
    make_biq2021(tmp_path)
    prepare("biq2021", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    listed = pd.read_csv(files("lifeiqa_plugin.datasets") / "biq2021_bundled_split.csv")
    listed = dict(zip("Images/" + listed["name"], listed["bundled_split"], strict=True))
    for name, official, bundled in table[["name", "official_split", "bundled_split"]].to_numpy():
        own = "test" if official == "test" else "train"
        assert bundled == listed.get(name, own)
    assert set(table["bundled_split"]) >= {"train", "test"}


def test_images_of_one_prompt_stay_together(tmp_path):
    make_agiqa3k(tmp_path)
    prepare("agiqa3k", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    assert set(table["generation"][table["subset"] == "sd1.5"]) == {"newer"}
    assert set(table["generation"][table["subset"] != "sd1.5"]) == {"older"}
    assert table["prompt"].nunique() == 10
    for i in range(1, 11):
        assert table.groupby("prompt")[f"ratio712_seed123_split_{i:02d}"].nunique().max() == 1
    bundled = table.drop_duplicates("prompt").set_index("prompt")["bundled_split"]
    assert table.groupby("prompt")["bundled_split"].nunique().max() == 1
    assert sorted(bundled[bundled == "test"].index) == ["prompt, 000", "prompt, 004"]
    assert (bundled == "train").sum() == 7


def test_photos_among_ai_images(tmp_path):
    make_avt_ai(tmp_path)
    prepare("avt_ai", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    assert table.groupby("subset")["kind"].unique().map(list).to_dict() == {
        "glide": ["ai"], "own": ["photo"],
    }  # fmt: skip


def test_rows_without_a_file(tmp_path):
    make_avt_ai(tmp_path)
    (tmp_path / "images/glide/p03.png").unlink()
    with pytest.raises(OSError, match=r"1 of 14 images cannot be used: .*p03\.png: no such file"):
        prepare("avt_ai", tmp_path, tmp_path / "meta.csv")
    about = prepare("avt_ai", tmp_path, tmp_path / "meta.csv", skip_missing=True)
    assert "1 rows were left out: their files are not there" in about
    assert len(pd.read_csv(tmp_path / "meta.csv")) == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mos_range": (0, 1)}, "--mos-range describes folder, not koniq10k"),
        ({"lower_better": True}, "--lower-better describes folder, not koniq10k"),
        ({"scores": Path("s.csv")}, "--scores describes folder, not koniq10k"),
        ({"columns": Columns("x")}, "--mos-column or --name-column describes folder, not koniq10k"),
    ],
)
def test_options_of_another_dataset(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare("koniq10k", tmp_path, tmp_path / "meta.csv", **options)


@pytest.mark.parametrize(
    ("root", "out", "options", "message"),
    [
        (".", "m.csv", {"splits": -3}, "--splits takes a number that is not below zero, got -3"),
        (
            ".",
            "m.csv",
            {"splits": 0, "group": "camera"},
            "--group .* change nothing with --splits 0",
        ),
        (".", "m.xlsx", {}, r"--out m\.xlsx: expected the name of a csv to write"),
        (".", "s.csv", {"scores": "s.csv"}, r"--out s\.csv: this is what --scores reads; give ano"),
        ("far", "m.csv", {}, "far: no such folder; expected that of the dataset"),
    ],
)
def test_what_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, root, out, options, message
):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path)
    scores = {"scores": Path(options["scores"])} if "scores" in options else {}
    with pytest.raises((ValueError, OSError), match=message):
        prepare("folder", Path(root), Path(out), **options | scores)
    assert not Path(out).exists()


def test_scores_of_a_folder_are_found_by_name(tmp_path):
    make_folder(tmp_path)
    text = (
        (tmp_path / "scores.csv").read_text().replace("name,mos,camera", "img_name,rating,camera")
    )
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=r"expected a column mos, got \['img_name', 'rating'"):
        prepare("folder", tmp_path, tmp_path / "m.csv")
    prepare("folder", tmp_path, tmp_path / "m.csv", columns=Columns("rating"))
    table = pd.read_csv(tmp_path / "m.csv")
    assert list(table)[:3] == ["name", "mos", "mos_raw"]
    assert list(table["mos_raw"]) == [10, 30, 50, 70, 90]


def test_an_unknown_dataset(tmp_path):
    with pytest.raises(ValueError, match="no dataset is called 'kadid'; known are agiqa3k, avt_ai"):
        prepare("kadid", tmp_path, tmp_path / "meta.csv")


def test_deviations_of_opinions_get_the_scale_of_mos(tmp_path):
    make_livec(tmp_path)
    savemat(tmp_path / "Data/AllStdDev_release.mat", {"AllStdDev_release": np.arange(17.0) + 10})
    prepare("livec", tmp_path, tmp_path / "meta.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    assert list(table["mos_std"]) == pytest.approx([0.17 + i / 100 for i in range(10)])
    assert set(table["votes"]) == {175}
    write(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = [f"{i}.png,{i},{'' if i == 5 else 0.5}" for i in range(6)]
    scores = tmp_path / "scores.csv"
    scores.write_text("name,mos,mos_std\n" + "\n".join(rows) + "\n")
    prepare("folder", tmp_path, tmp_path / "own.csv", mos_range=(0, 5))
    table = pd.read_csv(tmp_path / "own.csv")
    assert list(table["mos_std"]) == pytest.approx([0.1] * 5 + [np.nan], nan_ok=True)
    scores.write_text(scores.read_text().replace("0.5", "wide"))
    with pytest.raises(ValueError, match="column 'mos_std': expected numbers, got 'wide'"):
        prepare("folder", tmp_path, tmp_path / "own.csv", mos_range=(0, 5))

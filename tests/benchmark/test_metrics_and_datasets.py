"""What is compared: names, option files in pyiqa's format, directions, missing weights; sets and their rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyiqa
import pytest
import timm
import torch
import yaml
from PIL import Image
from pyiqa.default_model_configs import DEFAULT_CONFIGS

from lifeiqa_plugin.benchmark.datasets import find_datasets, read_items
from lifeiqa_plugin.benchmark.metrics import (
    Builder,
    MetricSpec,
    find_metrics,
    fingerprint,
)
from lifeiqa_plugin.benchmark.option_files import read_option_file
from lifeiqa_plugin.datasets.table import Columns

ROOT = Path(__file__).parents[2]
PYIQA_METRICS = """# for example, psnr with y channel
psnr-y:
  metric_opts:
    type: PSNR
    test_y_channel: true
  metric_mode: FR

custom_metric:
  metric_opts:
    type: CustomModel
    pretrained: false
    pretrained_model_path: /path/to/pretrained_model.pth
    [other possible options]
  metric_mode: FR"""
"""The format of pyiqa's example file, placeholder included."""


def test_names_keep_their_order_and_come_once(metric_file):
    found = find_metrics(["piqe", "lifeiqa", "piqe"], read_option_file(metric_file).entries)
    assert [c.name for c in found[:3]] == ["piqe", "lifeiqa", "right"]
    assert len({c.name for c in found}) == len(found) == 9
    directions = {c.name: (c.mode, c.lower_better) for c in found}
    assert directions["piqe"] == ("NR", True)
    assert directions["lower"] == ("NR", True)
    assert directions["paired"] == ("FR", False)


def test_the_example_of_pyiqa_is_read_as_it_is(tmp_path):
    path = tmp_path / "example.yml"
    path.write_text(PYIQA_METRICS)
    psnr, custom = find_metrics([], read_option_file(path).entries)
    assert psnr == MetricSpec("psnr-y", "FR", False, {"type": "PSNR", "test_y_channel": True})
    assert custom.options["pretrained_model_path"] == "/path/to/pretrained_model.pth"
    x = torch.rand(1, 3, 32, 32)
    expected = pyiqa.create_metric("psnr", test_y_channel=True, device="cpu")(x, x.flip(3))
    torch.testing.assert_close(Builder().create(psnr, "cpu").metric(x, x.flip(3)), expected)
    assert "psnr-y" not in DEFAULT_CONFIGS


@pytest.mark.parametrize(
    "path", sorted((ROOT / "options" / "benchmark").glob("*.yml")), ids=lambda path: path.stem
)
def test_shipped_option_files(path, tmp_path, images):
    if path.stem in ("cross", "closed"):
        return  # test_photos reads it
    if "type: General" in path.read_text():
        text = path.read_text().replace("./BIQ2021", str(images))
        text = text.replace("./meta_info_biq2021.csv", str(images / "scores.csv"))
        (tmp_path / "datasets.yml").write_text(text)
        (found,) = find_datasets([], read_option_file(tmp_path / "datasets.yml").entries)
        assert (found.name, len(found.images)) == ("biq2021", 20)
        return
    for spec in find_metrics([], read_option_file(path).entries):
        if spec.name == "niqe-offline":
            with pytest.raises(FileNotFoundError, match="frames_modelparameters"):
                Builder().create(spec, "cpu")
        elif spec.name != "lifeiqa-swin-b":  # large; test_arch builds it
            assert torch.isfinite(
                Builder().create(spec, "cpu").metric(torch.rand(1, 3, 224, 224))
            ).all()


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (["muziq"], "", r"no metric is called 'muziq'; did you mean 'musiq'"),
        ([], "", r"no metric was named; give -m NAME \.\.\. or --metric-opt FILE"),
        (
            [],
            "a: {metric_mode: XX, metric_opts: {type: PSNR}}",
            r"metric 'a': expected .* got \{'metric_mode': 'XX'",
        ),
        (
            [],
            "../a: {metric_mode: NR, metric_opts: {type: PSNR}}",
            r"expected letters, digits and \.\+- in its name",
        ),
        (
            [],
            "..: {metric_mode: NR, metric_opts: {type: PSNR}}",
            r"metric '\.\.': expected letters",
        ),
        (["zzz"], "", r"no metric is called 'zzz'; 'pyiqa -ls' lists them"),
        ([], "- a", r"m\.yml: expected 'name:' with its options below, got \['a'\]"),
        ([], "a: [", r"m\.yml: not valid YAML"),
        ([], "import: my_module", r"m\.yml: import: takes a list of modules, got 'my_module'"),
    ],
)
def test_bad_metrics(names, text, message, tmp_path):
    (tmp_path / "m.yml").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_metrics(names, read_option_file(tmp_path / "m.yml" if text else None).entries)


def test_without_weights_a_metric_is_built_untrained_and_tried_once(metric_file, monkeypatch):
    (spec,) = (
        c for c in find_metrics([], read_option_file(metric_file).entries) if c.name == "weightless"
    )
    builder = Builder()
    built = builder.create(spec, "cpu")
    assert built.untrained == "no weights: OSError: no network"
    assert built.spec.options["pretrained"] is False
    assert Builder().create(built.spec, "cpu").untrained == "its options say pretrained: false"
    monkeypatch.setattr("lifeiqa_plugin.benchmark.metrics._create", lambda *_: "again")
    again = builder.create(spec, "cpu")
    assert (again.metric, again.untrained) == ("again", built.untrained)


def test_a_network_of_timm_is_built_without_its_weights(monkeypatch):
    create_model, asked = timm.create_model, []
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create_model(*a, **k)
    )
    replaced = timm.create_model
    spec = MetricSpec(
        "hyperiqa",
        "NR",
        False,
        {"type": "HyperNet", "pretrained": False, "base_model_name": "test_resnet"},
    )
    Builder().create(spec, "cpu")
    assert asked == [False]
    assert timm.create_model is replaced


def test_fingerprints_tell_weights_apart():
    torch.manual_seed(0)
    a, b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert fingerprint(a) == fingerprint(a) != fingerprint(b)
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) == fingerprint(b)


# ---------------------------------------------------------------------------------------------------------------- sets


def test_csv_with_folder_split_and_phase(images, tmp_path):
    (tmp_path / "meta_info_mine.csv").write_text((images / "scores.csv").read_text())
    (found,) = find_datasets([f"{tmp_path / 'meta_info_mine.csv'}@{images}@official_split=train"])
    assert found.name == "mine"
    assert [p.name for p in found.images] == ["00.png", "01.png", "02.png", "03.png"]
    assert found.images[1].groups == {"subset": "odd"}
    assert found.images[1].reference == str(images / "white.png")
    assert found.has_references


def test_items_are_whole_images_and_references(images):
    (found,) = find_datasets([str(images / "scores.csv")])
    assert len(found.images) == 24
    items = list(read_items(found, [3, 1], with_references=True))
    assert [item.row for item in items] == [3, 1]
    image, reference = items[1].tensors
    assert image.shape == reference.shape == (1, 3, 30, 40)
    assert (reference == 1).all()
    expected = (
        torch.from_numpy(np.array(Image.open(images / "01.png"))).permute(2, 0, 1)[None] / 255
    )
    torch.testing.assert_close(image, expected)


def test_images_that_cannot_be_read_become_errors(images, tmp_path):
    (tmp_path / "scores.csv").write_text("name,mos\nmissing.png,1\n00.png,2\n")
    (tmp_path / "00.png").write_bytes((images / "00.png").read_bytes())
    (found,) = find_datasets([str(tmp_path / "scores.csv")])
    bad, good = read_items(found, [0, 1], with_references=False)
    assert "missing.png: no such file" in bad.error
    assert good.tensors[0].shape == (1, 3, 30, 40)
    assert not found.has_references


def test_pyiqas_data_options_for_pairs_with_dmos(images, tmp_path):
    (tmp_path / "meta.csv").write_text(
        "ref_name,dist_name,dmos,dist_type\nwhite.png,00.png,80,noise\nwhite.png,01.png,30,blur\n"
    )
    options = {
        "pairs": {
            "name": "P", "type": "GeneralFRDataset", "dataroot_target": str(images),
            "meta_info_file": str(tmp_path / "meta.csv"), "phase": "val", "dmos_max": 100,
        }
    }  # fmt: skip
    (tmp_path / "d.yml").write_text(yaml.safe_dump(options))
    (found,) = find_datasets([], read_option_file(tmp_path / "d.yml").entries)
    assert [(p.name, p.mos, p.groups) for p in found.images] == [
        ("00.png", 20, {"dist_type": "noise"}),
        ("01.png", 70, {"dist_type": "blur"}),
    ]
    (item,) = read_items(found, [0], with_references=True)
    assert (item.tensors[1] == 1).all()
    options["pairs"]["augment"] = {"hflip": False}
    (tmp_path / "d.yml").write_text(yaml.safe_dump(options))
    (found,) = find_datasets([], read_option_file(tmp_path / "d.yml").entries)
    (hosts,) = read_items(found, [0], with_references=True)
    assert torch.equal(hosts.tensors[0], item.tensors[0])
    assert torch.equal(hosts.tensors[1], item.tensors[1])


def test_scores_of_an_entry_are_found_by_name(images, tmp_path):
    text = "noise,photo,mos,rating\n9,00.png,0.5,1\n8,01.png,0.75,2\n"
    (tmp_path / "s.csv").write_text(text)
    entry = {"csv": str(tmp_path / "s.csv"), "root": str(images), "name_column": "photo"}
    options = {"usual": entry, "other": entry | {"mos_column": "rating"}}
    (tmp_path / "d.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    usual, other = find_datasets([], read_option_file(tmp_path / "d.yml").entries)
    assert [image.mos for image in usual.images] == [0.5, 0.75]
    assert [image.mos for image in other.images] == [1, 2]
    item = f"{tmp_path / 's.csv'}@{images}"
    (found,) = find_datasets([item], columns=Columns("noise", "photo"))
    assert [image.mos for image in found.images] == [9, 8]


def test_a_csv_whose_scores_pyiqa_would_misread(images, tmp_path):
    (tmp_path / "s.csv").write_text("img_name,noise,mos\n00.png,5,1\n01.png,3,2\n")
    options = {
        "name": "A", "type": "GeneralNRDataset", "dataroot_target": str(images),
        "meta_info_file": str(tmp_path / "s.csv"),
    }  # fmt: skip
    (tmp_path / "d.yml").write_text(yaml.safe_dump({"a": options}))
    message = r"a: pyiqa takes the scores from column 2 of .*s\.csv, which is 'noise' and not 'mos'; change the ord"
    with pytest.raises(ValueError, match=message):
        find_datasets([], read_option_file(tmp_path / "d.yml").entries)


def test_a_dataset_of_the_user_that_is_not_there():
    mine = {"mine": {"type": "GeneralNRDataset", "meta_info_file": "none.csv"}}
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file; correct it with --data"):
        find_datasets([], mine)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("kadid", r"no dataset is called 'kadid'; did you mean 'kadid10k'\? Or give CSV@FOLDER"),
        (
            "koniq10k",
            r"dataset koniq10k: .*csv: no such file; pyiqa downloads it: python -c \"import pyiqa; "
            r"pyiqa\.load_dataset\('koniq10k'\)\"; or give the path of yours with --data-opt",
        ),
        ("CSV@FOLDER@official_split=tset", r"the phase must be train, val or test, got 'tset'"),
        ("CSV@FOLDER@split_9", r"no column 'split_9'"),
    ],
)
def test_bad_datasets(item, message, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    item = item.replace("CSV", str(images / "scores.csv")).replace("FOLDER", str(images))
    with pytest.raises((ValueError, OSError), match=message):
        find_datasets([item])


def test_unknown_group_column_and_names_twice(images):
    path = str(images / "scores.csv")
    with pytest.raises(ValueError, match=r"--by camera: no such column; .*csv has \['name', 'mos'"):
        find_datasets([path], by=("camera",))
    with pytest.raises(
        ValueError,
        match=re.escape("dataset 'scores': expected letters, digits and .+- , each name once"),
    ):
        find_datasets([path, f"{path}@{images}"])


def test_modules_to_import(tmp_path):
    path = tmp_path / "m.yml"
    path.write_text("import: [one, two]\nmine: {csv: a.csv}\n")
    assert read_option_file(path) == ({"mine": {"csv": "a.csv"}}, ["one", "two"])
    assert read_option_file(None) == ({}, [])

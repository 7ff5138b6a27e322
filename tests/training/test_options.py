"""Option files: every shipped one is read, commented and built; every key that nothing reads is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.datasets.readers import SETS
from lifeiqa_plugin.network import lifeiqa as arch
from lifeiqa_plugin.network.lifeiqa import PRESETS, LifeIQA
from lifeiqa_plugin.training.optim import schedule_of
from lifeiqa_plugin.training.options import KNOWN, apply_change, read_options

FILES = sorted((Path(__file__).parents[2] / "options" / "train" / "LifeIQA").glob("*.yml"))
NAMES = [path.stem.removeprefix("train_LifeIQA_") for path in FILES]
PARAMETERS = {  # of Swin-B; measured on the released code, see docs/differences.md
    "released 8": 99_678_146, "released 2": 92_586_428, "released 2 depth 2": 91_142_780, "paper 4": 94_950_334,
}  # fmt: skip
CROPS = {  # of each image in an epoch of the released code
    "live": 35, "csiq": 35, "kadid10k": 35, "tid2013": 25, "livec": 50, "koniq10k": 40, "spaq": 40, "flive": 40,
}  # fmt: skip


def test_every_set_has_its_files():
    sets = SETS.keys() - {"folder", "biq2021"}
    assert set(NAMES) == {"quick", "bundled", "biq2021", *sets, *(f"{name}_paper" for name in sets)}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_line_is_explained(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) > 40
    above = ["", *lines]  # long values have their explanation in the line before
    unexplained = [
        line
        for line, before in zip(lines, above, strict=False)
        if "# " not in line + before.lstrip()[:2]
    ]
    assert unexplained == []
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", FILES, ids=NAMES)
@pytest.mark.slow
def test_file_is_read_and_its_parts_are_built(path, monkeypatch):
    """The backbone on the meta device: names, shapes and counts, no weights."""
    create = arch.create_backbone

    def create_without_weights(*arguments):
        with torch.device("meta"):
            return create(*arguments)

    monkeypatch.setattr(arch, "create_backbone", create_without_weights)
    options = read_options(path)
    assert options["name"] == path.stem
    assert options["datasets"].keys() == (
        {"train", "val"} if "bundled" in path.stem else {"train", "val", "test"}
    )
    network = {k: v for k, v in options["network"].items() if k != "type"}
    if not network.pop("pretrained", "pretrained_model_path" in network):
        network["backbone_pretrained"] = False  # fetched from the network otherwise
        built = build_lifeiqa(pretrained=False, **network)
        assert options["datasets"]["train"]["crop_size"] == built.crop_size
        assert options["datasets"]["train"]["working_size"] == built.working_size
        if "preset" in network:
            check_parameters(built, network)
    train_set, steps = options["datasets"]["train"], options["train"].get("steps_per_batch", 1)
    assert train_set.get("dataset_enlarge_ratio", 1) == 1  # one decode of each image in an epoch
    assert train_set["crops_per_image"] % steps == 0
    if network.get("preset"):
        assert train_set["crops_per_image"] == CROPS[path.stem.split("_")[2]]
    schedule = schedule_of(options["train"] | {"total_iter": 100 * options["train"]["total_epoch"]})
    assert 0 <= schedule.factor(schedule.total_iter) <= 1
    loss = options["train"]["mos_loss_opt"]
    if loss["type"] == "SmoothL1Loss" and "preset" in network:
        assert loss["loss_weight"] * loss["beta"] == pytest.approx(1.0, abs=1e-6)


def check_parameters(built: LifeIQA, network: dict) -> None:
    key = f"{network['preset']} {network.get('num_experts', PRESETS[network['preset']]['num_experts'])}"
    if network.get("depth", 4) != 4:
        key += f" depth {network['depth']}"
    learned_graphs = (
        4 * 36 if network["preset"] == "paper" else 0
    )  # one 6 x 6 adjacency in each layer
    assert sum(p.numel() for p in built.parameters()) == PARAMETERS[key] + learned_graphs


def test_set_and_file_agree():
    """The file of a set reads what 'lifeiqa prepare' writes for it."""
    for name, path in zip(NAMES, FILES, strict=True):
        options, set_name = (
            yaml.safe_load(path.read_text()),
            name.removesuffix("_paper").replace("quick", "folder"),
        )
        set_name = set_name.replace("bundled", "biq2021")
        files = {dataset["meta_info_file"] for dataset in options["datasets"].values()}
        assert files == {f"meta_info_{set_name}.csv"}
        splits = {str(dataset["split_index"]) for dataset in options["datasets"].values()}
        assert splits == {"official_split" if set_name in ("biq2021", "koniq10k", "flive") else "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("manual_sed=1", "unknown key manual_sed; did you mean 'manual_seed'?"),
        (
            "train:optim:weight_deca=1",
            "unknown key train:optim:weight_deca; did you mean 'weight_decay'?",
        ),
        ("network:num_expert=4", "unknown key network:num_expert; did you mean 'num_experts'?"),
        (
            "datasets:train:augment={flip: true}",
            "unknown key datasets:train:augment; known here: name, type",
        ),
        (
            "datasets:val_2:split_indx=1",
            "unknown key datasets:val_2:split_indx; did you mean 'split_index'?",
        ),
        ("datasets:tset={}", "unknown key datasets:tset; did you mean 'test'?"),
        ("train=5", "train must be a section, got 5"),
        ("train:total_epoch=null", "train:total_epoch is missing"),
        ("name=a/b", "name must be usable as the name of a folder, got 'a/b'"),
    ],
)
def test_wrong_keys(write_options, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_options(write_options(change))


def test_several_validation_sets_are_allowed(write_options):
    path = write_options(
        "datasets:val_2={name: b, type: LifeIQADataset, meta_info_file: m.csv, dataroot_target: d}"
    )
    assert read_options(path)["datasets"]["val_2"]["num_worker_per_gpu"] == 0


def test_changes():
    options = {"train": {"optim": {"lr": 1}}}
    for change in (
        "train:optim:lr=1e-4",
        "train:freeze=[backbone]",
        "num_gpu=auto",
        "train:amp=null",
        "a:b=true",
        "c=712",
    ):
        apply_change(options, change)
    train = {"optim": {"lr": 1e-4}, "freeze": ["backbone"], "amp": None}
    assert options == {"train": train, "num_gpu": "auto", "a": {"b": True}, "c": 712}
    with pytest.raises(ValueError, match="takes section:key=value, got 'train:lr'"):
        apply_change(options, "train:lr")
    with pytest.raises(ValueError, match="'num_gpu' is a value, not a section"):
        apply_change(options, "num_gpu:x=1")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected sections .* got list")]
)
def test_no_option_file(tmp_path, text, message):
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_options(tmp_path / "x.yml")
    with pytest.raises(OSError, match="No such file"):
        read_options(tmp_path / "y.yml")


@pytest.mark.parametrize("key", ["name", "datasets:train:type", "datasets:test:meta_info_file"])
def test_missing_key_is_named(tmp_path, key):
    options = yaml.safe_load(FILES[0].read_text())
    *sections, last = key.split(":")
    section = options
    for name in sections:
        section = section[name]
    del section[last]
    (tmp_path / "x.yml").write_text(yaml.safe_dump(options))
    with pytest.raises(ValueError, match=f"{key} is missing"):
        read_options(tmp_path / "x.yml")


def test_known_keys_are_documented():
    """docs/training.md explains every key that an option file may have."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()

    def names(section: dict) -> list[str]:
        return [
            n
            for key, inner in section.items()
            for n in (key, *(names(inner) if isinstance(inner, dict) else []))
        ]

    known = names({key: value for key, value in KNOWN.items() if key != "network"})
    assert [name for name in known if f"`{name}`" not in text] == []

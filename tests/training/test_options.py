"""Option files: every shipped one is read and built; every key that nothing reads is an error."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml
from pyiqa.utils.options import ordered_yaml

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.datasets.readers import DATASETS
from lifeiqa_plugin.network import lifeiqa as arch
from lifeiqa_plugin.network.config import PRESETS
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.training import sections
from lifeiqa_plugin.training.checking import schema, view
from lifeiqa_plugin.training.optim import schedule_of
from lifeiqa_plugin.training.options import apply_change, read_options
from lifeiqa_plugin.training.sections import TrainOptions

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "options" / "train").glob("*.yml"))
NAMES = [path.stem for path in FILES]
PARAMETERS = {  # of Swin-B; measured on the released code, see docs/differences.md
    "released 8": 99_678_146, "released 2": 92_586_428, "released 2 depth 2": 91_142_780, "paper 4": 94_950_334,
}  # fmt: skip
CROPS = {  # of each image in an epoch of the released code
    "live": 35, "csiq": 35, "kadid10k": 35, "tid2013": 25, "livec": 50, "koniq10k": 40, "spaq": 40, "flive": 40,
}  # fmt: skip


UNUSED = {"bundled": {"test"}, "livec_lite": {"val"}}
"""Phases that a file does without."""


def test_every_set_has_its_files():
    sets = DATASETS.keys() - {"folder", "biq2021", "agiqa3k", "avt_ai"}
    recipes = {"quick", "unfreeze", "whole_image", "bundled", "livec_lite"}
    assert set(NAMES) == {*recipes, "biq2021", *sets, "koniq10k_paper"}


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
    assert options["datasets"].keys() == ({"train", "val", "test"} - UNUSED.get(path.stem, set()))
    network = {k: v for k, v in options["network"].items() if k != "type"}
    if not network.pop("pretrained", "pretrained_model_path" in network):
        network["backbone_pretrained"] = False  # fetched from the network otherwise
        built = build_lifeiqa(pretrained=False, **network)
        if "preset" in network:
            check_parameters(built, network)
    train_set, train = options["datasets"]["train"], view(TrainOptions, options["train"])
    assert train_set["crops_per_image"] % train.steps_per_batch == 0
    if network.get("preset"):
        assert train_set["crops_per_image"] == CROPS[path.stem.removesuffix("_paper")]
    schedule = schedule_of(train, 100 * train.total_epoch)
    assert 0 <= schedule.factor(schedule.total_iter) <= 1
    loss = train.mos_loss_opt
    if loss["type"] == "SmoothL1Loss" and "preset" in network:
        assert loss.get("loss_weight", 1) * loss.get("beta", 1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_pyiqas_own_loader_reads_the_file(path):
    """It knows no merge keys, ``<<``."""
    text = path.read_text()
    assert yaml.load(text, ordered_yaml()[0]) == yaml.safe_load(text)


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
            re.sub(
                "quick|unfreeze|whole_image",
                "folder",
                name.removesuffix("_paper").removesuffix("_lite"),
            ),
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
        ("train:ladder_weight=1", "unknown key train:ladder_weight; it is now 'rank_weight'"),
        (
            "datasets:train:dataset_enlarge_ratio=25",
            "unknown key datasets:train:dataset_enlarge_ratio; it is now 'crops_per_image'",
        ),
        ("datasets:val:crop_size=224", "unknown key datasets:val:crop_size; known here: name"),
        ("train:optim:lr_head=1", "lr_head; the backbone has 'lr_backbone', all the rest 'lr'"),
        (
            "train:optim={lr: 1, lr_head: 2, sgd: true}",
            "2 unknown keys: train:optim:lr_head (the backbone has 'lr_backbone', all the rest 'lr'); "
            "train:optim:sgd (known here: type, lr,",
        ),
        (
            "datasets:train:augment={flip: true}",
            "unknown key datasets:train:augment; crops have the network's crop_size, and 'hflip' mirrors",
        ),
        (
            "datasets:val_2:split_indx=1",
            "unknown key datasets:val_2:split_indx; did you mean 'split_index'?",
        ),
        ("datasets:tset={}", "unknown key datasets:tset; did you mean 'test'?"),
        ("train=5", "train must be a section, got 5"),
        ("train:total_epoch=null", "train:total_epoch is missing"),
        ("train:total_epoch=1.5", "train:total_epoch must be a whole number, got 1.5"),
        ("train:total_epoch=true", "train:total_epoch must be a whole number, got True"),
        ("train:optim:lr=fast", "train:optim:lr must be a number, got 'fast'"),
        ("train:freeze=backbone", "train:freeze must be a list, got 'backbone'"),
        ("train:mos_loss_opt=[1, 2]", "train:mos_loss_opt must be a section, got a list of 2"),
        ("train:mos_loss_opt={beta: 1}", "train:mos_loss_opt:type is missing"),
        ("datasets:train:batch_size_per_gpu=null", "datasets:train:batch_size_per_gpu is missing"),
        ("datasets:val:split_index=[1]", "split_index must be a whole number or text, got a list"),
        ("datasets:val:name=a/b", "datasets:val:name must be usable in names of files, got 'a/b'"),
        ("datasets:val=5", "datasets:val must be a section, got 5"),
        ("train:freeze=[1]", "train:freeze:0 must be text, got 1"),
        ("int=5", "unknown key int; known here: name, "),
        (
            "datasets:train:views=4",
            "unknown key datasets:train:views; it is gone: each visit decodes",
        ),
        ("train:total_epoch=0", "train:total_epoch must be greater than or equal to 1, got 0"),
        ("train:amp=fp8", "train:amp must be 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ("datasets:train:prefetch_mode=cpu", "prefetch_mode must be 'cuda', got 'cpu'"),
        ("train:ema_decay=1.0", "train:ema_decay must be less than 1, got 1.0"),
        ("train:scheduler:type=cosin", "type must be 'constant', 'step' or 'cosine', got 'cosin'"),
        ("val:key_metric=sroc", "key_metric must be 'srcc', 'plcc', 'krcc' or 'rmse', got 'sroc'"),
        ("datasets:train:ladder_share=-0.1", "share must be greater than or equal to 0, got -0.1"),
        ("datasets:train:ladder_share=60", "share must be less than or equal to 1, got 60"),
        (
            "datasets:train:working_range=[40]",
            "working_range must be a list of two, got a list of 1",
        ),
        ("num_gpu=all", "num_gpu must be a whole number or 'auto', got 'all'"),
        ("logger:print_freq=0", "print_freq must be greater than or equal to 1, got 0"),
        ("train:optim={1: 2}", "keys must be text, got 1; quote it"),
        (
            "datasets:val:mos_normalize=true",
            "datasets:val:mos_normalize needs mos_range: [LOW, HIGH]",
        ),
        ("datasets:train:lower_better=true", "together with mos_normalize: true only"),
        ("name=..", "name must be usable as the name of a folder, got '..'"),
        ("name=debug_lr", "name must not contain 'debug', where pyiqa stops early, got 'debug_lr'"),
        (
            "model_type=DBCNNModel",
            "model_type DBCNNModel is pyiqa's, for python -m pyiqa.train; here",
        ),
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


def test_numbers_as_people_write_them(write_options):
    path = write_options()
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 1e-3"))
    assert read_options(path)["train"]["optim"]["lr"] == 0.001


def test_resolved_options_are_an_option_file(write_options, tmp_path):
    resolved = read_options(write_options("train:ema_decay=0.5"))
    (tmp_path / "again.yml").write_text(yaml.safe_dump(resolved))
    assert read_options(tmp_path / "again.yml") == resolved


def test_a_wrong_file_is_refused_at_once(run_python, tmp_path):
    """Before torch or pyiqa is imported."""
    (tmp_path / "x.yml").write_text("name: x\nnum_gpus: 1\n")
    code = "import sys, lifeiqa_plugin.cli as cli\ncli.main(['train', '-opt', sys.argv[1]])\n"
    code += "print({'torch', 'pyiqa'} & set(sys.modules))"
    for name, message in (("x.yml", "unknown key num_gpus; did you mean"), ("y.yml", "no such fi")):
        done = run_python("-c", code, name, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert message in done.stderr
        assert done.stdout == "set()\n"


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
    with pytest.raises(ValueError, match="--force-yml train:lr: not valid YAML"):
        apply_change(options, "train:lr=[1")


BILLION_LAUGHS = "a0: &a0 [x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", r"x\.yml: not valid YAML"),
        (b"- 1", "expected sections .* got a list of 1"),
        (b"\xff\xfe\x00", r"x\.yml: expected YAML, a text file"),
        (BILLION_LAUGHS.encode(), r"more than 10,000 values, counting aliases"),
        (b"a: &a [*a]", r"more than 10,000 values, counting aliases"),
        (b"[" * 5000, "not valid YAML"),
    ],
)
def test_no_option_file(tmp_path, text, message):
    (tmp_path / "x.yml").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_options(tmp_path / "x.yml")
    with pytest.raises(OSError, match="No such file"):
        read_options(tmp_path / "y.yml")


@pytest.mark.parametrize("key", ["name", "train:total_epoch", "datasets:train:dataroot_target"])
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


def option_table() -> list[tuple[str, str]]:
    """Key and meaning of every field of the dataclasses; the meaning is the text below it."""
    rows = []
    for node in ast.parse(Path(sections.__file__).read_text()).body:
        if not (isinstance(node, ast.ClassDef) and node.name.endswith("Options")):
            continue
        for i, item in enumerate(node.body):
            if isinstance(item, ast.AnnAssign):
                text = node.body[i + 1].value.value
                rows.append((item.target.id.rstrip("_"), " ".join(text.split())))
    return rows


def test_the_schema_is_of_the_same_keys_and_meanings():
    """By which an editor completes an option file; every key of the docs' table, with its text."""
    whole = schema()
    sets = whole["properties"]["datasets"]
    train = sets["properties"]["train"]["anyOf"][0]
    assert sets["properties"]["train"]["anyOf"][1]["items"] == train
    assert list(sets["patternProperties"]) == ["^(val|test)(_.+)?$"]
    places = [whole, train, *sets["patternProperties"].values(), *whole["$defs"].values()]
    keys = {
        key: value
        for place in places
        for key, value in place["properties"].items()
        if key != "type"
    }
    rows = [row for row in option_table() if row[0] != "type"]
    assert keys.keys() == {key for key, *_ in rows}
    described = {
        " ".join(v.get("description", "").split()) for p in places for v in p["properties"].values()
    }
    assert {about for *_, about in rows} <= described
    assert all(place["additionalProperties"] is False for place in (*places, sets))
    assert train["required"] == ["dataroot_target"]
    assert whole["$defs"]["TrainOptions"]["properties"]["ema_decay"]["exclusiveMaximum"] == 1

"""Checkpoints: what is written is read, other formats too, and everything else is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lifeiqa_plugin.checkpoints import factory, files, models
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.network.config import PRESETS
from lifeiqa_plugin.network.lifeiqa import LifeIQA

OPTIONS = {
    "backbone": "test_efficientnet", "embed_dim": 24, "num_heads": 2, "depth": 1, "num_experts": 4,
    "adjacency": "learnable", "score_range": (0.0, 1.0), "crop_size": 64, "working_size": 100,
}  # fmt: skip
CARD = ModelCard(training_data="noise, seed 0", license="CC0-1.0")


@pytest.fixture
def network():
    network = LifeIQA(**OPTIONS).eval()
    network(torch.rand(2, 3, 64, 64))
    torch.nn.init.normal_(network.decoder.head.weight)
    return network


@pytest.fixture
def saved(network, tmp_path):
    save_checkpoint(network, tmp_path / "mine.safetensors", CARD)
    return tmp_path / "mine.safetensors"


@pytest.fixture
def raw(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "raw.pth")
    return tmp_path / "raw.pth"


def assert_same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def plain(config):
    """As JSON knows it, where tuples are lists."""
    return json.loads(json.dumps(config))


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def with_metadata(path, **changes):
    """Rewrite what a checkpoint says of itself; None takes an entry away."""
    about = json.loads(metadata(path)["lifeiqa"]) | changes
    about = {key: value for key, value in about.items() if value is not None}
    save_file(load_file(path), path, {"lifeiqa": json.dumps(about)})
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_round_trip_needs_only_the_path(network, saved, kind):
    loaded = build_lifeiqa(pretrained_model_path=kind(saved)).eval()
    assert_same_weights(loaded, network)
    x = torch.rand(2, 3, 90, 120)
    assert torch.equal(loaded(x), network(x))
    assert (loaded.crop_size, loaded.working_size, loaded.score_range) == (64, 100, (0.0, 1.0))
    assert plain(loaded.config) == plain(network.config)


def test_round_trip_in_half_precision(network, tmp_path):
    save_checkpoint(network, tmp_path / "full.safetensors", CARD)
    save_checkpoint(network, tmp_path / "half.safetensors", CARD, half=True)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.7 * full  # much of a tiny network is vectors and names
    loaded = build_lifeiqa(pretrained_model_path=tmp_path / "half.safetensors").eval()
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32, torch.long}
    for name, value in network.state_dict().items():
        kept = value.half().float() if value.dim() > 1 else value
        assert torch.equal(loaded.state_dict()[name], kept), name
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x), atol=2e-3, rtol=0)  # float16 has 11 bits


def test_half_precision_keeps_whole_numbers(network, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "check_rebuildable", lambda network: None)
    network.register_buffer("table", torch.tensor([[4097, 4099]]))
    save_checkpoint(network, tmp_path / "half.safetensors", CARD, half=True)
    table = load_file(tmp_path / "half.safetensors")["table"]
    torch.testing.assert_close(table, network.table)  # compares the types too


def test_metadata(saved):
    assert metadata(saved).keys() == {"lifeiqa"}
    about = json.loads(metadata(saved)["lifeiqa"])
    assert (about["format"], about["type"]) == (1, "LifeIQA")
    assert about["card"] == {
        "training_data": "noise, seed 0",
        "licence": "CC0-1.0",
        "lower_better": False,
        "std": "",
    }
    assert about["score_range"] == [0.0, 1.0]
    assert about["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert about["preprocessing"]["std"] == pytest.approx([0.229, 0.224, 0.225])
    assert (about["preprocessing"]["crop_size"], about["preprocessing"]["working_size"]) == (
        64,
        100,
    )
    expected = {
        name: list(value) if isinstance(value, tuple) else value for name, value in OPTIONS.items()
    }
    assert about["config"].items() >= expected.items()
    assert not about["config"].keys() & {"backbone_pretrained", "chunk_size", "scatter_backend"}, (
        "machine, not model"
    )
    assert read_checkpoint(saved).card == CARD


def test_runtime_options_may_differ(saved):
    options = {"test_sample": 2, "chunk_size": 3, "working_size": 200, "scatter_backend": "torch"}
    loaded = build_lifeiqa(pretrained_model_path=saved, **options)
    assert {name: getattr(loaded, name) for name in ("test_sample", "chunk_size", "working_size")} == {
        "test_sample": 2, "chunk_size": 3, "working_size": 200,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"depth": 2},
            "the checkpoint has depth=1, but depth=2 was asked for; leave the option out, or pass ",
        ),
        (
            {"backbone": "resnet18"},
            "the checkpoint has backbone='test_efficientnet', but backbone='resnet18' was",
        ),
        (
            {"score_range": (1, 5)},
            r"the checkpoint has score_range=\[0.0, 1.0\], but score_range=\(1, 5\) was",
        ),
        (
            {"preset": "released"},
            "the checkpoint has num_experts=4, but num_experts=8 was asked for",
        ),
    ],
)
def test_options_that_contradict_the_checkpoint_are_refused(saved, options, message):
    with pytest.raises(ValueError, match=rf"mine\.safetensors: {message}"):
        build_lifeiqa(pretrained_model_path=saved, **options)


def test_options_that_agree_are_accepted(network, saved):
    assert_same_weights(build_lifeiqa(pretrained_model_path=saved, **OPTIONS), network)


def test_saving_replaces_a_file(network, saved):
    before = saved.read_bytes()
    torch.nn.init.zeros_(network.decoder.head.bias)
    save_checkpoint(network, saved, CARD)
    assert saved.read_bytes() != before
    assert_same_weights(build_lifeiqa(pretrained_model_path=saved), network)
    assert os.listdir(saved.parent) == ["mine.safetensors"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_what_was_there(network, saved, monkeypatch, error):
    before = saved.read_bytes()

    def fail(descriptor):
        os.truncate(descriptor, 1000)
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    for path in (saved, saved.with_name("new.safetensors")):
        with pytest.raises(type(error)):
            save_checkpoint(network, path, CARD)
    assert os.listdir(saved.parent) == ["mine.safetensors"]
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d,
        lambda d: {"params": d},
        lambda d: {"state_dict": d, "epoch": 3},
        lambda d: {f"module.{key}": value for key, value in d.items()},
        lambda d: {"params": {f"module.{key}": value for key, value in d.items()}},
    ],
    ids=["raw", "pyiqa params", "state_dict", "module.", "params of module."],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_other_state_dicts(network, tmp_path, wrap, zipped):
    torch.save(
        wrap(network.state_dict()), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped
    )
    assert_same_weights(
        build_lifeiqa(pretrained_model_path=tmp_path / "net.pth", **OPTIONS), network
    )


def test_bare_safetensors(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    assert_same_weights(
        build_lifeiqa(pretrained_model_path=tmp_path / "bare.safetensors", **OPTIONS), network
    )


def test_safetensors_whose_first_byte_opens_a_pickle(network, tmp_path):
    """The file starts with the length of its header, of which every 32nd is 0x80 in its lowest byte."""
    path = tmp_path / "length.safetensors"
    save_checkpoint(network, path, CARD)
    content = path.read_bytes()
    old = int.from_bytes(content[:8], "little")
    new = old + (0x80 - old) % 256
    path.write_bytes(
        new.to_bytes(8, "little") + content[8 : 8 + old].ljust(new) + content[8 + old :]
    )
    assert path.read_bytes()[:1] == b"\x80"
    assert_same_weights(build_lifeiqa(pretrained_model_path=path), network)


def test_bare_weights_with_other_options_are_refused(raw):
    wrong = OPTIONS | {"depth": 2, "num_experts": 2}
    with pytest.raises(
        ValueError, match=r"raw\.pth: the weights do not fit a LifeIQA with \d+ tensors: "
    ) as error:
        build_lifeiqa(pretrained_model_path=raw, **wrong)
    text = str(error.value)
    assert "13 missing (decoder.layers.1.attention.in_proj_bias, " in text
    assert "of another shape (decoder.moe.experts.bias1 (4, 96) instead of (2, 96), " in text
    assert text.endswith("(backbone, embed_dim, depth, num_experts, ...)")
    with pytest.raises(ValueError, match=r"1 not known \(decoder\.layers\.0\.gcn\.edge_weight\)"):
        build_lifeiqa(pretrained_model_path=raw, **(OPTIONS | {"adjacency": "fixed"}))


def test_missing_file(tmp_path):
    expected = "expected a .safetensors or .pth file"
    path = tmp_path / "none.pth"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: no such file; {expected}")):
        build_lifeiqa(pretrained_model_path=path)
    with pytest.raises(IsADirectoryError, match=re.escape(f"{tmp_path}: is a folder; {expected}")):
        build_lifeiqa(pretrained_model_path=tmp_path)


@pytest.mark.parametrize("path", ["", "  "])
def test_empty_path(path):
    message = "pretrained_model_path is empty; leave it out for the bundled weights"
    with pytest.raises(ValueError, match=message):
        build_lifeiqa(pretrained_model_path=path)


def test_path_that_is_none():
    with pytest.raises(TypeError, match="pretrained_model_path must be a path or URL, got 3"):
        build_lifeiqa(pretrained_model_path=3)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_file(network, tmp_path, share, zipped):
    path = tmp_path / "net.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        ValueError, match=r"net\.pth: (damaged or truncated|holds more|neither a safetensors)"
    ):
        build_lifeiqa(pretrained_model_path=path, **OPTIONS)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    message = r"mine\.safetensors: neither a safetensors nor a torch file, or truncated \(.+\)"
    with pytest.raises(ValueError, match=message):
        build_lifeiqa(pretrained_model_path=saved)


def test_foreign_files(tmp_path):
    path = tmp_path / "foreign"
    tensors = {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    expected = r"expected weights of LifeIQA \(decoder\.query_tokens, \.\.\.\), found "
    for content, message in (
        (tensors, rf"{expected}conv1\.weight, fc\.bias"),
        ({}, f"{expected}nothing"),
        ([1, 2], "expected a state dict of tensors, got list"),
        (torch.zeros(3), "expected a state dict of tensors, got Tensor"),
        (
            {"epoch": 3, "a": torch.zeros(1)},
            "expected a state dict of tensors, but .* are none: {'epoch': 'int'}",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"foreign: {message}"):
            read_checkpoint(path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"foreign: {expected}conv1\.weight, fc\.bias"):
        read_checkpoint(path)
    path.write_text("<html>404</html>")
    with pytest.raises(
        ValueError, match="foreign: neither a safetensors nor a torch file, or truncated"
    ):
        read_checkpoint(path)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))]
)
def test_code_in_a_file_is_not_run(network, tmp_path, save):
    content = {"params": network.state_dict(), "more": RunsCode(tmp_path / "proof")}
    save(content, tmp_path / "evil.pth")
    message = (
        r"evil\.pth: (holds more than plain tensors, which could run code|damaged or truncated)"
    )
    with pytest.raises(ValueError, match=message) as error:
        build_lifeiqa(pretrained_model_path=tmp_path / "evil.pth", **OPTIONS)
    assert "weights_only" not in str(error.value), "no advice to load it unsafely"
    assert not (tmp_path / "proof").exists()
    pickle.loads(pickle.dumps(content["more"]))
    assert (tmp_path / "proof").exists(), "the test itself would notice"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"\(format 2, expected 1; update lifeiqa_plugin\)"),
        ({"format": None}, r"\('format'\)"),
        ({"config": None}, r"\('config'\)"),
        ({"config": {"colour": 1}}, r"\(LifeIQA has no option 'colour'"),
        ({"card": {"mos": 1}}, r"\(.*unexpected keyword argument 'mos'\)"),
        (
            {"card": {"training_data": "", "licence": "", "lower_better": True}},
            r"\(scores are lower-better, expected",
        ),
        ({"config": [1, 2]}, r"\('list' object has no attribute 'items'\)"),
    ],
)
def test_wrong_metadata(saved, changes, message):
    message = (
        rf"mine\.safetensors: the metadata do not describe a LifeIQA that can be used {message}"
    )
    with pytest.raises(ValueError, match=message):
        build_lifeiqa(pretrained_model_path=with_metadata(saved, **changes))


def test_options_of_earlier_versions_are_read(saved):
    config = json.loads(metadata(saved)["lifeiqa"])["config"]
    del config["std_calibration"]
    loaded = build_lifeiqa(
        pretrained_model_path=with_metadata(saved, config=config | {"std_line": [1, 2]})
    )
    assert loaded.std_calibration == (1.0, 2.0)
    assert "std_line" not in loaded.config


@pytest.mark.parametrize("text", ["{", "null", "[]", "[" * 100_000])
def test_metadata_that_describe_nothing(saved, text):
    save_file(load_file(saved), saved, {"lifeiqa": text})
    with pytest.raises(
        ValueError, match=r"mine\.safetensors: the metadata do not describe a LifeIQA"
    ):
        build_lifeiqa(pretrained_model_path=saved)


def test_sha256(saved):
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    read_checkpoint(saved, sha256=digest)
    message = rf"mine\.safetensors: sha256 is {digest}, expected {'0' * 64}; the file is damaged, install it again"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(saved, sha256="0" * 64)


def test_the_bundled_file_is_checked(network, saved, monkeypatch):
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    monkeypatch.setitem(models.BUNDLED, "lifeiqa", models.PretrainedWeights(digest))
    monkeypatch.setattr(models, "_find", {"lifeiqa.safetensors": saved}.get)
    assert_same_weights(build_lifeiqa(), network)
    assert_same_weights(build_lifeiqa(pretrained="default"), network)  # its name in version 0.1
    with_metadata(saved, more="changed")
    with pytest.raises(ValueError, match="sha256 is"):
        build_lifeiqa()
    build_lifeiqa(pretrained_model_path=str(saved))  # a file that the user names is the user's


def test_untrained_touches_neither_disk_nor_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("something was read")

    timm.create_model(OPTIONS["backbone"])  # timm's own lazy imports
    for owner, name in (
        (factory, "read_checkpoint"),
        (torch, "load"),
        (torch.hub, "download_url_to_file"),
    ):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    network = build_lifeiqa(pretrained=False, **OPTIONS)
    assert network.config["backbone_pretrained"] is False


def test_a_path_wins_over_pretrained(network, saved):
    assert_same_weights(build_lifeiqa(pretrained=False, pretrained_model_path=saved), network)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    network = build_lifeiqa(
        pretrained=False, preset=preset, backbone="test_efficientnet", embed_dim=24
    )
    assert network.config.items() >= PRESETS[preset].items()
    smaller = build_lifeiqa(
        pretrained=False, preset=preset, backbone="test_efficientnet", embed_dim=24, num_experts=2
    )
    assert smaller.config["num_experts"] == 2, "an option wins over the preset"


def test_unknown_preset():
    with pytest.raises(
        ValueError, match=r"preset must be one of \['paper', 'released'\], got 'best'"
    ):
        build_lifeiqa(pretrained=False, preset="best")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_expert", "did you mean 'num_experts'?"), ("pretrained_path", "did you mean 'pretrained_model_path'?"),
        ("test_samples", "did you mean 'test_sample'?"), ("xyzzy", "known: backbone, backbone_pretrained, bal"),
    ],
)  # fmt: skip
def test_unknown_options_name_the_nearest(name, hint):
    with pytest.raises(TypeError, match=re.escape(f"LifeIQA has no option '{name}'; {hint}")):
        build_lifeiqa(pretrained=False, **{name: 3})


@pytest.mark.parametrize(
    ("value", "error"), [("koniq", ValueError), (1, TypeError), (None, TypeError)]
)
def test_pretrained_is_a_switch_or_a_name(value, error):
    message = rf"pretrained must be True, False or one of \['lifeiqa', .*\], got {value!r}; pretrained_model_path"
    with pytest.raises(error, match=message):
        build_lifeiqa(pretrained=value)

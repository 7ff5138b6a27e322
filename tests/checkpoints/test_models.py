"""What a model is called and which bytes it is."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from lifeiqa_plugin.checkpoints.models import BUNDLED, Model, resolve


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_names(name):
    model = resolve(name)
    assert (model.name, model.kind, model.path.name) == (name, "checkpoint", f"{name}.safetensors")
    assert model.sha256 == BUNDLED[name].sha256
    assert resolve(model) is model
    exported = model.exported()
    assert (exported.name, exported.kind, exported.path.name) == (name, "onnx", f"{name}.onnx")
    content = exported.path.read_bytes() + model.path.read_bytes()
    assert exported.sha256 == hashlib.sha256(content).hexdigest()
    assert {model.sha256, exported.sha256} <= model.digests()
    assert len(model.digests()) == 2 + BUNDLED[name].has_int8


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.safetensors", "checkpoint"),
        ("a.pth", "checkpoint"),
        ("a.onnx", "onnx"),
        ("a.xml", "openvino"),
    ],
)
def test_files(tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(b"graph")
    path.with_suffix(".bin").write_bytes(b"weights")
    model = resolve(str(path))
    assert model == Model(str(path), path, kind)
    assert model.exported() == model
    content = b"graphweights" if kind == "openvino" else b"graph"
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert model.digests() == {model.sha256}


def test_other_weights_beside_a_graph_are_another_model(tmp_path):
    exported = resolve("lifeiqa").exported()
    graph, weights = tmp_path / "copy.onnx", tmp_path / "lifeiqa.safetensors"
    shutil.copy(exported.path, graph)
    shutil.copy(resolve("lifeiqa").path, weights)
    assert resolve(graph).sha256 == exported.sha256
    with open(weights, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert resolve(graph).sha256 != exported.sha256


def test_a_folder_of_one_model(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(
        ValueError, match=r"expected one \.safetensors, \.onnx or \.xml .*, got none"
    ):
        resolve(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"graph")
    assert resolve(tmp_path).path == tmp_path / "a.onnx"
    (tmp_path / "b.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"got a\.onnx, b\.safetensors"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("biq2021", "; did you mean 'lifeiqa-biq2021'?"), ("nowhere/x.pth", ".")],
)
def test_unknown_names(name, hint):
    with pytest.raises(FileNotFoundError) as raised:
        resolve(name)
    wanted = (
        f"'{name}' is neither a file nor a bundled model{hint} Bundled: lifeiqa, lifeiqa-biq2021"
    )
    assert str(raised.value) == wanted


def test_a_bundled_name_is_not_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lifeiqa").write_bytes(b"mine")
    assert resolve("lifeiqa").path.name == "lifeiqa.safetensors"
    assert resolve("./lifeiqa").path.read_bytes() == b"mine"


def test_only_a_bundled_model_has_8_bits(tmp_path):
    assert resolve("lifeiqa").exported(int8=True).path.name == "lifeiqa-int8.onnx"
    with pytest.raises(
        ValueError, match="'lifeiqa-biq2021' has no file in 8 bits, only lifeiqa has"
    ):
        resolve("lifeiqa-biq2021").exported(int8=True)

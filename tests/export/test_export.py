"""Exported files against torch, with small random networks of both kinds: crops, and whole images."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.datasets.trained_on import trained_on
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes.metadata import KEY, OUTPUTS, Metadata, parse_metadata
from lifeiqa_plugin.runtimes.torch_engine import TorchEngine

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from lifeiqa_plugin.export import onnx_file, write  # noqa: E402  # need what is skipped for above
from lifeiqa_plugin.export.onnx_file import link_weights  # noqa: E402
from lifeiqa_plugin.runtimes.onnxruntime_engine import OnnxRuntimeEngine  # noqa: E402

SMALL = {
    "backbone": "tf_mobilenetv3_small_minimal_100",  # pads by the size of the image
    "embed_dim": 16,
    "num_heads": 2,
    "depth": 1,
    "num_experts": 2,
    "score_range": (0.0, 1.0),
    "std_calibration": (0.1, 2.0),
    "crop_size": 48,
    "working_size": 96,
    "distortions": ["blur", "noise"],
    "distortions_from": "stages",
}
SHAPES = [(1, 48, 48), (2, 96, 96), (3, 61, 130), (1, 96, 383)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def make_network(**options):
    torch.manual_seed(0)
    network = LifeIQA(**SMALL | options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module", params=["crops", "whole"])
def exported(request, tmp_path_factory):
    """A folder with the checkpoint, the ONNX file whose weights are in it, and one that has its own."""
    folder = tmp_path_factory.mktemp(request.param)
    network = make_network(whole_image=request.param == "whole")
    checkpoint = folder / "small.safetensors"
    save_checkpoint(network, checkpoint, ModelCard("random numbers", "none"), half=True)
    write.export_checkpoint(folder / "own.onnx", "onnx", checkpoint)
    linked = onnx.load(folder / "own.onnx")
    link_weights(linked, checkpoint)
    onnx.save(linked, folder / "linked.onnx")
    return folder


@pytest.fixture
def traced(exported, monkeypatch):
    """The same, and tracing, which takes seconds, gives the graph that is there."""
    monkeypatch.setattr(onnx_file, "build_onnx", lambda *_: onnx.load(exported / "own.onnx"))
    return exported


@pytest.fixture
def reference(exported):
    return TorchEngine(build_lifeiqa(pretrained_model_path=exported / "small.safetensors"))


def assert_same_scores(engine, reference):
    assert engine.names == reference.names == ("blur", "noise")
    for shape in SHAPES:
        images = np.random.default_rng(0).random((shape[0], 3, *shape[1:]), np.float32)
        found, expected = engine.score(images), reference.score(images)
        for name in OUTPUTS:
            value = getattr(found, name)
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, getattr(expected, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["own.onnx", "linked.onnx"])
def test_onnx_runtime_says_what_torch_says(exported, reference, name):
    assert_same_scores(OnnxRuntimeEngine(exported / name), reference)


def test_openvino_says_what_torch_says(traced, reference, tmp_path):
    pytest.importorskip("openvino")
    from lifeiqa_plugin.runtimes.openvino_engine import OpenVinoEngine

    path = tmp_path / "small.xml"
    write.export_checkpoint(path, "openvino", traced / "small.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small.bin", "small.xml"]
    assert_same_scores(OpenVinoEngine(path), reference)
    assert_same_scores(OpenVinoEngine(traced / "linked.onnx"), reference)


def test_torch_export_says_what_torch_says(exported, reference, tmp_path):
    path = tmp_path / "small.pt2"
    write.export_checkpoint(path, "torch-export", exported / "small.safetensors", size=(61, 130))
    extra = {KEY: ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra[KEY])["distortions"] == ["blur", "noise"]
    for batch in (1, 3):
        images = torch.rand(batch, 3, 61, 130)
        expected = reference.score(images.numpy())
        for found, name in zip(program.module()(images), OUTPUTS, strict=True):
            wanted = torch.from_numpy(getattr(expected, name))
            torch.testing.assert_close(found.detach(), wanted)


def test_sizes_of_the_files(exported):
    """Weights as float16 where the checkpoint has them so; a linked file holds hardly more than the graph."""
    checkpoint, own, linked = (
        (exported / name).stat().st_size
        for name in ("small.safetensors", "own.onnx", "linked.onnx")
    )
    assert own < 1.5 * checkpoint
    assert linked < own - 0.9 * checkpoint


def test_what_the_file_says_of_itself(exported):
    about = OnnxRuntimeEngine(exported / "own.onnx").metadata
    assert (about.crop_size, about.working_size) == (48, 96)
    assert about.whole_image == (exported.name.startswith("whole"))
    assert (about.training_data, about.licence) == ("random numbers", "none")
    assert len(about.weights_sha256) == 64
    assert about.working_shape(100, 400) == (96, 384)


def test_nothing_of_this_machine_in_the_file(exported):
    content = (exported / "own.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_chosen_outputs(tmp_path):
    path, checkpoint = tmp_path / "score.onnx", tmp_path / "small.safetensors"
    save_checkpoint(make_network(whole_image=True), checkpoint, ModelCard("random numbers", "none"))
    write.export_checkpoint(path, "onnx", checkpoint, outputs=("score",))
    engine = OnnxRuntimeEngine(path)
    assert engine.names == ()
    assert list(engine.run(np.zeros((1, 3, 48, 48), np.float32))) == ["score"]
    with pytest.raises(ValueError, match=r"score\.onnx: has no output 'std'; export it again with"):
        engine.score(np.zeros((1, 3, 48, 48), np.float32))


def test_command(traced, reference, capsys):
    path = traced / "named.onnx"
    model = str(traced / "small.safetensors")
    assert cli.main(["export", "--model", model, "-o", str(path), "--link-weights"]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: ")
    assert path.stat().st_size == (traced / "linked.onnx").stat().st_size
    assert not list(traced.glob("*.part*"))


@pytest.fixture
def refuse(tmp_path, capsys):
    """Run ``lifeiqa export`` on a small network that names no distortions, and return its one line and status."""
    checkpoint = tmp_path / "plain.safetensors"
    save_checkpoint(make_network(distortions=()), checkpoint, ModelCard("random numbers", "none"))

    def run(*arguments):
        status = cli.main(["export", "--model", str(checkpoint), *map(str, arguments)])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return status, lines[0]

    return run


def test_bad_arguments(refuse, tmp_path, monkeypatch):
    out = tmp_path / "x.onnx"
    (tmp_path / "folder.onnx").mkdir()
    for arguments, words in {
        ("-o", tmp_path / "x.bin"): "the name must end in one of .onnx, .xml, .pt2, .pth",
        ("-o", tmp_path / "none" / "x.onnx"): f"there is no folder {tmp_path / 'none'}",
        ("-o", out, "--size", 64, 64): "onnx takes images of any size",
        ("-o", out, "--outputs", "distortions"): "no output 'distortions'; it has score, std",
        ("-o", tmp_path.parent / "x.onnx", "--link-weights"): "beside",
        ("-o", tmp_path / "x.csv", "--format", "onnx"): "a file of the format onnx ends in .onnx",
        ("-o", out, "--outputs", "score", "score"): "output 'score' is named twice",
        ("-o", tmp_path / "x.pth", "--outputs", "score"): (
            "outputs are for the other formats; pyiqa's has the whole network"
        ),
        ("-o", tmp_path / "x.pt2", "--format", "torch-export", "--link-weights"): (
            "link-weights is for the format onnx, not for torch-export"
        ),
        ("-o", tmp_path / "x.pt2", "--format", "torch-export", "--size", 0, 64): (
            "size must be at least 48 in both directions, got 0 x 64"
        ),
        ("-o", tmp_path / "folder.onnx", "--overwrite"): (
            "folder.onnx: a folder; expected the name of a file to write"
        ),
    }.items():
        status, line = refuse(*arguments)
        assert status in (1, 2)
        assert words in line
    out.touch()
    assert refuse("-o", out) == (
        2,
        f"lifeiqa export: {out}: exists; choose another name, or --overwrite",
    )
    monkeypatch.setattr(write.importlib.util, "find_spec", lambda name: None)
    _, line = refuse("-o", out, "--overwrite")
    assert line == "lifeiqa export: onnx needs onnx: pip install 'lifeiqa_plugin[onnx]'"


def test_what_cannot_be_is_found_before_the_checkpoint_is_read(refuse, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "load", None)
    photos = tmp_path / "nowhere"
    _, line = refuse("-o", tmp_path / "x.onnx", "--int8", photos)
    assert line == (
        f"lifeiqa export: {photos}: no images in it; expected files such as .jpg, .png or .webp"
    )
    _, line = refuse("-o", tmp_path / "x.xml", "--format", "openvino", "--int8", photos)
    assert line == "lifeiqa export: int8 is for the format onnx, not for openvino"


def test_file_of_pyiqa(tmp_path):
    """Its own loader reads it, and ours, which finds the options too; the scores are those of the checkpoint."""
    from pyiqa.archs.arch_util import load_pretrained_network

    source, out = tmp_path / "small.safetensors", tmp_path / "small.pth"
    save_checkpoint(make_network(), source, ModelCard("random numbers", "none"), half=True)
    assert cli.main(["export", "--model", str(source), "-o", str(out)]) == 0
    expected, ours = (build_lifeiqa(pretrained_model_path=path) for path in (source, out))
    theirs = LifeIQA(**expected.config).eval()
    images = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = expected(images)
        assert not torch.equal(theirs(images), wanted)
        load_pretrained_network(theirs, str(out), weight_keys="params")
        assert torch.equal(theirs(images), wanted)
        assert torch.equal(ours(images), wanted)
    assert ours.config == expected.config
    assert read_checkpoint(out).card == read_checkpoint(source).card


def test_file_of_pyiqa_knows_what_bundled_weights_were_trained_on(tmp_path):
    write.export_checkpoint(tmp_path / "own.pth", "pyiqa", "lifeiqa")
    learnt, expected = (trained_on(resolve(name)) for name in (tmp_path / "own.pth", "lifeiqa"))
    assert learnt is not None
    assert expected is not None
    assert learnt.to_text() == expected.to_text()


def test_unknown_format(tmp_path):
    with pytest.raises(
        ValueError, match=r"format must be one of onnx, openvino, torch-export, pyiqa, got"
    ):
        write.export_checkpoint(tmp_path / "x.tflite", "tflite")


def test_a_file_that_differs_from_torch_is_not_kept(traced, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="score of the exported network differs from torch's by"):
        write.export_checkpoint(tmp_path / "x.onnx", "onnx", traced / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_cannot_be_linked(exported, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_checkpoint(LifeIQA(**SMALL | {"embed_dim": 32}), other, ModelCard("", ""))
    model = onnx.load(exported / "own.onnx")
    for tensor in model.graph.initializer:
        tensor.name = f"renamed.{tensor.name}"
    with pytest.raises(ValueError, match="no safetensors file with the weights of this network"):
        link_weights(model, other)


def test_files_that_are_none_of_ours(exported, tmp_path):
    foreign = onnx.load(exported / "own.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match=r"foreign\.onnx: not written by 'lifeiqa export'"):
        OnnxRuntimeEngine(tmp_path / "foreign.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.onnx: ONNX Runtime cannot read it"):
        OnnxRuntimeEngine(tmp_path / "broken.onnx")
    shutil.copy(exported / "linked.onnx", tmp_path)
    with pytest.raises(ValueError, match=r"linked\.onnx: ONNX Runtime cannot read it"):
        OnnxRuntimeEngine(tmp_path / "linked.onnx")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not written by 'lifeiqa export'"),
        ("{", "its description cannot be used"),
        ('{"format": 9}', "format 9, expected 1; export it again"),
        ('{"format": 1, "distortions": []}', "missing 5 required positional arguments"),
    ],
)
def test_descriptions_that_cannot_be_used(text, words):
    with pytest.raises(ValueError, match=words):
        parse_metadata(text, "x.onnx")


def test_description_comes_back():
    about = Metadata(224, 384, True, ("blur",), "1", "00")
    assert parse_metadata(about.to_json(), "x.onnx") == about


def test_no_lists_of_tensors_in_the_graph(exported):
    """ONNX Runtime reuses the memory of such lists wrongly once shapes are inferred, as quantisation does."""
    operators = {node.op_type for node in onnx.load(exported / "own.onnx").graph.node}
    assert "Conv" in operators
    assert not {name for name in operators if "Sequence" in name}


def test_onnx_runtime_folds_what_can_be_folded(exported, tmp_path):
    """A cast or a bias that is computed keeps BatchNorm and clipping apart from convolutions, at half the speed."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(exported / "own.onnx", options)
    before, after = (
        Counter(node.op_type for node in onnx.load(path).graph.node)
        for path in (exported / "own.onnx", tmp_path / "optimised.onnx")
    )
    assert before["BatchNormalization"] == after["Conv"] > 0
    assert not {"BatchNormalization", "Clip", "CastLike"} & set(after)

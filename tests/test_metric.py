"""LifeIQA as a metric of pyiqa, and whether the scores of the bundled model mean something."""

from __future__ import annotations

import gc
import hashlib
import json
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from safetensors import safe_open

import lifeiqa_plugin
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint
from lifeiqa_plugin.checkpoints.models import BUNDLED, resolve
from lifeiqa_plugin.distortions.synthetic import TRAINED, build_ladder
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.lifeiqa import LifeIQA

lifeiqa_plugin.register()

EXAMPLES = Path(__file__).parent.parent / "examples"
PHOTOS = sorted((EXAMPLES / "photos").glob("*_0_clean.jpg"))
SMALL = {
    "backbone": "test_efficientnet", "embed_dim": 24, "num_heads": 2, "depth": 1, "num_experts": 2,
    "score_range": (0.0, 1.0), "crop_size": 64, "working_size": 110,
}  # fmt: skip


@pytest.fixture(scope="module")
def metric():
    """The metric as users get it, with the bundled model."""
    return pyiqa.create_metric("lifeiqa", device="cpu")


def small_metric(**options):
    return pyiqa.create_metric("lifeiqa", device="cpu", pretrained=False, **(SMALL | options))


# ------------------------------------------------------------------------------------------------------------- contract


def test_is_listed_with_its_direction_and_range(metric):
    assert "lifeiqa" in pyiqa.list_models()
    assert "lifeiqa" in pyiqa.list_models(metric_mode="NR")
    assert metric.score_range == "0, 1"
    assert metric.lower_better is False
    assert metric.metric_mode == "NR"
    assert isinstance(metric.net, LifeIQA)
    assert metric.net.score_range == (0.0, 1.0)


@pytest.mark.parametrize(
    "shape", [(2, 3, 224, 224), (1, 1, 300, 250), (1, 3, 1, 1), (3, 3, 20, 500)]
)
def test_score(metric, shape):
    score = metric(torch.rand(shape))
    assert score.shape == (shape[0], 1)
    assert score.dtype == torch.float32
    assert not score.requires_grad
    assert ((score >= 0) & (score <= 1)).all()


def test_file_path_and_pil_image_and_tensor_agree(metric):
    photo = PHOTOS[0]
    with Image.open(photo) as opened:
        pixels = (
            torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        )
        assert torch.equal(metric(opened), metric(pixels))
    assert torch.equal(metric(str(photo)), metric(pixels))


@pytest.mark.filterwarnings("ignore:images lie further outside")
def test_contract_of_pyiqas_test_gradient_backward():
    """A batch of two images of normal noise, far outside [0, 1], as a loss; a second image that is no reference."""
    metric = pyiqa.create_metric("lifeiqa", as_loss=True, device="cpu")
    assert hasattr(metric.net, "test_sample")
    metric.net.test_sample = 1
    x = torch.randn(2, 3, 224, 224, requires_grad=True)
    metric(x, torch.randn(2, 3, 224, 224)).sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


def test_contract_of_pyiqas_test_forward(metric):
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(metric(x, torch.rand(2, 3, 224, 224)), metric(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_contract_of_pyiqas_test_cpu_gpu_consistency(metric):
    x = torch.rand(1, 3, 224, 224)
    on_gpu = pyiqa.create_metric("lifeiqa", device="cuda")(x.cuda())
    torch.testing.assert_close(on_gpu.cpu(), metric(x), atol=1e-2, rtol=1e-2)  # pyiqa's tolerance


def test_contract_of_pyiqas_time_benchmark(metric):
    """A file twice, the second as a reference that the metric has no use for."""
    photo = str(PHOTOS[0])
    assert torch.equal(metric(photo, photo), metric(photo))


def test_as_loss_must_be_minimised_with_a_minus(metric):
    """Pyiqa does not turn a higher-better score round: its loss is the mean score, so training minimises ``-loss``."""
    loss = pyiqa.create_metric("lifeiqa", device="cpu", as_loss=True)
    x = torch.rand(2, 3, 224, 224) * 0.5 + 0.25
    torch.testing.assert_close(loss(x), metric(x).mean())
    x.requires_grad_()
    before = -loss(x)
    before.backward()
    assert x.grad.isfinite().all()
    with torch.no_grad():
        better = x - 1e-3 * x.grad.sign()
    assert -loss(better) < before
    assert metric(better).mean() > metric(x.detach()).mean()


# -------------------------------------------------------------------------------------------------------------- options


def test_load_weights_of_pyiqa_takes_our_files_and_its_own(tmp_path):
    """Ours bring another architecture along; of pyiqa's, which say none, the metric has it."""
    network, x = LifeIQA(**SMALL | {"embed_dim": 12}).eval(), torch.rand(1, 3, 100, 90)
    torch.nn.init.normal_(network.decoder.head.weight)
    save_checkpoint(network, tmp_path / "mine.safetensors", ModelCard("noise", "CC0-1.0"))
    torch.save({"params": network.state_dict()}, tmp_path / "net_best.pth")
    network.test_sample = 9
    with torch.no_grad():
        expected = network(x)
    for options, file in (({}, "mine.safetensors"), ({"embed_dim": 12}, "net_best.pth")):
        metric = small_metric(test_sample=9, **options)
        assert not torch.equal(metric(x), expected)
        metric.load_weights(str(tmp_path / file))
        assert torch.equal(metric(x), expected)
        assert metric.net.test_sample == 9
    with pytest.raises(ValueError, match="the weights do not fit"):
        small_metric().load_weights(str(tmp_path / "net_best.pth"))


def test_load_weights_of_other_metrics_is_pyiqas(tmp_path):
    metric = pyiqa.create_metric("cnniqa", device="cpu", pretrained=None)
    weights = {name: value + 1 for name, value in metric.net.state_dict().items()}
    torch.save({"params": weights}, tmp_path / "other.pth")
    metric.load_weights(str(tmp_path / "other.pth"))
    for name, value in metric.net.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test_sample": "4"}, TypeError, "test_sample must be a whole number, got '4'"),
        ({"test_sample": 1.5}, TypeError, "test_sample must be a whole number, got 1.5"),
        ({"chunk_size": True}, TypeError, "chunk_size must be a whole number, got True"),
        ({"embed_dim": "24"}, TypeError, "embed_dim must be a whole number, got '24'"),
        ({"score_range": 5}, ValueError, "score_range must be two numbers, got 5"),
        ({"score_range": ["a", "b"]}, ValueError, "score_range must be two numbers, got "),
        ({"std_calibration": (1, 2, 3)}, ValueError, "std_calibration must be two numbers, got "),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        small_metric(**options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_the_metric(dtype):
    metric, x = small_metric(), torch.rand(2, 3, 70, 90)
    expected = metric(x)
    score = metric.to(dtype)(x)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, atol=0.01, rtol=0)  # bfloat16 has 8 bits


# ------------------------------------------------------------------------------------------------------------ bad input


def refusal(metric, path):
    """Return the error that a file gives."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # pyiqa leaves the file open when decoding fails
        try:
            pytest.fail(f"{path} has the score {metric(str(path))}")
        except OSError as error:
            found = type(error), str(error)
        gc.collect()
    return found


@pytest.mark.slow
def test_files_that_are_not_images(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ImageFile, "LOAD_TRUNCATED_IMAGES", False
    )  # pyiqa's data sets switch it on, for all of Pillow
    metric, path = small_metric(), tmp_path / "photo.jpg"
    for content in (b"", b"this is text", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        assert refusal(metric, path) == (
            UnidentifiedImageError,
            f"cannot identify image file {str(path)!r}",
        )
    path.write_bytes(PHOTOS[0].read_bytes()[:9000])
    kind, text = refusal(metric, path)
    assert kind is OSError
    assert text.startswith("image file is truncated")
    missing = tmp_path / "none.jpg"
    assert refusal(metric, missing) == (
        FileNotFoundError,
        f"[Errno 2] No such file or directory: {str(missing)!r}",
    )
    assert refusal(metric, tmp_path)[0] is IsADirectoryError


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.full((1, 3, 9, 9), float("nan")), (ValueError, AssertionError), "nan"),
        (torch.full((1, 3, 9, 9), 1.5), (ValueError, AssertionError), r"\[0, 1\], .*1\.5"),
        (torch.zeros(3, 9, 9), AssertionError, "4D"),
        (torch.zeros(1, 4, 9, 9), AssertionError, "RGB or gray"),
        (
            torch.zeros(1, 3, 9, 9, dtype=torch.uint8),
            TypeError,
            "got torch.uint8; divide 8-bit images by 255",
        ),
    ],
)
def test_bad_tensors(x, error, message):
    """Some are refused by pyiqa before the network sees them; none gets a score."""
    with pytest.raises(error, match=message):
        small_metric()(x)


@pytest.mark.parametrize("options", [{"as_loss": True}, {"check_input_range": False}])
def test_images_a_little_outside_the_range(options):
    """One rule wherever pyiqa does not look itself: the score is that of the image as it would be saved."""
    torch.manual_seed(0)
    checked, unchecked = small_metric(), small_metric(**options)
    unchecked.net.load_state_dict(checked.net.state_dict())
    x = 1.6 * torch.rand(1, 3, 70, 90) - 0.3
    expected = checked(x.clamp(0, 1))
    for image in (x, x.clone().requires_grad_()):
        torch.testing.assert_close(unchecked(image).view(1, 1), expected)
    with torch.no_grad():
        torch.testing.assert_close(unchecked(x).view(1, 1), expected)
    with pytest.raises(AssertionError, match="Input must be normalized"):
        checked(x)


# -------------------------------------------------------------------------------------------------------- bundled model


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_file(name):
    path = resolve(name).path
    assert path.stat().st_size <= 16 * 2**20
    assert hashlib.sha256(path.read_bytes()).hexdigest() == BUNDLED[name].sha256
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["lifeiqa"])
    assert "efficientnet_lite" in about["config"]["backbone"]
    assert about["score_range"] == [0.0, 1.0]
    assert about["card"]["lower_better"] is False
    assert "BIQ2021" in about["card"]["training_data"]
    assert about["card"]["licence"]


def test_there_are_photos():
    assert len(PHOTOS) == 5


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_example_photos_rank_as_a_person_would(metric, photo):
    files = sorted(photo.parent.glob(f"{photo.stem.split('_')[0]}_*.jpg"))
    assert len(files) == 4
    scores = [metric(str(path)).item() for path in files]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 0.05


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg", "darken"])
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_score_falls_as_distortion_grows(metric, photo, kind):
    ladder = build_ladder(read_image(photo), TRAINED[kind], [0.3, 0.6, 1.0], seed=0)
    scores = [metric(rung[None]).item() for rung in ladder]
    assert all(a > b for a, b in pairwise(scores)), scores


SCORES = {
    "astronaut": (0.7981191873550415, 0.08370278775691986),
    "camera": (0.6716555953025818, 0.085270956158638),
    "chelsea": (0.8083176016807556, 0.0840873047709465),
    "coffee": (0.7775445580482483, 0.0847737267613411),
    "rocket": (0.7375885844230652, 0.08457785844802856),
}
"""Score and standard deviation of the clean photos by the weights that ship, as one CPU gave them."""


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_scores_stay_what_they_are(metric, photo):
    """To 1e-5, since the order of additions differs from CPU to CPU."""
    score, std = metric(str(photo), return_std=True)
    expected = SCORES[photo.stem.split("_")[0]]
    assert (score.item(), std.item()) == pytest.approx(expected, abs=1e-5)

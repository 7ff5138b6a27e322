"""Whole runs: what is written, which weights are kept and tested, and what is refused before anything is computed."""

from __future__ import annotations

import copy
import json
import math
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.datasets.trained_on import digests_of, trained_on
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.scoring.evaluation import evaluate
from lifeiqa_plugin.training import dataset as data
from lifeiqa_plugin.training import launch, preparation
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.options import read_options
from lifeiqa_plugin.training.splits import train_splits

from .conftest import FOLDER, newest, newest_log, read_csv, read_log, read_state

pytestmark = pytest.mark.slow


def test_overfits(write_options, images):
    """Thirty-two images are learnt by heart, and the files of a run are all there."""
    meta = pd.read_csv(images / "meta.csv")
    meta["ratio712_seed123_split_01"] = ["train"] * 32 + ["val"] * 4 + ["test"] * 4
    meta.to_csv("meta.csv", index=False)
    result = launch.train(
        write_options(
            "train:total_epoch=15", "train:optim:lr=6e-3", "val:val_freq=45", "logger:use_tb_logger=true",
            "datasets:train:crops_per_image=3", "datasets:train:num_worker_per_gpu=2",
            *(f"datasets:{phase}:meta_info_file=meta.csv" for phase in ("train", "val", "test")),
        )
    )  # fmt: skip
    learnt = LifeIQADataset(
        {"phase": "train", "meta_info_file": "meta.csv", "dataroot_target": str(images)}
        | {"split_index": "ratio712_seed123_split_01"}
    )
    learnt.phase = "test"  # whole images
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    agreed = evaluate(network, learnt.images)
    assert agreed["images"] == 32
    assert agreed["srcc"] > 0.95
    assert result == json.loads((FOLDER / "test_results.json").read_text())
    log = read_log()
    assert len(log) == 90
    assert np.mean([line["l_mos"] for line in log[-10:]]) < 0.1 * np.mean(
        [line["l_mos"] for line in log[:10]]
    )
    assert {p.name for p in (FOLDER / "models").iterdir()} == {
        "net_best.safetensors",
        "net_latest.safetensors",
    }
    assert [p.name for p in (FOLDER / "training_states").iterdir()] == ["latest.state"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tb_logger/tiny").Reload()
    assert {"losses/l_mos", "losses/l_balance", "losses/l_router_z", "losses/l_total", "lr"} <= set(
        events.Tags()["scalars"]
    )
    card = read_checkpoint(FOLDER / "models/net_best.safetensors").card
    assert (card.training_data, card.license, card.lower_better) == (
        "noise-train (meta.csv)",
        "not stated",
        False,
    )


def test_checkpoints_say_what_they_were_trained_on(write_options, images):
    """Also what they started from; a copy of a training image in the test set is found."""
    meta = pd.read_csv(images / "meta.csv")
    split = ["train"] * 20 + ["test"] * 20
    meta.assign(half=split).to_csv("first.csv", index=False)
    shutil.copytree(images, "copies")
    shutil.copy(images / "005.png", "copies/030.png")
    meta.assign(half=split[::-1]).to_csv("second.csv", index=False)

    def train(meta_file: str, *changes: str) -> dict:
        sets = [f"datasets:{one}:meta_info_file={meta_file}" for one in ("train", "test")]
        splits = [f"datasets:{one}:split_index=half" for one in ("train", "test")]
        drop = ("datasets:val", "val")
        return launch.train(
            write_options("train:total_epoch=1", *sets, *splits, *changes, drop=drop)
        )

    result = train("first.csv", "datasets:test:dataroot_target=copies")
    assert "noise-test: 1 of 20 images were trained on: 19 left" in newest_log()
    assert result["trained_on"] == 1
    assert result["not_trained_on"]["images"] == 19
    first = Path("first.safetensors")
    shutil.move(FOLDER / "models/net_latest.safetensors", first)
    assert trained_on(resolve(first)).images == 20
    result = train("second.csv", f"network:pretrained_model_path={first}", "name=again")
    assert result["trained_on"] == 20  # its start was trained on all that it is tested on
    second = trained_on(resolve("experiments/again/models/net_latest.safetensors"))
    assert second.images == 40
    assert second.hits(digests_of(images / name for name in meta["name"])).all()


def test_the_best_epoch_is_kept_and_scored_in_float32(write_options, images):
    """What validation reported is what the saved file gives, although training computes in bfloat16."""
    launch.train(
        write_options(
            "train:amp=bf16",
            "train:ema_decay=0.5",
            "train:optim:lr=3e-3",
            "val:val_freq=2",
            "train:total_epoch=2",
        )
    )
    best = read_state()["best_metric_results"]["noise-val"]
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_best.safetensors")
    opt = {
        "phase": "val",
        "meta_info_file": str(images / "meta.csv"),
        "dataroot_target": str(images),
    }
    dataset = LifeIQADataset(opt | {"split_ratio": "712", "split_index": 1})
    result = evaluate(network, dataset.images)
    assert {m: best[m]["val"] for m in best} == pytest.approx(
        {m: result[m] for m in best}, abs=1e-6
    )
    assert best["srcc"]["iter"] % 2 == 0
    last = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert last.std_calibration == (0, 1)
    assert "return_std of net_best.safetensors: " in newest_log()


def test_whole_images(write_options):
    """Trained on squares of the whole shorter side, scored in one piece of any shape."""
    result = launch.train(
        write_options(
            "network:whole_image=true",
            "train:total_epoch=1",
            "train:scheduler:type=step",
            "train:scheduler:every_epochs=1",
            "datasets:train:working_range=[48, 60]",
        )
    )
    assert result["images"] == 8
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert network.whole_image
    assert network(torch.rand(1, 3, 40, 57), return_details=True).crop_shape == (40, 57)
    opt = preparation.prepare_options(read_options(FOLDER / "options.yml"))
    preparation.take_sizes_from_network(opt)
    train_set = preparation.check_data(opt, None)["train"]
    assert train_set[0, 1]["img"].shape == (2, 3, 48, 48)
    with pytest.raises(ValueError, match="crop_size is 64, but the network's is 48"):
        launch.train(write_options("network:whole_image=true", "datasets:train:crop_size=64"))


def test_distortions_are_learnt_and_kept(write_options):
    changes = ["network:distortions=[dark, noise]", "train:distortion_weight=1"]
    changes += ["datasets:train:ladder_share=0.5", "train:total_epoch=1"]
    launch.train(write_options(*changes))
    assert "l_distortion" in read_csv(FOLDER / "curves_losses.csv")[0]
    network = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_latest.safetensors")
    assert network.distortion_names == ("dark", "noise")


def test_without_validation_the_last_weights_are_tested(write_options):
    result = launch.train(write_options("train:total_epoch=1", drop=("datasets:val", "val")))
    assert result["images"] == 8
    assert [p.name for p in (FOLDER / "models").iterdir()] == ["net_latest.safetensors"]
    assert read_state()["iter"] == 5


def test_validation_and_states_come_once_per_epoch_by_default(write_options):
    launch.train(write_options(drop=("val", "logger", "datasets:test")))
    assert "Validation noise-val" in newest_log()
    assert newest_log().count("validation datasets are used") == 3
    assert newest_log().count("Saving latest") == 3


def test_numbered_weights_on_request(write_options):
    launch.train(
        write_options(
            "logger:save_checkpoint_freq=4", "train:total_epoch=2", drop=("datasets:test",)
        )
    )
    names = {p.name for p in (FOLDER / "models").iterdir()}
    assert names == {f"net_{label}.safetensors" for label in ("4", "8", "best", "latest")}


def test_a_image_is_decoded_once_in_an_epoch(write_options, monkeypatch):
    """However many crops and steps are made of it."""
    decoded, read = [], data.read_image
    monkeypatch.setattr(data, "read_image", lambda path: decoded.append(path) or read(path))
    changes = ["datasets:train:crops_per_image=6", "train:steps_per_batch=3", "train:total_epoch=2"]
    launch.train(
        write_options(
            *changes, "datasets:train:batch_size_per_gpu=7", drop=("datasets:test", "datasets:val")
        )
    )
    assert len(read_log()) == 8
    assert [decoded.count(path) for path in set(decoded)] == [2] * 28


class UpsideDown(LifeIQA):
    """A subclass whose scores have the other sign."""

    def __init__(self, *, shift: float = 0.0, **options) -> None:
        super().__init__(**options)
        self.config["shift"] = self.shift = shift

    def to_range(self, raw: torch.Tensor) -> torch.Tensor:
        return self.shift - super().to_range(raw)


def test_a_subclass_is_trained_validated_tested_and_read_as_itself(write_options, images):
    """Its final test has the sign that its validation had."""
    changes = ["network:type=UpsideDown", "network:shift=1.5", "train:total_epoch=1"]
    columns = {"val": "everything", "test": "everything_else"}
    meta = pd.read_csv(images / "meta.csv").assign(everything="train", everything_else="train")
    meta.loc[20:29, "everything"], meta.loc[30:, "everything_else"] = "val", "test"
    meta.loc[20:, "train_split"], meta.loc[:19, "train_split"] = "", "train"
    meta.to_csv("m.csv", index=False)
    changes += [f"datasets:{phase}:meta_info_file=m.csv" for phase in ("train", "val", "test")]
    changes += [f"datasets:{phase}:split_index={column}" for phase, column in columns.items()]
    result = launch.train(write_options(*changes, "datasets:train:split_index=train_split"))
    path = FOLDER / "models/net_best.safetensors"
    network = build_lifeiqa(pretrained_model_path=path)
    assert isinstance(network, UpsideDown)
    assert network.shift == 1.5
    test = LifeIQADataset(
        dict(read_options(FOLDER / "options.yml")["datasets"]["test"], phase="test")
    )
    agreed = evaluate(network, test.images, learnt=trained_on(resolve(path)))
    assert agreed == pytest.approx(result, rel=1e-5)  # float32 sums
    val = LifeIQADataset(dict(read_options(FOLDER / "options.yml")["datasets"]["val"], phase="val"))
    validated = read_state()["best_metric_results"]["noise-val"]
    assert evaluate(network, val.images)["rmse"] == pytest.approx(
        validated["rmse"]["val"], abs=1e-6
    )
    plain = LifeIQA(**{k: v for k, v in network.config.items() if k != "shift"}).eval()
    plain.load_state_dict(network.state_dict())
    image = test[0]["img"][None]
    torch.testing.assert_close(network.eval()(image), 1.5 - plain(image))


def test_splits(write_options):
    """Each split is trained once, on its own rows, and the table is their median, mean and deviation."""
    option_file = write_options("train:total_epoch=1")
    results = train_splits(read_options(option_file), 2)
    tested = [Path(f"experiments/tiny_split0{i}/test_scores.csv").read_text() for i in (1, 2)]
    assert tested[0] != tested[1]
    rows = read_csv("experiments/tiny_splits.csv")
    assert [row[0] for row in rows] == ["split", "1", "2", "median", "mean", "std"]
    assert rows[3][1] == rows[4][1] == f"{(results[0]['srcc'] + results[1]['srcc']) / 2:.4f}"
    assert float(rows[5][1]) == pytest.approx(
        abs(results[0]["srcc"] - results[1]["srcc"]) / math.sqrt(2), abs=1e-4
    )
    head = "| split | srcc | plcc | krcc | rmse | rows of noise-train | rows of noise-val | rows of"
    assert Path("experiments/tiny_splits.md").read_text().startswith(head)
    assert rows[1][5:] == rows[2][5:] == ["28", "4", "8"]
    before = [newest(p) for p in sorted(Path("experiments").rglob("net_*"))]
    assert len(before) == 4
    assert train_splits(read_options(option_file), 2) == results
    assert before == [newest(p) for p in sorted(Path("experiments").rglob("net_*"))]
    other = read_options(write_options("train:total_epoch=1", "manual_seed=2"))
    with pytest.raises(ValueError, match="tiny_split01: holds the results of other options"):
        train_splits(other, 2)


@pytest.mark.parametrize(("amp", "factor"), [("bf16", 14.0), ("bf16", 1.2), ("fp32", 14.0)])
def test_a_run_says_how_long_it_takes(write_options, build_model, monkeypatch, amp, factor):
    """CPUs without instructions for bfloat16 compute it ten times and more slower than float32."""
    monkeypatch.setattr(launch, "bfloat16_slowdown", lambda: factor)
    monkeypatch.setattr(launch, "seconds_of", lambda network, size, crops, dtype: 3.0 * crops)
    model = build_model(write_options(f"train:amp={amp}"), total_iter=300)
    slow = factor if amp == "bf16" else 1
    length = {1: "3.0 hours", 1.2: "3.6 hours", 14.0: "42.0 hours"}[slow]
    said = launch.about_time(model)
    assert said.startswith(f"tiny: about {length} of computing, 300 iterations of {36 * slow:.2g} ")
    advice = "this CPU computes bfloat16 14 times slower than float32: use --force-yml train:amp="
    assert (advice in said) == (slow == 14)


def test_timing_changes_nothing(write_options, build_model):
    model = build_model(write_options())
    before = copy.deepcopy(model.network.state_dict())
    modes = [module.training for module in model.network.modules()]
    assert launch.seconds_of(model.network, 32, 12, None) > 0
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [module.training for module in model.network.modules()] == modes
    assert all(p.grad is None for p in model.network.parameters())


def test_another_network_is_refused(write_options):
    with pytest.raises(
        ValueError, match="LifeIQA or a subclass of it that has been imported, got 'Entropy'"
    ):
        launch.train(write_options("network={type: Entropy}"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("network:num_expert=4", TypeError, "no option 'num_expert'; did you mean 'num_experts'"),
        ("datasets:train:crop_size=16", ValueError, "crop_size is 16, but the network's is 32; le"),
        ("datasets:train:working_size=64", ValueError, "size is 64, but the network's is 48"),
        (
            "datasets:val:name=noise-test",
            ValueError,
            "a name of its own, got noise-test, noise-test, noise-train",
        ),
        (
            "datasets:train:working_range=[16, 40]",
            ValueError,
            "both at least crop_size=32, got .16",
        ),
    ],
)
def test_errors_before_training(write_options, change, error, message):
    with pytest.raises(error, match=message):
        launch.train(write_options(change))
    assert not Path("experiments").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "import: missing: ModuleNotFoundError: No module named 'missing'"),
        ("1 / 0", "import: broken: ZeroDivisionError: division by zero"),
    ],
)
def test_an_import_that_fails(write_options, tmp_path, code, message):
    name = message.split(": ")[1]
    if code:
        (tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(ImportError, match=message):
        launch.train(write_options(f"import=[{name}]"))


def test_launcher_needs_torchrun():
    with (
        pytest.raises(ValueError, match="--launcher pytorch needs torchrun"),
        launch.processes("pytorch"),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="permissions differ")
def test_no_permission_is_known_before_training(write_options, monkeypatch):
    option_file = write_options()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="no permission to write here"):
        launch.train(option_file)
    assert not Path("experiments").exists()


def test_ctrl_c_ends_a_run_at_once(write_options, monkeypatch):
    """By the signal itself, since Python's handler would wait for the end of a step."""
    seen, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(launch, "run", lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
    assert cli.main(["train", "-opt", str(write_options())]) == 0
    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "train:mos_loss_opt:type=L3Loss",
            "No object named 'L3Loss' found in 'loss' registry! Did",
        ),
        ("datasets:train:type=Foo", "No object named 'Foo' found in 'dataset' registry"),
        ("model_type=Foo", "No object named 'Foo' found in 'model' registry"),
        ("train:optim:type=Adamx", "train.optim.type: torch.optim has no 'Adamx'"),
        ("train:warmup_epochs=3", "must be shorter than the run, got 15 of 15 iterations"),
    ],
)
def test_names_that_nobody_knows_leave_an_older_run_where_it_is(write_options, change, message):
    (FOLDER / "models").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        launch.train(write_options(change))
    assert [path.name for path in FOLDER.parent.iterdir()] == ["tiny"]

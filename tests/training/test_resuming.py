"""An interrupted run is the run itself, in one process and in two; states are whole or not there."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.scoring.evaluation import evaluate
from lifeiqa_plugin.training import launch, preparation
from lifeiqa_plugin.training.dataset import LifeIQADataset
from lifeiqa_plugin.training.mixture import ResumableSampler
from lifeiqa_plugin.training.model import LifeIQAModel
from lifeiqa_plugin.training.options import read_options

from .conftest import (
    FOLDER,
    NO_SIDE_LOSS,
    assert_same,
    lose_last_state,
    newest,
    newest_log,
    read_csv,
    read_log,
    read_state,
)

pytestmark = pytest.mark.slow


def read_weights(label: str, folder: Path = FOLDER) -> dict:
    return read_checkpoint(folder / "models" / f"{label}.safetensors").state_dict


def finish(processes: list) -> None:
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_state_waits_for_the_validation_of_its_iteration(write_options, images, build_model):
    """Otherwise a run killed between the two would resume behind a validation that never happened."""
    model = build_model(write_options("val:val_freq=5"))
    for name in ("models", "training_states"):
        (FOLDER / name).mkdir(parents=True)
    opt = dict(model.opt["datasets"]["val"])
    loader = type("Loader", (), {"dataset": LifeIQADataset(opt)})
    state_file = FOLDER / "training_states/latest.state"
    for iteration, due in ((4, False), (5, True)):
        model.current_iter = iteration
        model.save(0, -1)
        assert state_file.exists() != due
        if due:
            model.validation(loader, iteration, None)
            assert read_state()["validated"] == {"noise-val": 5}
        state_file.unlink()


def test_curves_of_a_resumed_run_are_those_of_the_whole_one(
    write_options, train_until, tmp_path, monkeypatch
):
    """Each iteration's losses and each validation's results and scores, once, as csv."""
    changes = ["train:total_epoch=2", "logger:save_latest_freq=3", "val:val_freq=4"]
    option_file = write_options(*changes, drop=("datasets:test",))

    def lose(model):
        lose_last_state(model)
        model.loss_rows = model.loss_rows[:-1]

    train_until(option_file, 6, lose)
    assert read_state()["iter"] == 3
    with open(FOLDER / "curves_losses.csv", "a") as file:
        file.write("4,1,2,3,4,5\n1")  # what a killed run may leave
    launch.train(option_file, auto_resume=True)
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    launch.train(option_file)
    names = ("curves_losses.csv", "curves_validation.csv", "predictions_noise-val.csv")
    for name in names:
        resumed, whole = read_csv(tmp_path / FOLDER / name), read_csv(FOLDER / name)
        assert resumed == whole
    losses = read_csv(FOLDER / names[0])
    assert losses[0] == ["iteration", "l_mos", "l_balance", "l_router_z", "l_total", "lr"]
    assert [row[0] for row in losses[1:]] == [str(i) for i in range(1, 11)]
    validated = read_csv(FOLDER / names[1])
    assert [row[:2] for row in validated[1:]] == [[str(i), "noise-val"] for i in (4, 8, 10)]
    predictions = pd.read_csv(FOLDER / names[2])
    last = predictions[predictions.iteration == 10]
    assert len(last) == 4
    srcc = last.score.corr(last.mos, method="spearman")
    assert float(validated[-1][2]) == pytest.approx(srcc, abs=1e-6)


def test_a_finished_run_is_left_as_it_is(write_options, monkeypatch):
    """Not trained, scored or written again; a longer one goes on, and the result of the shorter is gone."""
    result = launch.train(write_options("train:total_epoch=1"))
    before = {
        path: newest(path)
        for path in Path().rglob("*")
        if path.is_file() and path.name != "tiny.yml"
    }
    with monkeypatch.context() as context:
        context.setattr("pyiqa.train.train_pipeline", lambda *_: pytest.fail("trained again"))
        assert launch.train(write_options("train:total_epoch=1"), auto_resume=True) == result
    assert before == {
        path: newest(path)
        for path in Path().rglob("*")
        if path.is_file() and path.name != "tiny.yml"
    }
    with monkeypatch.context() as context:
        context.setattr("pyiqa.train.train_pipeline", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            launch.train(write_options("train:total_epoch=2"), auto_resume=True)
    assert not (FOLDER / "test_results.json").exists()
    launch.train(write_options("train:total_epoch=2"), auto_resume=True)
    assert read_state()["iter"] == 10
    assert (FOLDER / "test_results.json").exists()
    assert "resumed with other options: train:total_epoch 1 -> 2\n" in newest_log()
    saved = read_options(FOLDER / "options.yml")
    assert saved == read_options(write_options("train:total_epoch=2"))


def test_results_of_other_options_or_files_are_not_handed_back(write_options, images):
    launch.train(write_options("train:total_epoch=1"))
    saved = (FOLDER / "test_results.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"tiny: holds the results of other .*: manual_seed 1 -> 2\. Give"
    ):
        launch.train(write_options("train:total_epoch=1", "manual_seed=2"), auto_resume=True)
    meta = images / "meta.csv"
    meta.write_text(meta.read_text() + "\n")
    with pytest.raises(
        ValueError, match=r"meta\.csv has other content\. Give the run another name"
    ):
        launch.train(write_options("train:total_epoch=1"), auto_resume=True)
    assert (FOLDER / "test_results.json").read_bytes() == saved


def test_a_run_killed_before_its_test_is_tested_and_not_trained(write_options, monkeypatch):
    option_file = write_options("train:total_epoch=1")
    result = launch.train(option_file)
    (FOLDER / "test_results.json").unlink()
    weights = {path.name: path.read_bytes() for path in (FOLDER / "models").iterdir()}
    monkeypatch.setattr(
        LifeIQAModel, "optimize_parameters", lambda *_: pytest.fail("trained again")
    )
    assert launch.train(option_file, auto_resume=True) == result
    assert weights == {path.name: path.read_bytes() for path in (FOLDER / "models").iterdir()}


def test_killed_and_resumed_is_the_same_run(write_options, tmp_path, monkeypatch, start_process):
    """SIGKILL at any moment, three times over; weights, average, optimiser, best epoch and test scores are equal."""
    changes = [
        "train:total_epoch=5",
        "train:ema_decay=0.9",
        "logger:save_latest_freq=2",
        "val:val_freq=4",
    ]
    changes += ["train:warmup_epochs=1", "train:clip_grad_norm=1.0"]
    option_file = write_options(*changes)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    process = start_process(launch.train, option_file)
    process.join(120)
    assert process.exitcode == 0
    monkeypatch.chdir(tmp_path / "killed")
    state_file, saved = FOLDER / "training_states/latest.state", []
    for pause in (0.0, 0.11, 0.23):
        process, before = start_process(launch.train, option_file, None, True), newest(state_file)
        while newest(state_file) == before:
            assert process.is_alive(), (
                "ended before it could be killed; the test needs a longer run"
            )
            time.sleep(0.005)
        time.sleep(pause)
        process.kill()
        process.join()
        assert process.exitcode == -9
        saved.append(read_state()["iter"])
    assert 0 < saved[0] <= saved[1] <= saved[2] < 25
    process = start_process(launch.train, option_file, None, True)
    process.join(120)
    assert process.exitcode == 0
    assert sum("Resuming training" in p.read_text() for p in FOLDER.glob("*.log")) >= 1
    whole = tmp_path / "whole" / FOLDER
    for label in ("net_best", "net_latest"):
        assert_same(read_weights(label, whole), read_weights(label))
    first, second = read_state(whole), read_state()
    assert first["iter"] == second["iter"] == 25
    assert_same(first["ema"], second["ema"])
    for key, slots in first["optimizer"]["state"].items():
        assert_same(slots, second["optimizer"]["state"][key])
    assert first["best_metric_results"] == second["best_metric_results"]
    assert (FOLDER / "test_scores.csv").read_text() == (whole / "test_scores.csv").read_text()


def test_state_of_another_network_is_refused(write_options):
    launch.train(write_options("train:total_epoch=1"))
    with pytest.raises(ValueError, match=r"does not fit these options.*size mismatch"):
        launch.train(write_options("train:total_epoch=2", "network:embed_dim=32"), auto_resume=True)


def test_state_that_is_no_state(write_options, tmp_path):
    (tmp_path / "x.state").write_bytes(b"not a torch file")
    with pytest.raises(
        ValueError, match=r"x\.state: not a training state of lifeiqa_plugin, or damaged"
    ):
        launch.train(write_options(f"path={{resume_state: {tmp_path / 'x.state'}}}"))
    with pytest.raises(OSError, match="No such file"):
        launch.train(write_options("path={resume_state: nowhere.state}"))


def test_full_disk_leaves_the_last_state(tmp_path):
    path = tmp_path / "latest.state"
    with write_whole(path) as file:
        torch.save({"iter": 1}, file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = r"latest\.state: cannot be written .* what was there before is untouched"
        with pytest.raises(OSError, match=message), write_whole(path) as file:
            torch.save({"weights": torch.zeros(100_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path, weights_only=True) == {"iter": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["latest.state"]


def test_two_processes_are_one_with_the_doubled_batch(write_options, run_python, tmp_path):
    """Same images, same crops, gradients averaged; AdamW magnifies the order of summing to 1e-4."""
    changes = [
        "network:dropout=0",
        "train:optim:lr=1e-4",
        "train:ema_decay=0.5",
        *NO_SIDE_LOSS[:2],
        "train:total_epoch=1",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    option_file = write_options(*changes, "datasets:train:batch_size_per_gpu=8")
    one.mkdir(), two.mkdir()
    root = Path(__file__).parents[2]
    done = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lifeiqa_plugin.cli", "train",
        "-opt", option_file, "--launcher", "pytorch", "--force-yml", "datasets:train:batch_size_per_gpu=4",
        cwd=two, PYTHONPATH=str(root), OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    import os

    os.chdir(one)  # write_options' monkeypatch takes us back
    launch.train(option_file)
    curves = [[line["l_mos"] for line in read_log(folder / FOLDER)] for folder in (one, two)]
    assert len(curves[0]) == 4
    np.testing.assert_allclose(*curves, rtol=1e-3)
    scores = [
        np.genfromtxt(f / FOLDER / "test_scores.csv", delimiter=",", skip_header=1)[:, 1:]
        for f in (one, two)
    ]
    assert scores[0].shape == (8, 3)
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_two_processes_killed_and_resumed_are_the_same_run(
    write_options, tmp_path, monkeypatch, start_two
):
    """Bit for bit: the sum of two gradients does not depend on who comes first. With batch statistics and average."""
    option_file = write_options(
        "network:backbone=test_efficientnet", "train:ema_decay=0.9", "train:total_epoch=2", "val:val_freq=4",
        "logger:save_latest_freq=2", "datasets:train:batch_size_per_gpu=3",
    )  # fmt: skip
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    finish(start_two("-opt", option_file))
    monkeypatch.chdir(tmp_path / "killed")
    pair, state_file = start_two("-opt", option_file), FOLDER / "training_states/latest.state"
    while not state_file.exists():
        assert all(process.is_alive() for process in pair)
        time.sleep(0.005)
    for process in pair:
        process.kill()
        process.join()
    assert 0 < read_state()["iter"] < 10
    finish(start_two("-opt", option_file, "--auto-resume"))
    assert any("Resuming training" in path.read_text() for path in FOLDER.glob("*.log"))
    whole = tmp_path / "whole" / FOLDER
    for label in ("net_best", "net_latest"):
        assert_same(read_weights(label, whole), read_weights(label))
    first, second = read_state(whole), read_state()
    assert first["iter"] == second["iter"] == 10
    for key in ("network", "ema"):
        assert_same(first[key], second[key])
    assert (FOLDER / "test_scores.csv").read_text() == (whole / "test_scores.csv").read_text()


def test_batch_statistics_of_two_processes_are_those_of_the_first(
    write_options, images, start_two, build_model
):
    """Each normalises with its own share of the batch; the running averages of the first are kept and scored."""
    option_file = write_options(
        "network:backbone=test_efficientnet", "train:optim:lr=0.0", "train:total_epoch=1", "val:val_freq=2",
        "datasets:train:batch_size_per_gpu=7",
    )  # fmt: skip
    finish(start_two("-opt", option_file))
    state, opt = read_state(), preparation.prepare_options(read_options(option_file))
    assert state["iter"] == 2
    preparation.take_sizes_from_network(opt)
    dataset = preparation.check_data(opt, None)["train"]
    averages = []
    for rank in (0, 1):
        network = build_model(option_file).network
        network.load_state_dict(state["network"])  # whose weights have not moved
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
        sampler = ResumableSampler(dataset, 2, rank, seed=1)
        sampler.set_epoch(0)
        visits = list(sampler)
        for batch in (visits[:7], visits[7:]):
            network(torch.cat([dataset[visit]["img"] for visit in batch]))
        averages.append(
            {name: value for name, value in network.state_dict().items() if "running" in name}
        )
    assert averages[0]
    for name, value in averages[0].items():
        torch.testing.assert_close(state["network"][name], value)
    assert any(not torch.allclose(averages[1][name], value) for name, value in averages[0].items())
    chosen = build_lifeiqa(pretrained_model_path=FOLDER / "models/net_best.safetensors")
    val = LifeIQADataset(dict(read_options(option_file)["datasets"]["val"]) | {"phase": "val"})
    best = {
        metric: result["val"]
        for metric, result in state["best_metric_results"]["noise-val"].items()
    }
    expected = evaluate(chosen, val.images)
    assert best == pytest.approx({metric: expected[metric] for metric in best}, abs=1e-6)

"""Every script from its command line on tiny input, so that none can rot."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pyiqa.models.general_iqa_model import GeneralIQAModel

from lifeiqa_plugin import allocator
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.page import embed
from lifeiqa_plugin.pyiqa_compat import forgetful_logger
from lifeiqa_plugin.runtimes.exported import BUNDLED_ONNX

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMPORTED = {
    "claims_models",
    "claims_page",
    "training_images",
    "measuring",
    "outcomes",
    "fuzzing",
    "faults",
    "bad_inputs",
}


@pytest.fixture
def float32(monkeypatch):
    """For scripts that compute in bfloat16, which takes CPUs without instructions for it 15 times as long."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)


def test_every_script_is_named_by_a_test():
    folders = [ROOT / name for name in ("measurements", "tools", "examples")]
    scripts = {path.stem for folder in folders for path in folder.glob("*.py")} - IMPORTED
    assert len(scripts) > 15
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    named = set(re.findall(r"\b(\w+)\.py\b|\"(\w+)\"", "\n".join(texts)))
    assert scripts - {name for pair in named for name in pair} == set()


def test_readme_figures(run_main, load, monkeypatch, dataset, tmp_path):
    """With a browser that only takes the photo of a page that is there."""
    script = load("readme_figures")

    def photograph(command, **_):
        assert command[-1].startswith("file://")
        assert Path(command[-1].removeprefix("file://")).is_file()
        picture = next(word for word in command if word.startswith("--screenshot="))
        Image.new("RGB", (1280, 860)).save(picture.partition("=")[2])

    monkeypatch.setattr(script.shutil, "which", lambda name: name)
    monkeypatch.setattr(script.subprocess, "run", photograph)
    run_main("readme_figures", "--photos", dataset, "--photo", "30.png", "--out", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.png", "explanation.png"}
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no Chromium on this machine"):
        run_main("readme_figures", "--out", tmp_path)


def test_draw_model(run_main, tmp_path):
    run_main("draw_model", tmp_path / "model.svg")
    assert (tmp_path / "model.svg").read_text().count("crops") >= 1


def test_calibration(run_main, dataset, checkpoint, tmp_path):
    arguments = (dataset / "meta.csv", dataset, "--checkpoint", checkpoint, "--figures", tmp_path)
    printed = run_main("calibration", *arguments)
    assert "; 12 test images" in printed
    assert re.search(r"errors within 1 std: \d+\.\d%, within 2: \d+\.\d%", printed)
    assert len(re.findall(r"^\| \d+ +\|", printed, re.MULTILINE)) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.png", "uncertainty.png"}


def test_decoder_share(run_main):
    arguments = ("--rounds", 2, "--batch", 1, "--backbone", "test_convnext")
    printed = run_main("decoder_share", *arguments)
    assert "test_convnext, batch 1, 2 rounds in turn" in printed
    assert re.search(r"\| released +\| .* \| +\d+\.\d\d % +\|", printed)


def test_ladders(run_main, dataset, checkpoint, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "30.png").symlink_to(dataset / "30.png")
    figures = ("--figure", tmp_path / "scores.png", "--failures", tmp_path / "failures.png")
    printed = run_main("ladders", photos, "--side", 40, "--checkpoint", checkpoint, *figures)
    assert "; 1 photos, seed 0" in printed
    assert len(re.findall(r"\| \d of 1 +\|", printed)) == 16
    assert printed.count("**all ") == 2
    assert (tmp_path / "scores.png").is_file()
    assert (tmp_path / "failures.png").is_file()


def test_naming(run_main, dataset, checkpoint, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "30.png").symlink_to(dataset / "30.png")
    with pytest.raises(SystemExit, match="this model names no distortions"):
        run_main("naming", photos, "--checkpoint", checkpoint)
    network = LifeIQA(**read_checkpoint(checkpoint).config | {"distortions": ["noise", "blocking"]})
    torch.nn.init.zeros_(network.decoder.distortion_head.weight)
    network.decoder.distortion_head.bias.data = torch.tensor([2.0, -2.0])  # all is noise
    save_checkpoint(network, tmp_path / "names.safetensors", ModelCard("nothing", "none"))
    named = ("--side", 40, "--checkpoint", tmp_path / "names.safetensors")
    printed = run_main("naming", photos, *named)
    assert "; 1 photos, seed 0" in printed
    assert re.search(r"^\| noise +\| 0\.500 +\| 100% +\| +\|", printed, re.MULTILINE)
    assert re.search(r"^\| blocking +\| 0\.500 +\| 0% +\| noise 1 +\|", printed, re.MULTILINE)
    assert (
        "named right at 0.25, 0.5, 0.75: 75.0%, 75.0%, 75.0%" in printed
    )  # three generators of noise, one of blocking
    assert "largest strength on clean photos: median 0.88, 90 % below 0.88" in printed


def test_train_naming(run_main, load, dataset, checkpoint, tmp_path):
    """Scores stay as they are, and what it learnt from is learnt again from the same file."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("30.png", "31.png"):
        (photos / name).symlink_to(dataset / name)
    out = tmp_path / "named.safetensors"
    printed = run_main("train_naming", checkpoint, photos, "-o", out, "--steps", 200)
    assert "head trained on 42 images" in printed
    before, after = (build_lifeiqa(pretrained_model_path=path) for path in (checkpoint, out))
    x = torch.rand(1, 3, 48, 60)
    torch.testing.assert_close(
        after(x), before(x), atol=2e-3, rtol=0
    )  # this one was not of half precision before
    assert after.distortion_names == tuple(KINDS)
    script = load("train_naming")
    learnt = script.Seen(*torch.load(tmp_path / "named.statistics.pt"))
    logits = after.decoder.distortion_head(learnt.statistics)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, learnt.targets)
    assert loss < 0.25  # 0.69 for a new head


def test_scale(run_main, checkpoint, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.fromarray(pixels[:50, :50]).save(tmp_path / "small.png")
    printed = run_main("scale", tmp_path, "--megapixels", 1, "--checkpoint", checkpoint)
    assert "large.png: 1.1 megapixels" in printed
    assert "; 1 photos" in printed
    with pytest.raises(SystemExit, match=r"no image of 2\.0 megapixels or more"):
        run_main("scale", tmp_path, "--checkpoint", checkpoint)


def test_startup(run_main):
    printed = run_main("startup", "--runs", 2)
    assert "2 starts of each, in turn" in printed
    assert re.search(r"^added +-?\d+\.\d\d ms \(quartiles", printed, re.MULTILINE)


def test_scoring_memory(run_main):
    pytest.importorskip("onnxruntime")
    printed = run_main("scoring_memory", "--images", 64, "--interval", 0.05)
    assert "; 64 images, 1 workers, " in printed
    assert "64 images, 64 scored, 0 failed" in printed
    assert re.search(r"\| 0 to 6 +\| \d+\.\d +\| \d+\.\d +\|", printed)


@pytest.mark.slow
def test_scoring_speed(run_main, load, monkeypatch, dataset):
    pytest.importorskip("onnxruntime")
    script = load("scoring_speed")
    monkeypatch.setattr(script, "MIX", ((300, 200), (600, 400)))
    monkeypatch.setattr(script, "LARGE", ((900, 700),))
    monkeypatch.setattr(script, "HUGE", (1200, 800))
    given = ["--baseline", script.ROOT, "--rounds", 1, "--engines", "onnxruntime"]
    printed = run_main("scoring_speed", dataset, *given)
    for way in ("metric(path), baseline", "score --exact, onnxruntime", "score --fast"):
        assert len(re.findall(rf"^\| {re.escape(way)} +\| \d", printed, re.MULTILINE)) == 2
    assert re.search(r"^\| 100 megapixels, --exact \| \d", printed, re.MULTILINE)


def test_scaling(run_main, dataset):
    printed = run_main("scaling", dataset, "--rounds", 1)
    assert "; 36 images, 1 rounds in turn" in printed
    assert re.search(r"\| 1 processes +\| -?\d+\.\d +\| 1\.00 +\|", printed)
    assert re.search(r"\| bare network +\| \d+\.\d +\|", printed)
    assert re.search(r"\| 1 process and 1 that decodes +\|", printed)


def test_scoring_agreement(run_main, dataset, tmp_path):
    pytest.importorskip("onnxruntime")
    noise = Image.effect_noise((2300, 2240), 60)
    noise.save(tmp_path / "large.jpg", quality=60)
    noise.point(lambda level: level // 2).save(tmp_path / "dark.jpg", quality=60)
    noise.resize((40, 30)).save(tmp_path / "small.jpg")
    data = f"{dataset / 'meta.csv'}@{dataset}"
    printed = run_main("scoring_agreement", "--photos", tmp_path, "-d", data)
    assert "2 of 3 photos are halved" in printed
    assert len(re.findall(r"\| (?:default|fast) +\| \d\.\d{4} +\|", printed)) == 2
    assert re.search(r"\| meta, 36 +\| -?\d\.\d{4} +\| -?\d\.\d{4} +\| [+-]\d", printed)


def test_verdicts(run_main, load, dataset, monkeypatch, tmp_path):
    """Of scores that are the opinions of people, and of their opposite."""
    script, out = load("verdicts"), tmp_path / "scores"
    names = [f"{i:02d}.png" for i in range(36)]
    for metric, sign in (("lifeiqa", 1), ("lifeiqa-biq2021", -1)):
        (out / metric).mkdir(parents=True)
        lines = [f"{name},{(i if sign > 0 else 35 - i) / 36:.3f}," for i, name in enumerate(names)]
        (out / metric / "meta.csv").write_text("\n".join(["name,score,error", *lines, ""]))
    results = tmp_path / "results.csv"
    results.write_text("id,what,value,command,commit,weights_sha256,condition\nmine,1,2,3,4,5,6\n")
    monkeypatch.setattr(script, "RESULTS", results)
    monkeypatch.setitem(script.read_results.__globals__, "RESULTS", results)
    monkeypatch.setattr(script.subprocess, "check_output", lambda *_, **__: "abcdef0\n")
    data = f"{dataset / 'meta.csv'}@{dataset}"
    printed = run_main("verdicts", tmp_path, "-d", data, "--results")
    assert printed.count(": 36 images") == 2
    with results.open(newline="") as file:
        values = {row["id"]: row["value"] for row in csv.DictReader(file)}
    assert len(values) == 9
    assert values["mine"] == "2"
    assert values["default_meta_dropped_better_half"] == "0.0 %"
    assert values["default_meta_dropped_worst_third"] == "91.7 %"
    assert values["biqonly_meta_dropped_better_half"] == "61.1 %"
    assert values["biqonly_meta_kept_worst_third"] == "100.0 %"
    with pytest.raises(SystemExit, match="--results is for what ships: lifeiqa, lifeiqa-biq2021"):
        run_main("verdicts", tmp_path, "-d", data, "--results", "-m", "other")
    with pytest.raises(SystemExit, match=r"other.meta\.csv: 36 of 36 images have no score; run"):
        run_main("verdicts", tmp_path, "-d", data, "-m", "other")


def test_training(run_main, load, monkeypatch, tmp_path):
    """In this process instead of three."""
    script = load("training")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)
    step = GeneralIQAModel.optimize_parameters

    def run_here(command, cwd, env, **_):
        with monkeypatch.context() as patch, redirect_stdout(StringIO()) as out, forgetful_logger():
            patch.chdir(cwd)
            patch.setenv("OMP_NUM_THREADS", env["OMP_NUM_THREADS"])
            patch.setattr(sys, "argv", command[1:])
            patch.setattr(GeneralIQAModel, "optimize_parameters", step)  # the script replaces it
            script.main()
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(script.subprocess, "run", run_here)
    arguments = ("--images", 6, "--iterations", 3, "--batch", 2, "--threads", 1)
    lines = [json.loads(line) for line in run_main("training", *arguments).splitlines()]
    assert [line["case"] for line in lines] == ["lifeiqa", "lifeiqa, default allocator", "stock"]
    for line in lines:
        assert line["crops_per_s"] > 0
        assert line["peak_MiB"] > 100


def test_claims(run_main, load, monkeypatch, float32, dataset, tmp_path):
    """One backbone, two steps of everything; a second call finds all done."""
    start, script = load("imagenet_start"), load("claims")
    monkeypatch.setattr(start, "read_imagenet", lambda size: {})
    monkeypatch.setattr(start, "load_imagenet", lambda backbone, weights: None)
    monkeypatch.setattr(script, "BACKBONES", script.BACKBONES[:1])
    monkeypatch.setattr(script, "STAGES", ("3", "34"))
    monkeypatch.setattr(script, "SHARES", (0.5, 1.0))
    models = load("claims_models").MODELS
    for name in set(models) - {script.LINEAR, script.VANILLA, script.NO_MOE, script.COMPLETE}:
        monkeypatch.delitem(models, name)
    short = script.Schedule(2, 4)
    monkeypatch.setattr(script, "SCHEDULES", {script.BIQ2021: short, script.LIVEC: short})
    monkeypatch.setattr(script, "UPPER", short)
    meta = tmp_path / "meta.csv"
    rows = (dataset / "meta.csv").read_text().splitlines()[1:]
    more = ("ss01,A,older,val", "ss03,B,newer,test", "ss02,A,newer,val", "ss03,A,newer,val")
    lines = [f"{row},{more[i % 4]}" for i, row in enumerate(rows)]
    header = "name,mos,official_split,subset,half,generation,ratio712_seed123_split_01"
    meta.write_text("\n".join([header, *lines]) + "\n")
    given = [
        part for name in ("biq2021", "livec", "agiqa3k") for part in (f"--{name}", meta, dataset)
    ]
    given += ["--more", "more", meta, dataset, "--size", 64, "--seeds", 1, "--figures", tmp_path]
    given += ["--work", tmp_path / "work", "--results", tmp_path / "claims.csv"]
    printed = run_main("claims", *given)
    results = (tmp_path / "claims.csv").read_text()
    runs = {tuple(line.split(",")[:5]) for line in results.splitlines()[1:]}
    assert len(runs) == 3 * 4 + 2 * 2 + 4 + 3 + 2 * 2 + 3 * 2
    tests = {(line.split(",")[0], line.split(",")[5]) for line in results.splitlines()[1:]}
    assert {claim for claim, test in tests if test == "biq2021-train"} == {"rates"}
    assert ("parts", "agiqa-val-newer") in tests
    for title in ("rates of learning", "stages", "parts", "upper half", "data", "trained on"):
        assert f"\n{title}" in printed
    assert re.search(r"\| complete +\| [-+.\d]+ +\|", printed)
    assert len(list(tmp_path.glob("claims_*.svg"))) == 3
    monkeypatch.setattr(script, "fit", None)
    assert run_main("claims", *given).count("| complete ") == printed.count("| complete ")
    assert (tmp_path / "claims.csv").read_text() == results


def test_imagenet_start(run_main, load, monkeypatch, tmp_path):
    script = load("imagenet_start")
    backbone = timm.create_model(script.BACKBONE, features_only=True, out_indices=(-2, -1))
    monkeypatch.setattr(script, "read_imagenet", lambda size: {"size": size})
    monkeypatch.setattr(
        script, "load_imagenet", lambda to, weights: to.load_state_dict(backbone.state_dict())
    )
    out = tmp_path / "start.safetensors"
    run_main("imagenet_start", out, "--seed", 3)
    written = read_checkpoint(out)
    assert written.card.training_data == "ImageNet (backbone only)"
    stem = written.state_dict["backbone.conv_stem.weight"]
    assert stem.equal(backbone.state_dict()["conv_stem.weight"])


def test_release(run_main, checkpoint, tmp_path):
    out = tmp_path / "half.safetensors"
    printed = run_main("release", checkpoint, out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert printed.startswith(f"sha256 {digest}, ")
    assert read_checkpoint(out).card.training_data == "nothing"
    assert out.stat().st_size < checkpoint.stat().st_size
    Path(tmp_path / "bare.pth").write_bytes(b"")
    with pytest.raises((SystemExit, ValueError), match=r"bare\.pth"):
        run_main("release", tmp_path / "bare.pth", out)


def test_score_with_onnxruntime(run_main):
    pytest.importorskip("onnxruntime")
    photos = sorted((ROOT / "examples" / "photos").glob("chelsea_[03]*.jpg"))
    lines = run_main("score_with_onnxruntime", BUNDLED_ONNX, *photos).splitlines()
    assert [Path(line.split()[-1]) for line in lines] == photos
    better, worse = (float(line.split()[0]) for line in lines)
    assert worse < better - 0.1


@pytest.fixture
def short_recipe(load, monkeypatch, float32, dataset, tmp_path):
    """Images of one shape, two steps a stage; options of all stages, those of the datasets, and the clean folder."""
    script, images = load("train_models"), load("training_images")
    for recipe in ("DECODER_ALONE", "BIQ2021", "DEFAULT", "KINDS_ALONE"):
        monkeypatch.setattr(script, recipe, getattr(script, recipe)._replace(steps=2))
    monkeypatch.setattr(images, "SHAPES", {(64, 64): 1})
    batches = images.Batches
    monkeypatch.setattr(script, "Batches", lambda *a: batches(*a[:4], min(a[4], 2), a[5]))
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    network = LifeIQA("tf_efficientnet_lite2", **load("imagenet_start").DECODER)
    save_checkpoint(network, start, ModelCard("nothing", "none"))
    meta = tmp_path / "meta.csv"
    rows = (dataset / "meta.csv").read_text().splitlines()[1:]
    lines = [
        f"{name},{mos},ss0{1 + 2 * (i % 2)},train"
        for i, (name, mos, _) in enumerate(r.split(",") for r in rows)
    ]
    meta.write_text("\n".join(["name,mos,group,part", *lines]) + "\n")
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / "35.png").symlink_to(dataset / "35.png")
    common = ("--first", start, "--imagenet", start, "--pool", tmp_path / "pool")
    datasets = [part for name in ("--biq", "--livec", "--agiqa") for part in (name, meta, dataset)]
    return common, datasets, clean


def test_train_models(run_main, short_recipe, tmp_path):
    """All stages on 36 images."""
    common, datasets, clean = short_recipe
    run_main("train_models", "pool", *common, *datasets, "--clean", clean)
    first, second = tmp_path / "biq2021.pt", tmp_path / "default.pt"
    run_main("train_models", "biq2021", *common, "--out", first)
    run_main("train_models", "default", *common, "--start", first, "--out", second)
    before, after = (torch.load(path) for path in (first, second))
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"backbone", "decoder"}


def test_reference_pairs(run_main, load, monkeypatch, short_recipe, tmp_path):
    """Both models change by shares of the same."""
    common, datasets, clean = short_recipe
    script = load("reference_pairs")
    monkeypatch.setattr(script, "SHAPES", {(64, 64): 1})
    monkeypatch.setattr(script, "PER_FILE", 4)
    monkeypatch.setattr(script, "FILES", 2)
    monkeypatch.setattr(script, "RECIPE", script.RECIPE._replace(steps=2))
    monkeypatch.setattr(script, "OTHER_SHARE", 1.4)
    run_main("train_models", "pool", *common, *datasets, "--clean", clean)
    pool = ("--pool", tmp_path / "pool")
    run_main("reference_pairs", "pool", *datasets[:3], "--clean", clean, *pool)
    pairs = script.open_pairs(tmp_path / "pool" / "pairs")
    assert (
        torch.cat([file["percentiles"] for file in pairs.files]).sort(0).values[-1].tolist()
        == [1.0] * 5
    )
    start = build_lifeiqa(pretrained="biq2021")
    for name in ("one", "two"):
        save_checkpoint(start, tmp_path / f"{name}.safetensors", ModelCard("nothing", "none"))
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    out = tmp_path / "out"
    run_main("reference_pairs", "train", one, "--also", two, "--out", out, *pool)
    before = read_checkpoint(one).state_dict
    half, whole = (read_checkpoint(out / path.name).state_dict for path in (one, two))
    name = "decoder.context.weight"
    change = half[name] - before[name]
    assert change.abs().max() > 0
    torch.testing.assert_close(whole[name] - before[name], 2 * change, atol=1e-4, rtol=0)
    head = "decoder.distortion_head.0.weight"
    assert torch.equal(half[head], before[head])


def test_pairs_loss(load):
    """Only where both metrics agree: the third image is better than the second for one of them."""
    script = load("reference_pairs")
    percentiles = torch.tensor([[1.0, 1.0], [0.5, 0.25], [0.25, 0.5]])
    score = torch.tensor([0.5, 0.4, 0.6])
    # two pairs, each .625 apart on average and wanted .25 apart in score; they are .1 and -.1
    torch.testing.assert_close(
        script.pairs_loss(score, percentiles), torch.tensor((0.15 + 0.35) / 2)
    )


def test_report_page(run_main, browser, tmp_path):
    select = '<select id="sort"><option value="a">worst first</option></select>'
    page = tmp_path / "report.html"
    page.write_text(
        embed(
            f"{select}<script>const byId = id => document.getElementById(id);</script>", {}, "page"
        )
    )
    printed = run_main("report_page", page, "--rounds", 1)
    assert "report.html: 0.0 MB, 1 rounds" in printed
    assert re.search(r"^first paint: \d+\.\d\d s, at most", printed, re.MULTILINE)
    assert re.search(r"^sort, worst first: \d+\.\d\d s", printed, re.MULTILINE)

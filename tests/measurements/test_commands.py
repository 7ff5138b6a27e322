"""Every script from its command line on tiny input, so that none can rot."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import lifeiqa_plugin
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.distortions.kinds import KINDS
from lifeiqa_plugin.images.reading import read_image
from lifeiqa_plugin.network.detail import DetailRule
from lifeiqa_plugin.network.lifeiqa import LifeIQA
from lifeiqa_plugin.runtimes import EngineOutput

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
IMPORTED = {
    "training_images",
    "measuring",
    "write_option",
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
    script, photos, out = load("readme_figures"), tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    out.mkdir()
    for name in ("30.png", "31.png"):
        (photos / name).symlink_to(dataset / name)

    def photograph(command, **_):
        assert command[-1].startswith("file://")
        assert Path(command[-1].removeprefix("file://")).is_file()
        picture = next(word for word in command if word.startswith("--screenshot="))
        Image.new("RGB", (1280, 860)).save(picture.partition("=")[2])

    monkeypatch.setattr(script.shutil, "which", lambda name: name)
    monkeypatch.setattr(script.subprocess, "run", photograph)
    run_main("readme_figures", "--photos", photos, "--photo", "30.png", "--out", out)
    assert {path.name for path in out.iterdir()} == {"report.png", "explanation.png"}
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no Chromium on this machine"):
        run_main("readme_figures", "--out", out)


def test_draw_model(run_main, tmp_path):
    run_main("draw_model", tmp_path / "model.svg")
    assert (tmp_path / "model.svg").read_text().count("crops") >= 1


def test_calibration(run_main, tmp_path):
    """Scores that are .1 too high or too low, as ``std`` says of every second one."""
    lines = [f"{i / 10},{i / 10 + (-1) ** i / 10:.1f},{0.11 if i % 2 else 0.051}" for i in range(8)]
    (tmp_path / "scores.csv").write_text("\n".join(["mos,score,std", *lines, ""]))
    printed = run_main("calibration", tmp_path / "scores.csv")
    assert printed.startswith("8 images: opinion = ")
    assert "score - opinion: mean +0.0000, RMSE 0.1000\n" in printed
    assert "errors within 1 std: 50.0%, within 2: 100.0%" in printed


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


def test_choose_cuts(run_main, load, checkpoint, tmp_path):
    """Of 90 photos the worst third is blurred by .3 to .6, and the best hardly; noise is everywhere alike."""
    rows, mos = ["path,score,distortion.blur,distortion.noise"], ["name,mos"]
    for i in range(90):
        blur = 0.3 + i / 100 if i < 30 else 0.04 if i < 60 else 0.001
        rows.append(f"photos/{i}.jpg,{i / 90:.3f},{blur},{0.15 + i % 3 / 100}")
        mos.append(f"{i}.jpg,{i / 90}")
    scores, opinions = tmp_path / "scores.csv", tmp_path / "opinions.csv"
    scores.write_text("\n".join(rows))
    opinions.write_text("\n".join(mos))
    copy = tmp_path / "tiny.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    printed = run_main("choose_cuts", scores, opinions, "--write", copy)
    assert re.search(r"^any blur +likely 0\.300  sure 0\.4\d\d", printed, re.MULTILINE)
    assert re.search(r"^noise +likely 0\.300  sure 0\.500", printed, re.MULTILINE)  # by hand
    before, after = read_checkpoint(checkpoint), read_checkpoint(copy)
    assert all(torch.equal(after.state_dict[key], one) for key, one in before.state_dict.items())
    shares = after.config["naming"]["any blur"]["shares"]
    assert shares == sorted(shares)
    assert (shares[0][1], shares[-1][1]) == (0, 1)
    assert build_lifeiqa(pretrained_model_path=copy).naming == after.config["naming"]
    opinions.write_text("name,mos\nother.jpg,1\n")
    with pytest.raises(SystemExit, match=r"opinions\.csv: none of its names has a score"):
        run_main("choose_cuts", scores, opinions)


def test_scoring_agreement(run_main, dataset, tmp_path):
    noise = Image.effect_noise((2300, 2240), 60)
    noise.save(tmp_path / "large.jpg", quality=60)
    noise.point(lambda level: level // 2).save(tmp_path / "dark.jpg", quality=60)
    noise.resize((40, 30)).save(tmp_path / "small.jpg")
    data = f"{dataset / 'meta.csv'}@{dataset}"
    printed = run_main("scoring_agreement", "--photos", tmp_path, "-d", data)
    assert printed.count("| 2 of 3 ") == 2
    assert len(re.findall(r"\| (?:default|fast) +\| \d\.\d{4} +\|", printed)) == 2
    assert re.search(r"\| meta, 36 +\| -?\d\.\d{4} +\| -?\d\.\d{4} +\| [+-]\d", printed)


def test_verdicts(run_main, load, dataset, tmp_path):
    """Of scores that are the MOS, and of their opposite."""
    script, out = load("verdicts"), tmp_path / "scores"
    names, mos = [f"{i:02d}.png" for i in range(36)], np.arange(36) / 36
    for metric, scores in (("lifeiqa", mos), ("lifeiqa-biq2021", mos[::-1])):
        (out / metric).mkdir(parents=True)
        lines = [f"{name},{score:.3f}," for name, score in zip(names, scores, strict=True)]
        (out / metric / "meta.csv").write_text("\n".join(["name,score,error", *lines, ""]))
    data = f"{dataset / 'meta.csv'}@{dataset}"
    printed = run_main("verdicts", tmp_path, "-d", data)
    assert printed.count(": 36 images") == 2
    right, wrong = script.costs(mos, mos), script.costs(mos[::-1], mos)
    assert right["dropped better half"] == 0
    assert right["dropped worst third"] == pytest.approx(11 / 12)
    assert wrong["dropped better half"] == pytest.approx(11 / 18)
    assert wrong["kept worst third"] == 1
    with pytest.raises(SystemExit, match=r"other.meta\.csv: 36 of 36 images have no score; run"):
        run_main("verdicts", tmp_path, "-d", data, "-m", "other")


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


@pytest.fixture
def short_recipe(load, monkeypatch, float32, dataset, tmp_path):
    """Images of one shape, two steps a stage; options of all stages, those of the datasets, and the clean folder."""
    script, images = load("train_models"), load("training_images")
    for recipe in ("DECODER_ALONE", "BIQ2021", "KINDS_ALONE"):
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
    meta.write_text("\n".join(["name,mos,subset,bundled_split", *lines]) + "\n")
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / "35.png").symlink_to(dataset / "35.png")
    common = ("--first", start, "--imagenet", start, "--pool", tmp_path / "pool")
    return common, ["--biq", meta, dataset], clean


def fill_pool(run_main, recipe):
    """Make both parts of the pool."""
    common, datasets, clean = recipe
    run_main("train_models", "biq", *common, *datasets, "--out", common[-1] / "biq")
    run_main("train_models", "levels", *common, "--clean", clean, "--out", common[-1] / "levels")


def test_train_models(run_main, short_recipe, monkeypatch, tmp_path):
    """All stages on 36 images; of three seeds the two that agree with people are averaged."""
    common, (_, meta, folder), _ = short_recipe
    fill_pool(run_main, short_recipe)
    seeds, out = tmp_path / "seeds", tmp_path / "trained.safetensors"
    seeds.mkdir()
    for seed in (1, 2, 3):
        run_main(
            "train_models", "train", *common, "--seed", seed, "--out", seeds / f"{seed}.safetensors"
        )
    scores = {1: [0.1, 0.2, 0.3], 2: [0.3, 0.2, 0.1], 3: [0.1, 0.3, 0.2]}
    monkeypatch.setattr(
        lifeiqa_plugin,
        "score",
        lambda paths, model, exact: [SimpleNamespace(score=s) for s in scores[int(model.stem)]],
    )
    half = tmp_path / "livec.csv"
    names = [line.split(",")[0] for line in meta.read_text().splitlines()[1:5]]
    rows = [f"{name},{i / 10},{'B' if i == 3 else 'A'}" for i, name in enumerate(names)]
    half.write_text("\n".join(["name,mos,half", *rows]) + "\n")
    run_main("train_models", "average", *common, "--seeds", seeds, "--livec", half, folder, "--out", out)  # fmt: skip
    before, after = read_checkpoint(common[1]).state_dict, read_checkpoint(out).state_dict
    first, third = (read_checkpoint(seeds / f"{seed}.safetensors").state_dict for seed in (1, 3))
    name = "backbone.blocks.6.0.conv_pw.weight"
    torch.testing.assert_close(after[name], (first[name] + third[name]) / 2)
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "decoder"}
    assert not any(name.startswith("backbone.blocks.2.") for name in moved)


def test_fit_readouts(run_main, load, monkeypatch, dataset, tmp_path):
    """From images to two checkpoints, whose networks score as the fit says."""
    script = load("fit_readouts")
    monkeypatch.setattr(script, "IN_VIEWS", 4)
    monkeypatch.setattr(script, "DISTORTED", 2)
    names = sorted(path.name for path in dataset.glob("*.png"))
    rows = [
        f"{name},{i / len(names)},ss0{1 + 2 * (i % 2)},{'AB'[i % 2]},{'val' if i % 5 == 0 else 'train'}"
        for i, name in enumerate(names)
    ]
    meta = tmp_path / "meta.csv"
    meta.write_text("\n".join(["name,mos,subset,half,bundled_split", *rows]) + "\n")
    torch.manual_seed(0)
    start, folder = tmp_path / "start.safetensors", ("--folder", tmp_path / "seen")
    options = load("imagenet_start").DECODER | {"whole_image": True, "working_size": 224}
    network = LifeIQA(
        "tf_efficientnet_lite2", **options, distortions=["blur"], distortions_from="stages"
    )
    save_checkpoint(network, start, ModelCard("nothing", "none"), half=True)
    sets = [part for name in ("--biq", "--livec", "--agiqa") for part in (name, meta, dataset)]
    for name in script.SETS:
        file = tmp_path / "seen" / f"{name}.pt"
        run_main("fit_readouts", "look", name, *sets, "--start", start, "--out", file)
    printed = run_main("fit_readouts", "check", *folder)
    assert re.search(r"lifeiqa, LIVE Challenge, ten folds: SRCC -?0\.\d{4} \(.+, PLCC", printed)
    seen = script.open_sets(tmp_path / "seen")
    assert len(seen["biq_views"].mos) == 4
    assert set(seen["livec"].x) == {"", *script.VIEWS}
    for model, count in (("lifeiqa", 2), ("lifeiqa-biq2021", 1)):
        out = tmp_path / f"{model}.safetensors"
        run_main("fit_readouts", "write", model, "--start", start, "--out", out, *folder)
        written = build_lifeiqa(pretrained_model_path=out).eval()
        assert written.config["readouts"] == count
        wanted = script.FITS[model](seen).scores(seen["livec"])
        with torch.no_grad():
            found = [written(read_image(dataset / name)[None]).item() for name in names]
        assert found == pytest.approx(wanted.tolist(), abs=1e-3)


def test_reference_pairs(run_main, load, monkeypatch, short_recipe, tmp_path):
    """The share decides how much of the change is taken on."""
    clean = short_recipe[2]
    script = load("reference_pairs")
    monkeypatch.setattr(script, "SHAPES", {(64, 64): 1})
    monkeypatch.setattr(script, "PER_FILE", 4)
    monkeypatch.setattr(script, "FILES", 2)
    monkeypatch.setattr(script, "RECIPE", script.RECIPE._replace(steps=2))
    fill_pool(run_main, short_recipe)
    for number in range(3):
        (clean / f"{number}.png").symlink_to(clean / "35.png")
    start = build_lifeiqa(pretrained="biq2021")
    path, changed = tmp_path / "before.safetensors", []
    save_checkpoint(start, path, ModelCard("nothing", "none"))
    pool = ("--pool", tmp_path / "pool", "--pairs", tmp_path / "pairs")
    run_main("reference_pairs", "pool", path, "--clean", clean, *pool)
    pairs = script.open_pairs(tmp_path / "pairs")
    assert (
        torch.cat([file["percentiles"] for file in pairs.files]).sort(0).values[-1].tolist()
        == [1.0] * 5
    )
    before = read_checkpoint(path).state_dict
    for share in (0.5, 1.0):
        monkeypatch.setattr(script, "SHARE", share)
        out = tmp_path / f"{share}.safetensors"
        run_main("reference_pairs", "train", path, "--out", out, *pool)
        changed.append(read_checkpoint(out).state_dict)
    half, whole = changed
    name = "decoder.context.weight"
    change = half[name] - before[name]
    assert change.abs().max() > 0
    torch.testing.assert_close(whole[name] - before[name], 2 * change, atol=1e-4, rtol=0)
    head = "decoder.distortion_head.0.weight"
    assert torch.equal(half[head], before[head])


def test_make_models(run_main, load, dataset, monkeypatch, tmp_path):
    """Each stage runs a script that is there, once, and leaves what the next ones read."""
    script, ran = load("make_models"), []

    def run(command, cwd, env, check):
        program = Path(command[1])
        assert program.is_file() or str(program) in ("-m", "-c")
        assert all((cwd / word).exists() for word in command[3:] if word in names)
        ran.append(program.name)
        for word in command:
            if Path(word).name.startswith("part."):
                (cwd / word).touch()

    monkeypatch.setattr(script.subprocess, "run", run)
    meta = tmp_path / "meta.csv"
    meta.write_text("name,mos,subset,bundled_split\n0.png,0.5,ss03,train\n1.png,0.6,ss03,val\n")
    args = SimpleNamespace(
        large=dataset, **dict.fromkeys(("biq", "livec", "agiqa"), (meta, dataset))
    )
    names = [name for stages in script.stages_of(args) for name in stages]
    sets = [word for name in ("biq", "livec", "agiqa") for word in (f"--{name}", meta, dataset)]
    state = tmp_path / "state"
    run_main("make_models", state, *sets, "--large", dataset)
    assert (state / "lifeiqa.safetensors").exists()
    assert (state / "clean" / "0.png").resolve() == dataset / "0.png"
    assert (state / "rated.txt").read_text() == f"{dataset}/1.png\n{dataset}/0.png"
    assert len((state / "times.txt").read_text().splitlines()) == len(names)
    count = len(ran)
    run_main("make_models", state, *sets, "--large", dataset)
    assert len(ran) == count


def test_pairs_loss(load):
    """Only where both metrics agree: the third image is better than the second for one of them."""
    script = load("reference_pairs")
    percentiles = torch.tensor([[1.0, 1.0], [0.5, 0.25], [0.25, 0.5]])
    score = torch.tensor([0.5, 0.4, 0.6])
    # two pairs, each .625 apart on average and wanted .25 apart in score; they are .1 and -.1
    torch.testing.assert_close(
        script.pairs_loss(score, percentiles), torch.tensor((0.15 + 0.35) / 2)
    )


class Sharpness:
    """An engine that finds blur where neighboring pixels are alike."""

    names = ("blur", "motion blur", "upscaled", "blocking", "ringing", "noise")
    detail = DetailRule(0.1, {"score": -0.05, "blur": 0.02})

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        return (16, 16 * width // height) if height < width else (16 * height // width, 16)

    def score(self, batch: np.ndarray) -> EngineOutput:
        sharp = np.clip(4 * np.abs(np.diff(batch, axis=3)).mean((1, 2, 3)), 0.02, 0.98)
        distortions = np.full((len(batch), len(self.names)), 0.01)
        distortions[:, 0] = 1 - sharp
        return EngineOutput(batch.mean((1, 2, 3)), np.zeros(len(batch)), distortions)


def test_fit_detail(run_main, load, monkeypatch, tmp_path):
    script = load("fit_detail")
    monkeypatch.setattr(script, "create_engine", lambda **_: Sharpness())
    monkeypatch.setattr(script, "DISTORTED", 0)
    for seed in range(10):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
        photo = Image.fromarray(pixels).resize((80, 60), Image.Resampling.NEAREST)
        photo.save(tmp_path / f"{seed}.png")
    printed = run_main("fit_detail", tmp_path).splitlines()
    assert printed[0].startswith("10 untouched: SRCC old and new ")
    medians = re.findall(r"blur of 3 pixels: 10, median ([\d.]+), ", "\n".join(printed))
    assert all(float(median) > 0.05 for median in medians)
    assert len(medians) == 2  # cross-validated, and by the model's own rule
    option = json.loads(printed[-1])
    assert option["blur"] > 0
    assert set(option) <= {"offset", "score", *Sharpness.names}


def test_links_of_site_pages(load):
    pytest.importorskip("mkdocs")
    script = load("site_pages")
    text = "[a](../README.md#use) [b](../options/train) [c](scoring.md)"
    assert script.on_page_markdown(text) == "[a](index.md#use) b [c](scoring.md)"

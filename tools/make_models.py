"""Make both bundled models from ImageNet's weights and the data.

    python tools/make_models.py STATE --biq CSV FOLDER --livec CSV FOLDER --agiqa CSV FOLDER --large FOLDER

The csv files are those of ``lifeiqa prepare``. ``--large`` is a folder of photos as cameras write them; the nearer look
learns from it. Each stage leaves a file or a folder in STATE, and is left out where that is there, so a run that was
stopped goes on. Stages that need nothing of each other run side by side, with one thread each. ``times.txt`` keeps how
long each stage took. A stage is a script of this folder; its head says more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd
from fit_readouts import SETS
from training_images import read_rows

TOOLS = Path(__file__).resolve().parent
CLEAN = 400
"""Of the best photos of BIQ2021: they are distorted, to learn from that."""

Stages = dict[str, list[list[str]]]
"""What a stage leaves, and its commands; ``OUT`` is what they write."""

SEEDS = "1", "2", "3", "4"
"""Of the decoder and the upper half of the backbone; two are averaged."""

OUT = "OUT"
BEST = "experiments/bundled/models/net_best.safetensors"
COPY = "import shutil, sys; shutil.copy(*sys.argv[1:])"


def stages_of(args: argparse.Namespace) -> list[Stages]:
    """Return all stages in their order; those of one entry need nothing of each other."""
    biq, livec, agiqa = (
        [f"--{name}", *map(str, getattr(args, name))] for name in ("biq", "livec", "agiqa")
    )
    start = ["--imagenet", "imagenet.safetensors", "--first", "first.safetensors"]
    pools = ["--pool", "pool", "--pairs", "pairs"]
    train = ["train_models.py", "train", *start, "--pool", "pool", "--out", OUT, "--seed"]
    average = ["train_models.py", "average", *start, "--pool", "pool", "--seeds", "seeds"]
    look = ["--start", "named.safetensors", *biq, *livec, *agiqa, "--out", OUT]
    return [
        {"imagenet.safetensors": [["imagenet_start.py", OUT, "--seed", "1"]]},
        {"first.safetensors": [first_stage(*args.biq), ["-c", COPY, BEST, OUT]]},
        {
            "pool/biq": [["train_models.py", "biq", *start, *biq, "--out", OUT]],
            "pool/levels": [["train_models.py", "levels", *start, "--clean", "clean", "--out", OUT]],
            "pairs": [["reference_pairs.py", "pool", "imagenet.safetensors", "--clean", "clean", "--pairs", OUT]],
        },
        {f"seeds/{seed}.safetensors": [[*train, seed]] for seed in SEEDS},
        {"trained.safetensors": [[*average, *livec, "--out", OUT]]},
        {"paired.safetensors": [["reference_pairs.py", "train", "trained.safetensors", *pools, "--out", OUT]]},
        {"named.safetensors": [["train_naming.py", "paired.safetensors", "clean", "-o", OUT]]},
        {f"seen/{name}.pt": [["fit_readouts.py", "look", name, *look]] for name in SETS},
        {f"{model}.safetensors": last_steps(model, args) for model in ("lifeiqa-biq2021", "lifeiqa")},
    ]  # fmt: skip


def first_stage(csv: Path, folder: Path) -> list[str]:
    """Return the command of ``lifeiqa train`` with the data of this machine."""
    changes = ["network:pretrained_model_path=imagenet.safetensors"]
    for phase in ("train", "val"):
        changes += [f"datasets:{phase}:meta_info_file={csv}", f"datasets:{phase}:dataroot_target={folder}"]  # fmt: skip
    options = TOOLS.parent / "options" / "train" / "bundled.yml"
    command = ["-m", "lifeiqa_plugin", "train", "-opt", str(options)]
    return [*command, "--auto-resume", "--force-yml", *changes]


def last_steps(model: str, args: argparse.Namespace) -> list[list[str]]:
    """Return what makes a model of what the backbone saw: read-outs, nearer look, cuts of the distortions."""
    look = ["--start", "named.safetensors", "--folder", "seen"]
    scores = f"{model}.csv"
    return [
        ["fit_readouts.py", "write", model, *look, "--out", OUT],
        ["fit_detail.py", str(args.large), "--model", OUT, "--write", OUT],
        ["-m", "lifeiqa_plugin", "score", "rated.txt", "--model", OUT, "-o", scores],
        ["choose_cuts.py", scores, "biq_rated.csv", "livec_rated.csv", "--write", OUT],
    ]


def gather(args: argparse.Namespace, state: Path) -> None:
    """Link the clean photos, and write down the photos on which the cuts of the distortions are chosen."""
    (state / "clean").mkdir(parents=True, exist_ok=True)
    best = sorted(read_rows(*args.biq), key=lambda row: row.mos if row.group == "ss03" else 0)
    for row in best[-CLEAN:]:
        link = state / "clean" / Path(row.path).name
        if not link.is_symlink():
            link.symlink_to(Path(row.path).resolve())
    paths = []
    for name, part in (("biq", "val"), ("livec", "train")):
        table, folder = getattr(args, name)
        rows = pd.read_csv(table)
        rows = rows[rows["bundled_split"] == part]
        paths += [str(folder / image) for image in rows["name"]]
        rows.assign(name=[Path(image).name for image in rows["name"]]).to_csv(
            state / f"{name}_rated.csv", index=False
        )
    (state / "rated.txt").write_text("\n".join(paths), encoding="utf-8")


def run_stage(state: Path, name: str, commands: list[list[str]], is_alone: bool) -> None:
    """Run a stage, unless it is there; what it writes gets its name when it is whole."""
    if (state / name).exists():
        print(f"{name} is there", flush=True)
        return
    (state / name).parent.mkdir(exist_ok=True)
    part = str(Path(name).with_name(f"part.{Path(name).name}"))
    environment = os.environ | ({} if is_alone else {"OMP_NUM_THREADS": "1"})
    start = time.monotonic()
    for command in commands:
        command = [word.replace(OUT, part) for word in command]
        print(*command, flush=True)
        if command[0].endswith(".py"):
            command[0] = str(TOOLS / command[0])
        subprocess.run([sys.executable, *command], cwd=state, env=environment, check=True)
    (state / part).rename(state / name)
    with (state / "times.txt").open("a", encoding="utf-8") as file:
        print(f"{time.monotonic() - start:6.0f} s  {name}", file=file)


def main() -> None:
    """Parse the command line and run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("state", type=Path, help="folder of all that is made")
    for name in ("biq", "livec", "agiqa"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, required=True, metavar=("CSV", "FOLDER"))  # fmt: skip
    parser.add_argument("--large", type=Path, required=True, help="folder of large photos")
    args = parser.parse_args()
    for name in ("biq", "livec", "agiqa"):
        setattr(args, name, [path.resolve() for path in getattr(args, name)])
    args.large = args.large.resolve()
    try:
        gather(args, args.state)
        for stages in stages_of(args):
            run = partial(run_stage, args.state, is_alone=len(stages) == 1)
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                list(threads.map(run, stages, stages.values()))
    except (OSError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"{error}\n")  # a script has said what went wrong


if __name__ == "__main__":
    main()

"""Faults that are injected into running commands, and what was lost."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from fuzzing import build_tiny
from outcomes import judge, shorten
from PIL import Image
from safetensors.torch import load_file

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint

PATIENCE = 180
"""Seconds that a command may take."""


class Fault(NamedTuple):
    """A line of the table: what was done, what the command said, and what was lost."""

    what: str
    said: str
    lost: str
    is_good: bool


class World:
    """A folder with images, their scores and a small network, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        lines = ["name,mos"]
        for i in range(24):
            side = 60 + 2 * i
            image = Image.effect_noise((side, 64), 8 * i + 1).convert("RGB")
            image.save(self.images / f"{i:02d}.png")
            lines.append(f"{i:02d}.png,{1 - i / 24:.3f}")
        self.scores = self.images / "scores.csv"
        self.scores.write_text("\n".join(lines) + "\n")
        self.model = folder / "tiny.safetensors"
        save_checkpoint(build_tiny(), self.model, ModelCard(training_data="none", license="none"))

    def start(
        self, *arguments: object, limit: int | None = None, where: str = "."
    ) -> subprocess.Popen[str]:
        """Start ``lifeiqa``; ``limit`` is how many bytes a file may have before the disk counts as full."""
        place = self.folder / where
        place.mkdir(exist_ok=True)
        code = "import sys; from lifeiqa_plugin.cli import main; sys.exit(main())"
        prepare = None if limit is None else functools.partial(_limit_files, limit)
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=place,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
            start_new_session=True,
        )

    def run(self, *arguments: object, **options: Any) -> tuple[int, str]:
        """Run ``lifeiqa`` to its end; return its exit status and last line of stderr."""
        process = self.start(*arguments, **options)
        _, err = process.communicate(timeout=PATIENCE)
        lines = [line for line in err.replace("\r", "\n").splitlines() if "lifeiqa:" in line]
        clear = "Traceback" not in err
        last = lines[-1] if lines else "nothing"
        return process.returncode, shorten(last) if clear else "a traceback"

    def score(self, out: Path) -> tuple[object, ...]:
        """Return the command line that scores the images with the small network."""
        return ("score", self.images, "-o", out, "--model", self.model, "--workers", 1)

    def benchmark(self, out: Path) -> tuple[object, ...]:
        """Return the command line that compares two metrics of no weights."""
        return ("benchmark", "-m", "entropy", "-d", self.scores, "-o", out, "--no-speed")

    def options(self) -> Path:
        """Write the option file of a training of some seconds."""
        meta = self.folder / "meta.csv"
        if not meta.exists():
            self.run("prepare", "folder", self.images, "--out", meta)
        data = {"meta_info_file": str(meta), "dataroot_target": str(self.images)}
        data |= {"type": "LifeIQADataset", "split_index": 1, "split_ratio": "712"}
        train = {"name": "a", "batch_size_per_gpu": 4, "crops_per_image": 1}
        network = {
            "type": "LifeIQA", "pretrained": False, "backbone": "test_convnext", "embed_dim": 16, "num_heads": 2,
            "depth": 1, "num_experts": 2, "crop_size": 32, "working_size": 48,
        }  # fmt: skip
        options = {
            "name": "tiny",
            "model_type": "LifeIQAModel",
            "num_gpu": 0,
            "manual_seed": 1,
            "datasets": {"train": data | train, "val": data | {"name": "b"}},
            "network": network,
            "train": {
                "total_epoch": 6, "optim": {"lr": 1e-3}, "scheduler": {"type": "cosine"},
                "mos_loss_opt": {"type": "L1Loss"},
            },
            "val": {"val_freq": 4, "key_metric": "srcc"},
            "logger": {"print_freq": 1, "save_latest_freq": 2, "use_tb_logger": False},
        }  # fmt: skip
        path = self.folder / "tiny.yml"
        path.write_text(yaml.safe_dump(options))
        return path


def _limit_files(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> bool:
    """Send SIGKILL to the command and all it started as soon as something is so; False if it ended before."""
    for _ in range(PATIENCE * 50):
        if ready() or process.poll() is not None:
            break
        time.sleep(0.02)
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return was_running


def rows(path: Path) -> list[tuple[str, str]]:
    """Return names and scores of a csv, sorted."""
    with path.open(newline="") as file:
        return sorted((Path(row["path"]).name, row["score"]) for row in csv.DictReader(file))


def score_killed(world: World) -> Iterator[Fault]:
    """SIGKILL, a full disk, and a killed decoder while scoring."""
    whole = world.folder / "whole.csv"
    world.run(*world.score(whole))
    expected = rows(whole)
    out = world.folder / "killed.csv"
    kept = functools.partial(count_lines, world.folder, "killed.csv*")
    killed = kill_when(world.start(*world.score(out)), lambda: kept() >= 6)
    before = kept()
    status, _ = world.run(*world.score(out))
    same = status == 0 and rows(out) == expected
    said = f"killed after {before} lines" if killed else "it ended first"
    lost = "nothing: the same command went on, and the rows are those of a run in one piece"
    yield Fault("`lifeiqa score`: SIGKILL", said, lost if same else "rows differ", killed and same)

    out = world.folder / "full.csv"
    status, said = world.run(*world.score(out), limit=1000)
    again, _ = world.run(*world.score(out))
    same = again == 0 and rows(out) == expected
    lost = "nothing: with space again the same command went on" if same else "rows differ"
    good = status == 1 and said != "a traceback" and same
    yield Fault("`lifeiqa score`: the disk is full", said, lost, good)

    yield from decoder_killed(world)


def decoder_killed(world: World) -> Iterator[Fault]:
    """SIGKILL to the process that decodes: as soon as it is there, and when some rows are written."""
    many = world.folder / "many"
    many.mkdir()
    for i in range(400):
        (many / f"{i:03d}.png").symlink_to(world.images / f"{i % 24:02d}.png")
    for when, least in (("as it begins", 0), ("later on", 20)):
        out = world.folder / f"worker{least}.csv"
        command = ("score", many, "-o", out, "--model", world.model, "--workers", 1)
        process = world.start(*command)
        kept = functools.partial(count_lines, world.folder, f"{out.name}*")
        decoders = functools.partial(children, process.pid, "spawn_main")
        for _ in range(PATIENCE * 100):
            if (kept() >= least and decoders()) or process.poll() is not None:
                break
            time.sleep(0.01)
        victims = decoders()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
        status, again = process.returncode, ""
        if not out.exists():
            status, again = world.run(*command)[0], ", started again"
        failed = (
            sum(not score for _, score in rows(out)) if out.exists() else len(list(many.iterdir()))
        )
        good = (
            bool(victims) and "Traceback" not in err and failed <= 1 and status == int(failed > 0)
        )
        said = "a traceback" if "Traceback" in err else f"exit status {process.returncode}{again}"
        lost = f"the score of {failed} image, whose row says so" if failed else "nothing"
        what = f"`lifeiqa score`: SIGKILL to the process that decodes, {when}"
        yield Fault(what, said, lost, good)


def children(pid: int, named: str) -> list[int]:
    """Return the processes that a process has started and whose command line has a name in it."""
    found = []
    with contextlib.suppress(OSError):  # one has ended meanwhile
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                if named in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
    return found


def count_lines(folder: Path, pattern: str) -> int:
    """Return how many lines the files of a pattern have together."""
    files = [path for path in folder.rglob(pattern) if path.is_file()]
    return sum(path.read_bytes().count(b"\n") for path in files)


def benchmark_killed(world: World) -> Iterator[Fault]:
    """SIGKILL and a full disk while metrics are scored."""
    whole, out = world.folder / "whole", world.folder / "out"
    world.run(*world.benchmark(whole))
    expected = (whole / "scores.csv").read_text()
    kept = functools.partial(count_lines, out, "scores/**/*.csv")
    killed = kill_when(world.start(*world.benchmark(out)), lambda: kept() >= 5)
    before = kept()
    status, _ = world.run(*world.benchmark(out))
    same = status == 0 and (out / "scores.csv").read_text() == expected
    said = f"killed after {before} lines" if killed else "it ended first"
    lost = "nothing: the same command went on" if same else "rows differ"
    yield Fault("`lifeiqa benchmark`: SIGKILL", said, lost, same)

    full = world.folder / "full"
    status, said = world.run(*world.benchmark(full), limit=600)
    again, _ = world.run(*world.benchmark(full))
    same = again == 0 and (full / "scores.csv").read_text() == expected
    lost = "nothing: with space again the same command went on" if same else "rows differ"
    good = status == 1 and said != "a traceback" and same
    yield Fault("`lifeiqa benchmark`: the disk is full", said, lost, good)


def training_killed(world: World) -> Iterator[Fault]:
    """SIGKILL and a full disk while training."""
    options = world.options()
    weights = Path("experiments/tiny/models/net_latest.safetensors")
    world.run("train", "-opt", options, where="whole_run")
    names = [path.name for path in (world.folder / "whole_run").rglob("*.safetensors")]
    last = next((name for name in names if "latest" in name), names[-1] if names else weights.name)
    expected = load_file(next((world.folder / "whole_run").rglob(last)))
    resume = ("train", "-opt", options, "--auto_resume")
    for what, where, limit in (
        ("SIGKILL", "killed_run", None),
        ("the disk is full", "full_run", 60_000),
    ):
        place = world.folder / where
        if limit is None:
            process = world.start("train", "-opt", options, where=where)
            found = kill_when(process, lambda place=place: any(place.rglob("*.state")))
            said = "killed after its first saved state" if found else "it ended first"
        else:
            status, said = world.run("train", "-opt", options, where=where, limit=limit)
            found = status == 1 and said != "a traceback"
        status, _ = world.run(*resume, where=where)
        there = next(place.rglob(last), None)
        same = status == 0 and there is not None and equal(load_file(there), expected)
        lost = "what came after the last saved state, done again: the weights are the same, bit for bit"
        yield Fault(
            f"`lifeiqa train`: {what}", said, lost if same else "weights differ", found and same
        )


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two checkpoints have the same bits."""
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


@contextmanager
def serving(answers: list[bytes], length: int) -> Iterator[str]:
    """Serve the answers one after the other, whatever is asked, said to have ``length`` bytes; yield the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            content = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(200)
            self.send_header("Content-Length", str(max(length, len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tiny.safetensors"
    finally:
        server.shutdown()
        server.server_close()


def downloads_broken(world: World) -> Iterator[Fault]:
    """Half a file, and a page in place of it; then the file itself."""
    good, image = world.model.read_bytes(), torch.rand(1, 3, 48, 48)
    page = b"<html>please sign in</html>"
    kept_at, hub = torch.hub.get_dir(), world.folder / "hub"
    torch.hub.set_dir(str(hub))
    try:
        for what, broken, length in (
            ("half of the file", good[: len(good) // 2], len(good)),
            ("an HTML page", page, len(page)),
        ):
            with serving([broken, good], length) as address:
                first = judge(lambda a=address: _use(a, image))
                second = judge(lambda a=address: _use(a, image))
            said = first.text.replace(address, "http://.../tiny.safetensors")
            lost = "nothing: it is not kept, and the next call fetches the file again"
            is_good = first.kind == "error" and second.kind == "score"
            yield Fault(
                f"download: {what}",
                said,
                lost if is_good else f"the next call: {second.text}",
                is_good,
            )
    finally:
        torch.hub.set_dir(kept_at)


def _use(address: str, image: torch.Tensor) -> float:
    with torch.inference_mode():
        return build_lifeiqa(pretrained_model_path=address)(image).item()


FAULTS = {
    "download": downloads_broken,
    "score": score_killed,
    "benchmark": benchmark_killed,
    "train": training_killed,
}


def inject_all(folder: Path, kinds: tuple[str, ...] = tuple(FAULTS)) -> list[Fault]:
    """Inject the faults of these kinds, one after the other."""
    world = World(folder)
    return [fault for kind in kinds for fault in FAULTS[kind](world)]

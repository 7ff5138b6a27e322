"""Disks that fill up, processes that are killed: what was there stays, and the same command goes on."""

from __future__ import annotations

import csv
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from lifeiqa_plugin import cli
from lifeiqa_plugin.checkpoints.files import ModelCard, save_checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 120
"""Seconds that a command may take."""


@pytest.fixture
def world(tmp_path, monkeypatch, checkpoint) -> Path:
    """A folder with 24 images, their scores and a small network, in which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lifeiqa_plugin.allocator.keep_freed_memory", lambda: False)
    (tmp_path / "images").mkdir()
    (tmp_path / "tiny.safetensors").write_bytes(checkpoint.read_bytes())
    lines = ["name,mos"]
    for i in range(24):
        Image.effect_noise((60 + 2 * i, 64), 8 * i + 1).convert("RGB").save(f"images/{i:02d}.png")
        lines.append(f"{i:02d}.png,{1 - i / 24:.3f}")
    Path("images/scores.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def score(out: str, workers: int = 0, images: str = "images") -> list[str]:
    model = ["--model", "tiny.safetensors", "--device", "cpu"]
    return ["score", images, "-o", out, *model, "--workers", str(workers)]


def benchmark(out: str) -> list[str]:
    options = "-m entropy -d images/scores.csv --no-speed --samples 9"
    return ["benchmark", *options.split(), "-o", out]


def rows(path: str) -> list[tuple[str, str]]:
    with open(path, newline="") as file:
        return [(row["path"], row["score"]) for row in csv.DictReader(file)]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can have more bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("command", "result", "limit", "kept"),
    [
        (score, "{}.csv", 1000, r"\d rows are kept in full\.csv\.partial; the same command"),
        (benchmark, "{}/scores.csv", 600, ""),
    ],
)
def test_a_full_disk(world, capsys, command, result, limit, kept):
    whole, full = result.format("whole"), result.format("full")
    assert cli.main(command(whole if command is score else "whole")) == 0
    expected = Path(whole).read_bytes()
    again = command(full if command is score else "full")
    capsys.readouterr()
    with full_disk(limit):
        assert cli.main(again) == 1
    error = capsys.readouterr().err
    assert "File too large" in error or "file too large" in error
    assert re.search(kept, error)
    assert "Traceback" not in error
    assert not Path(full).exists()
    assert cli.main(again) == 0
    assert Path(full).read_bytes() == expected


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(world, tiny, monkeypatch, how):
    path = world / "tiny.safetensors"
    before = path.read_bytes()
    if how == "read-only":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("lifeiqa_plugin.journal.open", refuse, raising=False)
    with (
        pytest.raises(
            OSError, match=r"cannot be written \(.+\); what was there before is untouched"
        ),
        full_disk(1000 if how == "full" else 2**30),
    ):
        save_checkpoint(tiny, path, ModelCard(training_data="none", license="none"))
    assert path.read_bytes() == before
    assert [file.name for file in world.glob("tiny*")] == ["tiny.safetensors"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lifeiqa_plugin", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen[str], ready: Callable[[], object]) -> None:
    for _ in range(PATIENCE * 100):
        if ready():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    raise AssertionError("it took too long")


def kept_lines(pattern: str) -> int:
    return sum(path.read_bytes().count(b"\n") for path in Path().glob(pattern) if path.is_file())


@pytest.mark.slow
def test_a_killed_benchmark(world):
    assert cli.main(benchmark("whole")) == 0
    with start(benchmark("out")) as process:
        wait_until(process, lambda: kept_lines("out/scores/**/*.csv") >= 5)
        os.killpg(process.pid, signal.SIGKILL)
    assert not Path("out/scores.csv").exists()
    assert cli.main(benchmark("out")) == 0
    assert Path("out/scores.csv").read_bytes() == Path("whole/scores.csv").read_bytes()


def decoders(pid: int) -> list[int]:
    """Return the processes that decode for a process."""
    found = []
    with suppress(OSError):  # one has ended meanwhile
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_decoder_costs_one_image(world):
    many = world / "many"
    many.mkdir()
    for i in range(200):
        (many / f"{i:03d}.png").symlink_to(world / "images" / f"{i % 24:02d}.png")
    with start(score("out.csv", workers=1, images="many")) as process:
        wait_until(process, lambda: kept_lines("out.csv*") >= 20 and decoders(process.pid))
        for victim in decoders(process.pid):
            os.kill(victim, signal.SIGKILL)
        _, error = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in error
    found = rows("out.csv")
    assert len(found) == 200
    failed = sum(not value for _, value in found)
    assert failed <= 1
    assert process.returncode == failed


@contextmanager
def silent_mount(path: Path) -> Iterator[None]:
    """Mount a file system of which nobody answers for its files; skips where that may not be."""
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no /dev/fuse that may be opened")
    libc = ctypes.CDLL(None)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"silent", os.fsencode(path), b"fuse", 0, options) != 0:
            pytest.skip("nothing may be mounted")
        yield
        assert libc.umount2(os.fsencode(path), 2) == 0  # as soon as nobody uses it
    finally:
        os.close(server)


HANGING = """
import sys
from lifeiqa_plugin.images.processes import prepare_images
from lifeiqa_plugin.images.stream import Named, Recipe
from lifeiqa_plugin.scoring import in_time
from lifeiqa_plugin.scoring.inputs import Inputs

def shape(height, width):
    return 8, 8

if __name__ == "__main__":
    in_time.LIMIT = 1
    found = list(Inputs(["list.txt"]).images())
    print(found[0].source.reason, [one.mtime is None for one in found])
    for one in prepare_images(found[1:], Recipe(shape), workers=1, time_limit=2):
        print(one.error)
    Inputs([sys.argv[1]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_mount_that_hangs(world):
    """An archive, a file and a folder on it each cost their time limit, and the process ends."""
    silent = world / "silent"
    silent.mkdir()
    names = [f"{silent}/a.tar", f"{silent}/a.jpg", "images/01.png"]
    Path("list.txt").write_text("\n".join(names))
    Path("hanging.py").write_text(HANGING)
    command = [sys.executable, "hanging.py", str(silent)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with silent_mount(silent):
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=environment
        )
    no_answer = "[Errno 110] the file system gave no answer within 1 s"
    first, second, third = ended.stdout.splitlines()
    assert first == f"archive cannot be read further ({no_answer}) [True, True, False]"
    assert (second, third) == ("took longer than 2 s", "None")
    assert ended.stderr.splitlines()[-1] == f"TimeoutError: {no_answer}"

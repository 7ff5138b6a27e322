"""The command line itself: what it imports, what it answers, and how an error looks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lifeiqa_plugin
from lifeiqa_plugin import arguments, cli

ROOT = Path(__file__).parents[1]
HEAVY = "{'torch', 'pyiqa', 'pandas', 'timm'} & set(sys.modules)"


def run_apart(run_python, tmp_path, *argv: str):
    """Run a command in a Python of its own; the last line of its output is what it imported of ``HEAVY``."""
    code = (
        f"import atexit, sys, lifeiqa_plugin.cli as cli\natexit.register(lambda: print({HEAVY}))\n"
    )
    code += f"sys.exit(cli.main({list(argv)}))"
    return run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_is_quick(run_python, tmp_path, argv):
    done = run_apart(run_python, tmp_path, *argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: lifeiqa")
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "-opt", "nowhere.yml"], "nowhere.yml: no such file; expected an option file"),
        (["train", "-opt", "."], ".: a folder; expected an option file"),
        (["evaluate", "no.csv", "."], "no.csv: no such file; expected a csv of"),
        (
            ["evaluate", str(ROOT / "README.md"), ".", "--model", "nowhere"],
            "--model 'nowhere' is neither a file nor a bundled model",
        ),
        (["benchmark", "--data_opt", "no.yml"], "no.yml: no such file; expected an option file"),
    ],
)
def test_missing_files_are_seen_before_torch_is_imported(run_python, tmp_path, argv, message):
    done = run_apart(run_python, tmp_path, *argv)
    assert done.returncode in (1, 2)
    assert re.match(rf"lifeiqa \w+: {re.escape(message)}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("start", [["-m", "lifeiqa_plugin"], ["-m", "lifeiqa_plugin.cli"]])
def test_version(run_python, tmp_path, start):
    done = run_python(*start, "--version", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.stdout == f"lifeiqa {lifeiqa_plugin.__version__}\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "photo.jpg",
            "'photo.jpg' is neither a command nor a file or folder; lifeiqa --help lists the commands",
        ),
        ("trian", "no command 'trian'; did you mean 'lifeiqa train'?"),
    ],
)
def test_what_is_no_command(capsys, name, message):
    assert cli.main([name]) == 2
    assert capsys.readouterr().err == f"lifeiqa: {message}\n"


def test_files_without_a_command_are_scored(tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    seen = []
    command = SimpleNamespace(
        add_arguments=lambda parser: parser.add_argument("inputs", nargs="+"),
        run=lambda args: seen.append(args.inputs),
    )
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: command)
    for argument in ("photo.jpg", ".", "*.jpg", "-"):
        assert cli.main([argument]) == 0
    assert seen == [["photo.jpg"], ["."], ["*.jpg"], ["-"]]


def test_options_are_read_with_hyphens_or_underscores(monkeypatch):
    seen = []
    command = SimpleNamespace(
        add_arguments=lambda parser: parser.add_argument("--auto-resume", type=Path),
        run=lambda args: seen.append(args.auto_resume),
    )
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: command)
    cli.main(["train", "--auto_resume=a_b"])
    cli.main(["train", "--auto-resume", "a_b"])
    assert seen == [Path("a_b")] * 2


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path):
    photo = ROOT / "examples/photos/chelsea_2_blur.jpg"
    command = (
        f"{sys.executable} -m lifeiqa_plugin score {photo} {photo} | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_every_example_of_the_help_parses():
    for name, command in cli.COMMANDS.items():
        parser, _ = cli._build_parser(name)
        for example in command.examples:
            parser.parse_args(example.split()[1:])


def test_the_shell_completes(tmp_path, run_python):
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environ = {"_ARGCOMPLETE": "1", "COMP_LINE": "lifeiqa score --retr", "COMP_POINT": "20"}
    environ |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": str(ROOT)}
    run_python("-m", "lifeiqa_plugin", cwd=tmp_path, **environ)
    assert answer.read_text().strip() == "--retry-failed"


def test_no_command_prints_the_help(capsys):
    assert cli.main([]) == 2
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)


@pytest.fixture
def as_command(monkeypatch):
    """Let ``lifeiqa train`` be a function without arguments."""

    def replace(run) -> None:
        command = SimpleNamespace(add_arguments=lambda parser: None, run=lambda args: run())
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: command)

    return replace


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad\n  value"), 1),
        (OSError("bad value"), 1),
        (FloatingPointError("bad value"), 1),
        (ImportError("bad value"), 1),
        (arguments.UsageError("bad value"), 2),
    ],
)
def test_an_error_is_one_line(as_command, capsys, error, code):
    def fail():
        raise error

    as_command(fail)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == "lifeiqa train: bad value\n"


@pytest.mark.parametrize("when", ["imported", "run"])
def test_a_command_of_which_a_package_is_missing_names_it(when, as_command, monkeypatch, capsys):
    def fail(name="train"):
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    as_command(fail)
    if when == "imported":
        monkeypatch.setattr(cli.importlib, "import_module", fail)
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == (
        "lifeiqa train: needs yaml, which is not installed; "
        "pip install . in a checkout brings all that the commands need\n"
    )


def test_what_a_command_returns_is_the_exit_status(as_command):
    as_command(lambda: 1)
    assert cli.main(["train"]) == 1
    as_command(lambda: None)
    assert cli.main(["train"]) == 0


def test_sigterm_ends_a_command_as_an_interrupt_does(as_command):
    before = signal.getsignal(signal.SIGTERM)
    as_command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["train"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert arguments.choose_device("auto") == "cpu"
    assert arguments.choose_device("cpu") == "cpu"
    with pytest.raises(arguments.UsageError, match="device cuda: torch finds no GPU here; use"):
        arguments.choose_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert arguments.choose_device("auto") == "cuda"
    assert arguments.choose_device("cuda:1") == "cuda:1"

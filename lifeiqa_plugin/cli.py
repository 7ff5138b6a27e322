"""The command ``lifeiqa``: a table of subcommands, each of which lives in the room that does its work.

A command module has ``add_arguments(parser)`` and ``run(args)``, which returns an exit status or None for
0. It is imported when its command is used, and imports torch and pyiqa when its arguments have been looked at.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import os
import signal
import sys
from types import ModuleType
from typing import NamedTuple

from lifeiqa_plugin import __version__
from lifeiqa_plugin.arguments import UsageError, add_import, import_modules, signal_handler
from lifeiqa_plugin.images.refusals import in_one_line
from lifeiqa_plugin.nearest import nearest


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: below this package.
        about: one line for ``--help``.
        examples: for its own ``--help``.
    """

    module: str
    about: str
    examples: tuple[str, ...]


COMMANDS = {
    "score": Command(
        "scoring.command",
        "score files, folders and archives of images",
        (
            "lifeiqa score photo.jpg folder/",
            "lifeiqa score folder/ -o scores.csv",
            "lifeiqa score folder/ -o scores.csv --keep .7 --copy-to sorted/",
            "lifeiqa score shards/*.tar -o scores/ --fast --workers 8",
        ),
    ),
    "compare": Command(
        "scoring.compare_command",
        "scores of the same images before and after a change",
        ("lifeiqa compare before.csv after.csv --fail-below -0.02",),
    ),
    "prepare": Command(
        "datasets.command",
        "write the csv of a dataset, with splits, and check its files",
        (
            "lifeiqa prepare folder my_photos/ --mos-range 1 5",
            "lifeiqa prepare livec ChallengeDB_release/",
        ),
    ),
    "train": Command(
        "training.command",
        "train as an option file says",
        (
            "lifeiqa train --new my.yml",
            "lifeiqa train -opt my.yml",
            "lifeiqa train -opt quick --force-yml train:optim:lr=1e-4",
        ),
    ),
    "evaluate": Command(
        "scoring.evaluate_command",
        "correlation of checkpoints with opinion scores",
        (
            "lifeiqa evaluate meta_info_folder.csv my_photos/",
            "lifeiqa evaluate meta_info_livec.csv ChallengeDB_release/ --split bundled_split --model lifeiqa best.pth",
        ),
    ),
    "explain": Command(
        "explanation.command",
        "why images got their scores: maps, words, figures",
        ("lifeiqa explain photo.jpg -o explained/",),
    ),
    "report": Command(
        "report.command",
        "one page for a folder of photos: sort, cull, compare",
        ("lifeiqa report folder/ -o report.html",),
    ),
    "pick": Command(
        "report.pick_command",
        "which images and pairs to rate next: those on which metrics disagree",
        ("lifeiqa pick scores_a.csv scores_b.csv -o rate.html",),
    ),
    "export": Command(
        "export.command",
        "one file for ONNX Runtime, OpenVINO or torch.export",
        (
            "lifeiqa export -o lifeiqa.onnx",
            "lifeiqa export --model best.pth --int8 photos/ -o best-int8.onnx",
        ),
    ),
    "benchmark": Command(
        "benchmark.command",
        "accuracy and cost of metrics of pyiqa, side by side",
        (
            "lifeiqa benchmark -m lifeiqa niqe -d meta_info_folder.csv@my_photos/",
            "lifeiqa benchmark -m lifeiqa musiq -d meta_info_livec.csv@ChallengeDB_release/@bundled_split --no-speed",
        ),
    ),
    "leaderboard": Command(
        "benchmark.leaderboard_command",
        "training runs side by side, over splits and test sets",
        ("lifeiqa leaderboard experiments/*", "lifeiqa leaderboard experiments/* -o board.tex"),
    ),
}

FAILURES = (OSError, ValueError, TypeError, FloatingPointError, ImportError)
"""What the user can act on: one line on stderr instead of a traceback."""


EXIT_CODES = """exit status:
  0    done
  1    the work stopped; stderr says why in a line
  2    arguments that cannot be
  3    done, and some images have an error
  4    lower scores than 'compare' may find
  130  interrupted by Ctrl-C or SIGTERM
  141  the program that read the output ended, such as head
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; files and folders without a command are scored.

    Returns:
        As ``EXIT_CODES`` says.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        _complete(os.environ["COMP_LINE"].split()[1:2])
    if argv and argv[0] not in COMMANDS and _is_input(argv[0]):
        argv = ["score", *argv]
    name = argv[0] if argv else "--help"
    if not name.startswith("-") and name not in COMMANDS:
        print(f"lifeiqa: {_explain_unknown(name)}", file=sys.stderr)
        return 2
    argv = [_with_hyphens(argument) for argument in argv]
    try:
        parser, command = _build_parser(name)
        args = parser.parse_args(argv)
        if command is None:
            parser.print_help()
            return 2
        # SIGTERM ends a command as Ctrl-C does, after it has written what is done
        with signal_handler(signal.SIGTERM, signal.default_int_handler):
            import_modules(args.modules)
            status = command.run(args) or 0
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at exit
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:  # as in the light install
        print(
            f"lifeiqa {name}: needs {error.name}, which is not installed; "
            "pip install . in a checkout brings all that the commands need",
            file=sys.stderr,
        )
        return 1
    except FAILURES as error:
        print(f"lifeiqa {name}: {in_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _build_parser(name: str) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    """Return a parser of all commands, and the module of the one called ``name``, the only one that is imported."""
    parser = argparse.ArgumentParser(
        prog="lifeiqa",
        usage="lifeiqa [-h] [--version] COMMAND ... | FILE_OR_FOLDER ...",
        description="Score images, train, evaluate and compare with Life-IQA.",
        epilog=f"Files and folders without a command are scored: lifeiqa photo.jpg\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lifeiqa {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    chosen = None
    for command, (module, about, examples) in COMMANDS.items():
        subparser = subparsers.add_parser(
            command,
            help=about,
            description=about,
            prog=f"lifeiqa {command}",
            epilog="examples:\n  " + "\n  ".join(examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command == name:
            chosen = importlib.import_module(f"lifeiqa_plugin.{module}")
            chosen.add_arguments(subparser)
            add_import(subparser)
    return parser, chosen


def _complete(words: list[str]) -> None:
    """Answer the shell, after ``eval "$(register-python-argcomplete lifeiqa)"``; ends the process."""
    import argcomplete

    argcomplete.autocomplete(_build_parser(next(filter(COMMANDS.get, words), "--help"))[0])


def _is_input(argument: str) -> bool:
    """Say whether an argument is something to score."""
    return argument == "-" or os.path.exists(argument) or bool(glob.glob(argument))


def _with_hyphens(argument: str) -> str:
    """Return an option with hyphens, such as ``--auto-resume`` for pyiqa's ``--auto_resume``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}"


def _explain_unknown(name: str) -> str:
    near = nearest(name, COMMANDS)
    if near:
        return f"no command {name!r}; did you mean 'lifeiqa {near[0]}'?"
    return f"{name!r} is neither a command nor a file or folder; lifeiqa --help lists the commands"


if __name__ == "__main__":
    sys.exit(main())

"""The command ``lifeiqa``: a table of subcommands, each of which lives in the room that does its work.

A command module has ``add_arguments(parser)`` and ``run(args)``, which returns an exit status or None for 0. It is
imported when its command is used, and imports torch and pyiqa when its arguments have been looked at.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from types import ModuleType

from lifeiqa_plugin import __version__
from lifeiqa_plugin.arguments import UsageError, signal_handler
from lifeiqa_plugin.nearest import nearest

COMMANDS = {
    "score": ("scoring.command", "score files, folders and archives of images"),
    "compare": ("scoring.compare_command", "scores of the same images before and after a change"),
    "prepare": ("datasets.command", "write the csv of a dataset, with splits, and check its files"),
    "train": ("training.command", "train as an option file says"),
    "evaluate": ("scoring.evaluate_command", "correlation of checkpoints with opinion scores"),
    "explain": ("explanation.command", "why images got their scores: maps, words, figures"),
    "report": ("report.command", "one page for a folder of photos: sort, cull, compare"),
    "export": ("export.command", "one file for ONNX Runtime, OpenVINO or torch.export"),
    "benchmark": ("benchmark.command", "accuracy and cost of metrics of pyiqa, side by side"),
}
"""Name -> its module, below this package, and one line for ``--help``."""

FAILURES = (OSError, ValueError, TypeError, FloatingPointError, ImportError)
"""What the user can act on: one line on stderr instead of a traceback."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for an error that the user can act on, which is one line on stderr; 2 for arguments that cannot be; 3 if
        all is done and some images have an error (``score``, ``report``, ``explain``, ``compare``); 4 if ``compare``
        finds lower scores than it may; 130 if interrupted by Ctrl-C or SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else "--help"
    if not name.startswith("-") and name not in COMMANDS:
        print(f"lifeiqa: {_explain_unknown(name)}", file=sys.stderr)
        return 2
    try:
        parser, command = _build_parser(name)
    except ModuleNotFoundError as error:  # as in an install for scoring alone
        print(
            f"lifeiqa {name}: needs {error.name}, which is not installed; "
            "pip install lifeiqa_plugin brings all that the commands need",
            file=sys.stderr,
        )
        return 1
    args = parser.parse_args(argv)
    if command is None:
        parser.print_help()
        return 2
    try:
        # SIGTERM ends a command as Ctrl-C does, after it has written what is done
        with signal_handler(signal.SIGTERM, signal.default_int_handler):
            return command.run(args) or 0
    except FAILURES as error:
        print(f"lifeiqa {name}: {_in_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _build_parser(name: str) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    """Return a parser of all commands, and the module of the one called ``name``, the only one that is imported."""
    parser = argparse.ArgumentParser(
        prog="lifeiqa", description="Score images, train, evaluate and compare with Life-IQA."
    )
    parser.add_argument("--version", action="version", version=f"lifeiqa {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    chosen = None
    for command, (module, about) in COMMANDS.items():
        subparser = subparsers.add_parser(command, help=about, description=about)
        if command == name:
            chosen = importlib.import_module(f"lifeiqa_plugin.{module}")
            chosen.add_arguments(subparser)
    return parser, chosen


def _explain_unknown(name: str) -> str:
    near = nearest(name, COMMANDS)
    if near:
        return f"no command {name!r}; did you mean 'lifeiqa {near[0]}'?"
    return f"no command {name!r}; to score files or folders: lifeiqa score {name!r}"


def _in_one_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines())


if __name__ == "__main__":
    sys.exit(main())

"""What several commands ask for, and ask for in the same words."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lifeiqa_plugin.checkpoints.models import BUNDLED, DEFAULT, Model, resolve

DEVICES = ("auto", "cpu", "cuda")

PARTIAL = 3
"""Exit status where all is done and some images have an error; 1 is that of work that stopped."""


class UsageError(ValueError):
    """Arguments that cannot be, found before any work is done."""


def add_device(parser: argparse._ActionsContainer) -> None:
    """Declare ``--device``."""
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where the network runs (default auto: CUDA if there is a GPU)",
    )


def add_model(parser: argparse._ActionsContainer, kinds: str) -> None:
    """Declare ``--model``: a name or, as ``kinds`` says, a file; :func:`find_model` reads it."""
    parser.add_argument(
        "--model",
        default=DEFAULT,
        help=f"{' or '.join(BUNDLED)}, or {kinds} (default {DEFAULT})",
    )


def find_model(name: str) -> Model:
    """Return the model that ``--model`` names.

    Raises:
        UsageError: neither a file nor a bundled model.
    """
    try:
        return resolve(name)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--model {error}") from error


def choose_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``, or a CUDA device by number, for what ``--device`` says; imports torch.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    if device.startswith("cuda") and not has_cuda:
        raise UsageError(f"device {device}: torch finds no GPU here; use --device cpu")
    return device


def add_import(parser: argparse._ActionsContainer) -> None:
    """Declare ``--import``, whose names are ``modules`` of the arguments."""
    parser.add_argument(
        "--import",
        nargs="+",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="modules of your own to import first, of the current folder or installed",
    )


def import_modules(names: list[str]) -> None:
    """Import modules of the user's, of the current folder or installed, that define networks, datasets or losses.

    Raises:
        ImportError: names the module and what is wrong with it.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # anything may happen in there
            raise ImportError(f"import: {name}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def signal_handler(number: int, handler: Any) -> Iterator[None]:
    """Handle a signal otherwise inside; in a thread that is not the main one, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def check_file(path: Path, what: str) -> None:
    """See that a file is there before anything slow begins.

    Raises:
        FileNotFoundError: it is not, or it is a folder.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {found}; expected {what}")


def check_target(path: Path) -> None:
    """See that a file can be written before anything slow begins.

    Raises:
        UsageError: it is a folder, or there is no permission.
    """
    if path.is_dir():
        raise UsageError(f"{path}: a folder; expected the name of a file to write")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: no permission to write in {folder}")

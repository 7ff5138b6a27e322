"""Every surgery on pyiqa, timm and Pillow: context managers, each of which puts back what it took.

The host is imported where it is operated on, so that reading an image does not import pyiqa.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, PngImagePlugin

if TYPE_CHECKING:
    import torch


_pillow_lock = threading.Lock()
_pillow_users = 0
_pillow_before: tuple[bool, int | None, int] = (False, None, 0)
_pillow_warnings = warnings.catch_warnings()
_stderr_lock = threading.RLock()


@contextmanager
def own_pillow_rules() -> Iterator[None]:
    """Let Pillow refuse files whose end is missing, and leave the limit on pixels to the caller; for all threads.

    Its warnings name no file, and are silent inside. A dataset of pyiqa tells it to fill such files up, for all of
    Python. Several threads may be inside; what was set before the first came is put back when the last has left.
    """
    global _pillow_users, _pillow_before, _pillow_warnings
    with _pillow_lock:
        if _pillow_users == 0:
            _pillow_before = (
                ImageFile.LOAD_TRUNCATED_IMAGES,
                Image.MAX_IMAGE_PIXELS,
                PngImagePlugin.MAX_TEXT_CHUNK,
            )
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
            PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # 64 MiB instead of 1
            _pillow_warnings = warnings.catch_warnings()
            _pillow_warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _pillow_users += 1
    try:
        yield
    finally:
        with _pillow_lock:
            _pillow_users -= 1
            if _pillow_users == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _pillow_before[:2]
                PngImagePlugin.MAX_TEXT_CHUNK = _pillow_before[2]
                _pillow_warnings.__exit__(None, None, None)


@contextmanager
def quiet_libtiff(format_: str | None) -> Iterator[None]:
    """Keep what libtiff prints, which names no file, off the screen while a TIFF is decoded."""
    if format_ != "TIFF":
        yield
        return
    with _stderr_lock, open(os.devnull, "wb") as nowhere:
        try:
            before = os.dup(2)
        except OSError:  # there is no screen
            yield
            return
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def add_codec(header: bytes, is_heif: bool) -> str:
    """Let Pillow read HEIF or JPEG XL, if that is how a file begins and a package for it is installed.

    Returns:
        The package that is missing; empty if none is.
    """
    if is_heif:
        package, module, start = "pillow-heif", "pillow_heif", "register_heif_opener"
    elif header.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        package, module, start = "pillow-jxl-plugin", "pillow_jxl", ""
    else:
        return ""
    try:
        plugin = importlib.import_module(module)
    except ImportError:
        return package
    if start:
        getattr(plugin, start)()
    return ""


@contextmanager
def forgetful_logger() -> Iterator[None]:
    """Let pyiqa open a log file inside, though it has one already or was asked for its logger too early."""
    _close_logger()
    try:
        yield
    finally:
        _close_logger()


@contextmanager
def training_loop(replaced: dict[str, Any]) -> Iterator[None]:
    """Give ``pyiqa.train`` other functions for what its own cannot do.

    Its ``load_resume_state`` needs a GPU and looks in another folder than the one it is told, its ``EnlargedSampler``
    can only start an epoch at its beginning, its ``build_dataset`` would read every csv once more, and its
    ``copy_opt_file`` keeps the option file without the changes of the command line.
    """
    import pyiqa.train

    before = {name: getattr(pyiqa.train, name) for name in replaced}
    vars(pyiqa.train).update(replaced)
    try:
        yield
    finally:
        vars(pyiqa.train).update(before)


def _close_logger() -> None:
    from pyiqa.utils import logger as pyiqa_logger

    logger = logging.getLogger("pyiqa")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    pyiqa_logger.initialized_logger.clear()


@contextmanager
def listed_metric(name: str, about: dict[str, Any]) -> Iterator[None]:
    """Put a metric into the table without which pyiqa creates none, for as long as that takes."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    before = DEFAULT_CONFIGS.get(name)
    DEFAULT_CONFIGS[name] = about
    try:
        yield
    finally:
        if before is None:
            del DEFAULT_CONFIGS[name]
        else:
            DEFAULT_CONFIGS[name] = before


@contextmanager
def without_downloads() -> Iterator[None]:
    """Make timm build networks without weights: some metrics ask it for them whatever their own options say."""
    import timm

    create_model = timm.create_model

    def without_weights(*args: Any, **kwargs: Any) -> torch.nn.Module:
        return create_model(*args, **{**kwargs, "pretrained": False})

    timm.create_model = without_weights
    try:
        yield
    finally:
        timm.create_model = create_model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pyiqa's notices of what it has built out of the progress bars; its warnings stay."""
    from pyiqa.utils import get_root_logger

    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def dataset_table() -> Path:
    """Return the option file in which pyiqa describes the datasets that it knows."""
    import pyiqa

    return Path(pyiqa.__file__).with_name("default_dataset_configs.yml")


def build_dataset(options: dict[str, Any]) -> Any:
    """Build a dataset of pyiqa."""
    from pyiqa import data

    return data.build_dataset(options)


def fetchable_datasets() -> set[str]:
    """Return the names of the datasets that ``pyiqa.load_dataset`` downloads."""
    from pyiqa.data.dataset_api import dataset_download_name

    return set(dataset_download_name)


def metric_table() -> dict[str, Mapping[str, Any]]:
    """Return what pyiqa knows of metrics: name -> options, mode, direction."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return dict(DEFAULT_CONFIGS)


def arguments_of(network: str) -> set[str]:
    """Return the names of the arguments that a network of pyiqa takes; none if there is no such network."""
    from pyiqa.utils.registry import ARCH_REGISTRY

    if network not in ARCH_REGISTRY:
        return set()
    return set(inspect.signature(ARCH_REGISTRY.get(network)).parameters)


def create_metric(name: str, device: str, options: Mapping[str, Any]) -> Any:
    """Create a metric of pyiqa, without its notices."""
    import pyiqa

    with quiet():
        return pyiqa.create_metric(name, device=device, **options)


def host_version() -> str:
    """Return the version of pyiqa."""
    import pyiqa

    return str(getattr(pyiqa, "__version__", "unknown"))

"""Files from the web, kept in torch's hub folder once they have been read as what they should be."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch


def fetch(url: str, check: Callable[[Path], object]) -> Path:
    """Return the kept copy of a file of the web, fetched once; one that does not read is fetched once more.

    Args:
        url: of the file.
        check: reads the file; raises ValueError where it is damaged or of another kind.

    Raises:
        OSError: it cannot be downloaded.
        ValueError: what was downloaded does not read; it is not kept.
    """
    kept = _place_of(url)
    if kept.is_file():
        try:
            check(kept)
            return kept
        except ValueError:  # of an interrupted download, or damaged since
            pass
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="part-") as folder:
        part = Path(folder) / kept.name
        _download(url, part)
        try:
            check(part)
        except ValueError as error:
            reason = str(error).removeprefix(f"{part}: ")
            raise ValueError(
                f"{url}: what came is not kept, as it is no checkpoint: {reason}; see whether the address "
                "shows the file itself, and try again"
            ) from error
        part.replace(kept)
    return kept


def _place_of(url: str) -> Path:
    """The folder is named after the whole URL, as file names repeat."""
    folder = f"lifeiqa-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    return Path(torch.hub.get_dir()) / "checkpoints" / folder / Path(urlparse(url).path).name


def _download(url: str, path: Path) -> None:
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{url}: cannot be downloaded ({error}); download it by hand and give its path"
        ) from error

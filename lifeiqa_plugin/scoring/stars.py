"""``--xmp``: verdicts as stars, in sidecar files that photo tools read; ``--xmp-undo`` takes them back.

darktable and digiKam read ``IMG.ARW.xmp``, beside any file. Lightroom reads ``IMG.xmp``, beside raw files only.
What has a rating already, in the file or in a sidecar, is somebody else's and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lifeiqa_plugin.images.raw import SUFFIXES
from lifeiqa_plugin.journal import write_whole
from lifeiqa_plugin.scoring.rows import DROP, Row

CUTS = (0.5, 0.6, 0.7, 0.8)
"""Scores from which there are 2, 3, 4 and 5 stars; below the first there is one, and -1 (rejected) for ``drop``."""

RATINGS = (-1, 1, 2, 3, 4, 5)

SIDECAR = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="lifeiqa">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="{}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""

OURS = {SIDECAR.format(rating).encode() for rating in RATINGS}
"""All that this file ever writes, so that it is known again by its bytes."""

RATED = re.compile(rb"xmp:Rating(?:>|\s*=\s*[\"'])\s*(?:-1|[1-5])")

HEAD = 1 << 20
"""Bytes of an image in which a rating is looked for; metadata come first in what cameras and tools write."""


def write_stars(rows: Iterable[Row]) -> str:
    """Write the sidecars of rows that have a verdict; returns what was done, in a line.

    Raises:
        OSError: no space, no permission.
    """
    written = kept = 0
    for row in rows:
        image = Path(row["path"])
        if not (row.get("verdict") and image.is_file()):
            continue
        if _has_rating(image):
            kept += 1
            continue
        for sidecar in _sidecars(image):
            with write_whole(sidecar) as file:
                file.write(SIDECAR.format(_rating(row)).encode())
        written += 1
    return f"{written} images rated; {kept} have a rating or sidecar of their own, which stays"


def remove_stars(rows: Iterable[Row]) -> str:
    """Delete the sidecars that :func:`write_stars` wrote and nobody changed since; returns what was done, in a line."""
    removed = changed = 0
    for row in rows:
        for sidecar in _sidecars(Path(row["path"])):
            if _is_ours(sidecar):
                sidecar.unlink()
                removed += 1
            elif sidecar.exists():
                changed += 1
    return f"{removed} sidecars removed; {changed} are not as lifeiqa wrote them and stay"


def _rating(row: Row) -> int:
    if row["verdict"] == DROP:
        return -1
    return 1 + sum(float(row["score"]) >= cut for cut in CUTS)


def _sidecars(image: Path) -> list[Path]:
    own = [image.with_name(f"{image.name}.xmp")]
    return [*own, image.with_suffix(".xmp")] if image.suffix.lower() in SUFFIXES else own


def _has_rating(image: Path) -> bool:
    """Say whether there is a rating, or any sidecar of another program, under either name."""
    for sidecar in (image.with_name(f"{image.name}.xmp"), image.with_suffix(".xmp")):
        if sidecar.exists() and not _is_ours(sidecar):
            return True
    with open(image, "rb") as file:
        return RATED.search(file.read(HEAD)) is not None


def _is_ours(sidecar: Path) -> bool:
    return (
        sidecar.is_file()
        and sidecar.stat().st_size < len(SIDECAR) + 9
        and sidecar.read_bytes() in OURS
    )

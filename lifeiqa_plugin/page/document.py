"""A page that needs no network and no server, and in which no name of a file can become markup or code.

Data travels as JSON in which ``<`` is escaped, and scripts write it as text only. The Content-Security-Policy allows no
script but the two whose digests it names, so that markup which got in would not run either. It allows pictures from
where the page itself is, such as files on the disk, which the report shows at full size, and no other request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lifeiqa_plugin.images.pixels import as_bytes
from lifeiqa_plugin.images.reading import decode

ROOM = Path(__file__).parent
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
SLOT = re.compile(r"\{\{(\w+)\}\}")


def embed(template: str, data: dict[str, Any], title: str) -> str:
    """Return the HTML of a page.

    Args:
        template: what the page has of its own: markup, and ``<script>`` without attributes. Before it runs the shared
            ``charts.js``, which offers ``data`` (the parsed JSON), ``add``, ``table``, ``frame``, ``scatter`` and more.
        data: what the scripts draw; NumPy's numbers are allowed, and what JSON does not know becomes ``null``.
        title: of the document.
    """
    charts = (ROOM / "charts.js").read_text(encoding="utf-8")
    scripts = [charts, *SCRIPT.findall(template)]
    parts = {
        "policy": " ".join(_digest(script) for script in scripts),
        "title": html.escape(title),
        "style": (ROOM / "style.css").read_text(encoding="utf-8"),
        "data": to_json(data),
        "charts": charts,
        "template": template,
    }
    skeleton = (ROOM / "skeleton.html").read_text(encoding="utf-8")
    return SLOT.sub(lambda slot: parts[slot[1]], skeleton)


def to_json(data: Any) -> str:
    """Return JSON that is safe inside of a script element: ASCII, and without any ``<``."""
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def small_copy(source: str | Path | Image.Image, side: int, quality: int = 50) -> str:
    """Return an image reduced to ``side`` pixels as a data URL; empty if it cannot be read."""
    try:
        small = Image.fromarray(as_bytes(decode(source, at_least=side).pixels))
    except OSError:
        return ""
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _digest(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's, and those that JSON does not know into None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

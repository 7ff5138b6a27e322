"""Put the page, the network and ONNX Runtime for browsers into one folder, which any web server can serve.

    python examples/browser/build.py site && python -m http.server --directory site

``npm`` fetches the runtime once, into ``examples/browser/vendor``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path

from lifeiqa_plugin.checkpoints.models import resolve
from lifeiqa_plugin.runtimes.onnxruntime_engine import OnnxRuntimeEngine

HERE = Path(__file__).parent
VENDOR = HERE / "vendor"
PAGE = ("index.html", "page.css", "page.js", "lifeiqa.js")
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)


def fetch_runtime() -> None:
    """Fetch what of the npm package is needed, unless it is there."""
    if all((VENDOR / name).is_file() for name in RUNTIME_FILES):
        return
    VENDOR.mkdir(exist_ok=True)
    npm = ["npm", "pack", "--silent", RUNTIME]
    packed = subprocess.run(npm, cwd=VENDOR, check=True, stdout=subprocess.PIPE, text=True)
    archive = VENDOR / packed.stdout.strip()
    with tarfile.open(archive) as tar:
        for name in RUNTIME_FILES:
            member = tar.extractfile(f"package/dist/{name}")
            (VENDOR / name).write_bytes(member.read())
    archive.unlink()


def build(out: Path) -> None:
    """Write the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for path in [*(HERE / name for name in PAGE), *(VENDOR / name for name in RUNTIME_FILES)]:
        shutil.copy(path, out)
    checkpoint = resolve()
    graph = checkpoint.exported()
    for path in (checkpoint.path, graph.path):
        shutil.copy(path, out)
    about = asdict(OnnxRuntimeEngine(graph.path).metadata)
    about |= {"graph": graph.path.name, "weights": checkpoint.path.name}
    (out / "model.json").write_text(json.dumps(about))


if __name__ == "__main__":
    fetch_runtime()
    build(Path(sys.argv[1]))

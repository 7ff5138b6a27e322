"""setup.py declares what the package imports, with a lower bound for each."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "PyYAML",
    "torch_scatter": "torch-scatter",
    "onnx_ir": "onnx-ir",
}
OURS = {"lifeiqa_plugin", "_lifeiqa_autoload"}


def imported() -> set[str]:
    names = set()
    for path in [*(ROOT / "lifeiqa_plugin").rglob("*.py"), ROOT / "_lifeiqa_autoload.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - OURS - sys.stdlib_module_names


def test_what_is_imported_is_declared():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    declared = set(re.findall(r'"([\w-]+)(?:>=[\d.]+)?"', text))
    assert {"torch", "PIL", "pandas"} <= imported()
    assert sorted({DISTRIBUTIONS.get(name, name) for name in imported()} - declared) == []


def test_what_is_required_has_a_lower_bound():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = re.search(r"^LIGHT = \[(.*?)^EXPLAIN", text, re.MULTILINE | re.DOTALL)[1]
    lines = re.findall(r'"(.+)"', required)
    assert len(lines) >= 11
    assert [line for line in lines if not re.fullmatch(r"[\w-]+>=\d[\d.]+", line)] == []

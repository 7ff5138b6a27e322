"""The walls between the rooms of the package, read off its imports."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lifeiqa_plugin"
FILES = {path.relative_to(PACKAGE.parent).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
MODULES = {".".join(name.parts).removesuffix(".__init__"): path for name, path in FILES.items()}
HOST_TABLES = {"pyiqa_compat", "register"}


def imports_of(path: Path) -> set[str]:
    """Full names of all that a module imports, functions included; what is for annotations only does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not is_for_annotations(node)]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_for_annotations(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def test_there_is_something_to_look_at():
    assert len(MODULES) > 30
    assert "lifeiqa_plugin.network.moe" in IMPORTS["lifeiqa_plugin.network.decoder"]


def test_the_network_imports_no_other_room():
    for module, names in IMPORTS.items():
        if room_of(module) == "network":
            rooms = {room_of(name) for name in names if name.startswith("lifeiqa_plugin")}
            assert rooms <= {"network", "nearest"}, module


@pytest.mark.parametrize("room", ["images", "export", "scoring"])
def test_scoring_needs_neither_pyiqa_nor_pandas(room):
    for module, names in IMPORTS.items():
        if room_of(module) == room:
            assert not {name for name in names if name.split(".")[0] in ("pyiqa", "pandas")}, module


def test_the_benchmark_does_not_import_training():
    for module, names in IMPORTS.items():
        if room_of(module) == "benchmark":
            assert not {name for name in names if room_of(name) == "training"}, module


def test_only_the_host_room_touches_the_hosts_tables():
    for module, names in IMPORTS.items():
        if room_of(module) not in HOST_TABLES:
            assert "_lifeiqa_autoload" not in names, module
            assert not {name for name in names if "_REGISTRY" in name}, module


def test_no_circle_between_modules():
    graph = {
        module: names & MODULES.keys() - {module, "lifeiqa_plugin"}
        for module, names in IMPORTS.items()
    }
    TopologicalSorter(graph).prepare()


def test_no_circle_between_rooms():
    """A file at the top of the package is a room by itself."""
    rooms: dict[str, set[str]] = {}
    for module, names in IMPORTS.items():
        own = {room_of(name) for name in names if name in MODULES}
        rooms.setdefault(room_of(module), set()).update(own - {room_of(module), ""})
    assert {"network", "images", "runtimes"} <= rooms["scoring"] | rooms["runtimes"]
    TopologicalSorter(rooms).prepare()

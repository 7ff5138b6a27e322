"""Tables of docs/ from the code: commands, keys of option files, options of the metric, rooms; cog fills them in."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lifeiqa_plugin"
sys.path.insert(0, str(PACKAGE.parent))

from lifeiqa_plugin import cli  # noqa: E402 -- of this checkout
from lifeiqa_plugin.checkpoints.factory import build_lifeiqa  # noqa: E402
from lifeiqa_plugin.network.config import SWIN_B, LifeIQAConfig  # noqa: E402
from lifeiqa_plugin.network.decoder import DecoderConfig  # noqa: E402
from lifeiqa_plugin.training import sections  # noqa: E402


def show(what: str) -> None:
    """Put ``commands``, ``keys``, ``options`` or ``rooms`` into the page that cog reads."""
    import cog  # there while cog runs

    cog.outl(
        "\n".join({"commands": commands, "keys": keys, "options": options, "rooms": rooms}[what]())
    )


def commands() -> Iterator[str]:
    """Yield each command: what it does, its examples, and its arguments with what they mean."""
    for name, command in cli.COMMANDS.items():
        parser, _ = cli._build_parser(name)
        (choices,) = (
            a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)
        )
        yield f"\n### lifeiqa {name}\n\n{command.about[0].upper()}{command.about[1:]}.\n"
        yield from ("```", *command.examples, "```", "", "| argument | meaning |", "|---|---|")
        for action in choices[name]._actions[1:]:  # all but --help
            yield f"| {_spell(action)} | {_in_a_cell(action.help or '')} |"


def _spell(action: argparse.Action) -> str:
    """Return an argument as ``--help`` shows it."""
    *others, last = action.option_strings or [str(action.metavar or action.dest)]
    if action.option_strings and action.nargs != 0:
        choices = f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper()
        value = action.metavar or choices
        last = f"{last} {' '.join(value) if isinstance(value, tuple) else value}"
    return ", ".join(f"`{name}`" for name in (*others, last))


def keys() -> Iterator[str]:
    """Yield the keys of option files, a table for each section, with defaults and meanings."""
    for node in ast.parse(inspect.getsource(sections)).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Options"):
            yield f"\n{_in_a_cell(ast.get_docstring(node) or '')}\n\n| key | default | meaning |\n|---|---|---|"
            yield from _fields(node)


def options() -> Iterator[str]:
    """Yield the options of the metric: how weights are loaded, then what a network is built from."""
    yield from ("| option | default | meaning |", "|---|---|---|")
    parameters = inspect.signature(build_lifeiqa).parameters
    arguments = inspect.cleandoc(build_lifeiqa.__doc__ or "").split("Args:\n")[1].split("\n\n")[0]
    for name, about in re.findall(
        r"^    (\w+): ((?:.+\n?(?:     +.+\n?)*))", arguments, re.MULTILINE
    ):
        value = parameters[name].default
        yield f"| `{name}` | {'-' if value is None else f'`{value}`'} | {_in_a_cell(about)} |"
    for config in (LifeIQAConfig, DecoderConfig):
        node = ast.parse(inspect.getsource(config)).body[0]
        assert isinstance(node, ast.ClassDef)
        rows = (row.replace("SWIN_B", SWIN_B) for row in _fields(node))
        yield from (row for row in rows if "`decoder`" not in row)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Yield a row for each field of a dataclass that has a text below it."""
    for item, about in zip(node.body, node.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(about, ast.Expr):
            key = ast.unparse(item.target).rstrip("_")  # import_ is import
            yield f"| `{key}` | {_default(item)} | {_in_a_cell(ast.literal_eval(about.value))} |"


def _default(item: ast.AnnAssign) -> str:
    if item.value is None:
        return "required"
    text = ast.unparse(item.value).strip("'")
    if text == "None" or "default_factory" in text:
        return "-"
    return f"`{text.lower() if text in ('True', 'False') else text}`"


def rooms() -> Iterator[str]:
    """Yield the rooms of the package in layers, each of which imports only from layers below its own."""
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = (n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom))
        found = {name.split(".")[1] for name in modules if name.startswith("lifeiqa_plugin.")}
        graph.setdefault(room, set()).update(found - {room})
    graph = {room: found for room, found in graph.items() if not room.startswith("__")}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    layers: list[str] = []
    while ready := sorter.get_ready():
        layers.insert(0, "  ".join(sorted(ready)))
        sorter.done(*ready)
    yield from ("```", *layers, "```")


def _in_a_cell(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)  # Sphinx's roles
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())

"""Registering with pyiqa: the hook, ``register()``, and what pyiqa then does with them.

``PYIQA`` below loads pyiqa's two tables without pyiqa's own ``__init__``, which takes seconds: each test can so afford
a fresh Python.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import zipapp
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYIQA = """
import importlib.util, sys
for name in ("pyiqa", "pyiqa.utils"):
    sys.modules[name] = importlib.util.module_from_spec(importlib.util.find_spec(name))
"""
NO_ENTRY_POINTS = "import importlib.metadata as m; m.entry_points = m.EntryPoints\n"
LISTED = (
    "print('lifeiqa' in importlib.import_module('pyiqa.default_model_configs').DEFAULT_CONFIGS)\n"
)
KNOWN = "print('LifeIQA' in importlib.import_module('pyiqa.utils.registry').ARCH_REGISTRY)\n"


@pytest.fixture
def python(run_python, tmp_path):
    """Run code in a fresh Python that has this checkout on its path and has not been hooked; return what it printed."""

    def run(code, *paths, autoload="0", flags=("-W", "error")):
        path = ":".join(str(p) for p in (*paths, ROOT))
        done = run_python(
            *flags, "-c", code, cwd=tmp_path, PYTHONPATH=path, LIFEIQA_AUTOLOAD=autoload
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return run


def other_pyiqa(folder, configs, registry=""):
    """Write a package called pyiqa whose two tables are the given source."""
    (folder / "pyiqa" / "utils").mkdir(parents=True)
    (folder / "pyiqa" / "__init__.py").touch()
    (folder / "pyiqa" / "utils" / "__init__.py").touch()
    (folder / "pyiqa" / "default_model_configs.py").write_text(configs)
    (folder / "pyiqa" / "utils" / "registry.py").write_text(registry)
    return folder


def test_without_the_plugin_pyiqa_knows_nothing_of_it(python):
    """The other tests below could not fail if this one did not hold."""
    assert python(PYIQA + NO_ENTRY_POINTS + LISTED + KNOWN) == ["False", "False"]


def test_hook_before_pyiqa(python):
    hook = "import _lifeiqa_autoload; _lifeiqa_autoload.start()\n"
    assert python(hook + PYIQA + NO_ENTRY_POINTS + LISTED + KNOWN, autoload="") == ["True", "True"]


def test_import_before_pyiqa(python):
    assert python("import lifeiqa_plugin\n" + PYIQA + LISTED + KNOWN) == ["True", "True"]


def test_import_after_pyiqa(python):
    tables = "import pyiqa.default_model_configs, pyiqa.utils.registry\n"
    assert python(PYIQA + tables + LISTED + "import lifeiqa_plugin\n" + LISTED + KNOWN) == [
        "False",
        "True",
        "True",
    ]


def test_import_is_light(python):
    heavy = "import sys, lifeiqa_plugin; print(sorted({'torch', 'pyiqa', 'numpy', 'timm'} & set(sys.modules)))"
    assert python(heavy) == ["[]"]


def test_hook_imports_nothing(python):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
before = set(sys.modules)
import _lifeiqa_autoload
_lifeiqa_autoload.start()
print(*set(sys.modules) - before)
"""
    assert python(code, autoload="1", flags=("-S", "-I")) == ["_lifeiqa_autoload"]


def test_start_up_files_call_start(python):
    """Python runs the lines of a ``.pth`` that begin with import, and what a ``.start`` names (from 3.15 on)."""
    (line,) = (ROOT / "_lifeiqa_autoload.pth").read_text().splitlines()
    assert line.startswith("import ")
    assert python(line + "\n" + PYIQA + LISTED, autoload="1") == ["True"]
    (name,) = (ROOT / "_lifeiqa_autoload.start").read_text().splitlines()
    assert pkgutil.resolve_name(name) is importlib.import_module("_lifeiqa_autoload").start


@pytest.mark.parametrize(("value", "finders"), [("0", "0"), ("1", "1"), ("", "1")])
def test_switch(python, value, finders):
    code = """
import sys, _lifeiqa_autoload
_lifeiqa_autoload.start()
print(sum(isinstance(finder, _lifeiqa_autoload.Finder) for finder in sys.meta_path))
"""
    assert python(code, autoload=value) == [finders]


def test_again_and_again(python):
    code = """
import lifeiqa_plugin, _lifeiqa_autoload
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils.registry import ARCH_REGISTRY
count = len(DEFAULT_CONFIGS)
for _ in range(3):
    lifeiqa_plugin.register()
    _lifeiqa_autoload.start()
    _lifeiqa_autoload.register_objects()
print(len(DEFAULT_CONFIGS) == count, [type(finder).__name__ for finder in sys.meta_path].count("Finder"))
"""
    assert python(PYIQA + code, autoload="") == ["True", "1"]


def test_reload(python):
    code = (
        "import lifeiqa_plugin, pyiqa.default_model_configs as configs\nimportlib.reload(configs)\n"
    )
    assert python(PYIQA + code + LISTED) == ["True"]


def test_entry_of_the_user_is_kept(python, tmp_path):
    folder = other_pyiqa(tmp_path, "DEFAULT_CONFIGS = {'lifeiqa': 'mine'}")
    code = "import lifeiqa_plugin, pyiqa.default_model_configs as configs; print(configs.DEFAULT_CONFIGS['lifeiqa'])"
    assert python(code, folder) == ["mine"]


def test_two_finders_that_ask_each_other(python):
    """Each asks the other once, not until the stack is full."""
    code = """
import lifeiqa_plugin
class Rival:
    asked = []
    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        return next(filter(None, specs), None)
sys.meta_path.insert(0, Rival())
"""
    assert python(
        PYIQA + code + LISTED + KNOWN + "print(Rival.asked.count('pyiqa.utils.registry'))"
    ) == [
        "True",
        "True",
        "2",
    ]


def test_pyiqa_in_a_zip_archive(python, tmp_path):
    """There all modules share one loader; the hook must fill its two and leave the others alone."""
    folder = other_pyiqa(
        tmp_path / "source",
        "DEFAULT_CONFIGS = {}",
        "class ARCH_REGISTRY:\n    names = {}\n    register_lazy = names.__setitem__",
    )
    (folder / "pyiqa" / "last.py").write_text("DEFAULT_CONFIGS = {}")
    archive = shutil.make_archive(tmp_path / "archive", "zip", folder)
    code = """
import lifeiqa_plugin, pyiqa.default_model_configs as configs, pyiqa.utils.registry as registry, pyiqa.last as last
print(*configs.DEFAULT_CONFIGS, *registry.ARCH_REGISTRY.names, *last.DEFAULT_CONFIGS)
"""
    assert python(code, archive) == ["lifeiqa", "lifeiqa-biq2021", "LifeIQA"]


@pytest.mark.parametrize(
    ("configs", "registry", "message"),
    [
        (
            "",
            "",
            "cannot register lifeiqa in pyiqa.default_model_configs: module 'pyiqa.default_model_configs' has no ",
        ),
        (
            "DEFAULT_CONFIGS = {}",
            "ARCH_REGISTRY = 1",
            "cannot register lifeiqa in pyiqa.utils.registry: 'int' object ",
        ),
    ],
)
def test_pyiqa_with_other_tables(python, tmp_path, configs, registry, message):
    """The hook lets such a pyiqa load in peace, the explicit call says what is wrong."""
    code = """
import _lifeiqa_autoload
_lifeiqa_autoload.install()
import pyiqa.default_model_configs, pyiqa.utils.registry
try:
    import lifeiqa_plugin
except RuntimeError as error:
    print(error)
"""
    text = " ".join(python(code, other_pyiqa(tmp_path, configs, registry)))
    assert text.startswith(message)
    assert text.endswith(
        "Wanted the tables of pyiqa 0.1.16 or newer: pip install --upgrade 'pyiqa>=0.1.16'"
    )


def stage(folder):
    """What ``pip install --target`` puts into a folder, whose start-up files no Python reads."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lifeiqa_plugin", folder / "lifeiqa_plugin", ignore=unwanted)
    for name in ("_lifeiqa_autoload.py", "_lifeiqa_autoload.pth"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_a_target_folder_needs_the_import(run_python, tmp_path):
    """``pip install --target folder`` with ``PYTHONPATH=folder``."""
    folder = stage(tmp_path / "target")
    code = PYIQA + NO_ENTRY_POINTS + LISTED + "import lifeiqa_plugin\n" + LISTED + KNOWN
    code += "print(lifeiqa_plugin.__file__)"
    environ = {"PYTHONPATH": str(folder), "LIFEIQA_AUTOLOAD": "0"}
    done = run_python("-W", "error", "-c", code, cwd=tmp_path, **environ)
    expected = ["False", "True", "True", str(folder / "lifeiqa_plugin" / "__init__.py")]
    assert (done.stdout.split(), done.stderr) == (expected, "")


@pytest.mark.slow
def test_a_zip_application_needs_the_import(run_python, tmp_path):
    """The bundled weights are read out of the archive too."""
    folder = stage(tmp_path / "source")
    (folder / "__main__.py").write_text(
        "import lifeiqa_plugin, pyiqa, torch\n"
        "metric = pyiqa.create_metric('lifeiqa', device='cpu')\n"
        "print(lifeiqa_plugin.__file__, metric(torch.full((1, 3, 64, 64), 0.5)).item())\n"
    )
    archive = tmp_path / "application.pyz"
    zipapp.create_archive(folder, archive)
    done = run_python(archive, cwd=tmp_path, LIFEIQA_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr
    path, score = done.stdout.split()[-2:]
    assert path == str(archive / "lifeiqa_plugin" / "__init__.py")
    assert 0 < float(score) < 1


def test_every_metric_has_its_weights_and_all_bundled_weights_their_metric():
    metrics = importlib.import_module("_lifeiqa_autoload").METRICS
    models = importlib.import_module("lifeiqa_plugin.checkpoints.models")
    named = {
        name: about["metric_opts"].get("pretrained", models.DEFAULT)
        for name, about in metrics.items()
    }
    assert named == {name: name for name in models.BUNDLED}


def test_public_names():
    package = importlib.import_module("lifeiqa_plugin")
    assert package.__all__
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(
        AttributeError, match=r"has no attribute 'LifeIQ'; its public names are \['LifeIQA', "
    ):
        package.LifeIQ  # noqa: B018 -- the lookup is what is tested


def test_citation_has_the_version():
    package = importlib.import_module("lifeiqa_plugin")
    assert f"\nversion: {package.__version__}\n" in (ROOT / "CITATION.cff").read_text()


class TestPyiqa:
    """With all of pyiqa, in this process."""

    @pytest.fixture(autouse=True)
    def registered(self):
        importlib.import_module("lifeiqa_plugin")

    def test_listed(self):
        import pyiqa

        assert "lifeiqa" in pyiqa.list_models("NR")
        assert "lifeiqa" not in pyiqa.list_models("FR")

    def test_metric(self):
        import pyiqa
        import torch

        metric = pyiqa.create_metric("lifeiqa", device=torch.device("cpu"))
        assert type(metric.net).__name__ == "LifeIQA"
        assert (metric.metric_mode, metric.lower_better, metric.score_range) == (
            "NR",
            False,
            "0, 1",
        )
        scores = metric(torch.rand(2, 3, 64, 80))
        assert scores.shape == (2, 1)
        assert ((scores >= 0) & (scores <= 1)).all()

    def test_option_file(self):
        from pyiqa.archs import build_network

        assert type(build_network({"type": "LifeIQA"})).__name__ == "LifeIQA"

    def test_unknown_option(self):
        import pyiqa

        with pytest.raises(TypeError, match="number_of_experts"):
            pyiqa.create_metric("lifeiqa", number_of_experts=3)

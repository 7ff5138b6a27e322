"""Installing for real: every kind of install, in an environment of its own, used by a Python of its own.

The environments see the packages of the running one (except this plugin), so that none has to be downloaded, and
everything is built offline. ``PYIQA`` loads pyiqa's tables alone; the last tests load all of pyiqa.
"""

from __future__ import annotations

import csv
import shutil
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lifeiqa_plugin import __version__, score

pytestmark = pytest.mark.install

ROOT = Path(__file__).parent.parent
SOURCES = [
    "LICENSE", "MANIFEST.in", "README.md", "_lifeiqa_autoload.pth", "_lifeiqa_autoload.py", "_lifeiqa_autoload.start",
    "lifeiqa_plugin", "light", "options", "pyproject.toml", "setup.py",
]  # fmt: skip
OFFLINE = [
    "--no-index",
    "--no-deps",
    "--no-build-isolation",
    "--disable-pip-version-check",
    "--quiet",
]
LIGHT = ["PIL", "numpy", "onnxruntime", "pyarrow", "tqdm"]
EDITABLE = {"editable": "lenient", "editable strict": "strict", "editable compat": "compat"}

PYIQA = """
import importlib.util, sys
for name in ("pyiqa", "pyiqa.utils"):
    sys.modules[name] = importlib.util.module_from_spec(importlib.util.find_spec(name))
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from pyiqa.utils.registry import ARCH_REGISTRY
"""
LISTED = PYIQA + "print('lifeiqa' in DEFAULT_CONFIGS)\n"
NOT_PYTHON = "class"
ASKED_FOR = """
try:
    ARCH_REGISTRY.get('LifeIQA')
except Exception as error:
    print(type(error).__name__, error)
"""
NO_NETWORK = """
import socket
def refuse(self, address):
    raise OSError(f"connects to {address}")
socket.socket.connect = refuse
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the folder its commands run in, which holds nothing."""

    folder: Path
    run_python: Any

    @property
    def site_packages(self) -> Path:
        return next((self.folder / "lib").glob("python*/site-packages"))

    def run(self, *arguments, silent=True, **environ):
        """Return what ``python *arguments`` printed; it must succeed and, if silent, write nothing to stderr."""
        cwd = self.folder / "empty"
        done = self.run_python(
            *arguments, cwd=cwd, python=self.folder / "bin" / "python", **environ
        )
        assert done.returncode == 0, done.stderr
        assert not silent or done.stderr == ""
        return done.stdout.strip()

    def pip(self, *arguments):
        self.run("-m", "pip", *arguments, silent=False)

    def files(self):
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if not path.is_dir()
        }


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """The running environment's packages without this plugin: a folder of links."""
    links = tmp_path_factory.mktemp("packages")
    folders = [Path(folder) for folder in sys.path if any(Path(folder).glob("*.dist-info"))]
    entries = {
        entry.name: entry for folder in reversed(folders) for entry in folder.iterdir()
    }  # the first folder wins
    for name, entry in entries.items():
        if "lifeiqa" not in name:
            (links / name).symlink_to(entry)
    return links


@pytest.fixture(scope="module")
def light(tmp_path_factory, packages, built, run_python):
    """An environment with the light wheel and what it requires: no torch, no pyiqa, no pip."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, symlinks=True)
    (folder / "empty").mkdir()
    environment = Environment(folder, run_python)
    for name in LIGHT:
        (environment.site_packages / name).symlink_to(packages / name)
    for libraries in packages.glob("*.libs"):
        (environment.site_packages / libraries.name).symlink_to(libraries)
    python = folder / "bin" / "python"
    done = run_python(
        "-m", "pip", "--python", python, "install", *OFFLINE, built["light"], cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory, packages, run_python):
    def make():
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, symlinks=True)
        (folder / "empty").mkdir()
        environment = Environment(folder, run_python)
        (environment.site_packages / "packages.pth").write_text(f"{packages}\n")
        return environment

    return make


@pytest.fixture(scope="session")
def copy_sources(tmp_path_factory):
    """Copy what a build needs, because building leaves its traces in the checkout."""

    def copy():
        folder = tmp_path_factory.mktemp("checkout")
        for name in SOURCES:
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__")
            (
                shutil.copytree(source, folder / name, ignore=ignore)
                if source.is_dir()
                else shutil.copy(source, folder)
            )
        return folder

    return copy


@pytest.fixture(scope="session")
def built(tmp_path_factory, copy_sources, run_python):
    """The wheel, the sdist and the light wheel: name -> path."""
    folder, checkout = tmp_path_factory.mktemp("dist"), copy_sources()
    wheel, sdist = (f"build_{kind}({str(folder)!r})" for kind in ("wheel", "sdist"))
    for code, cwd in ((f"{sdist}; {wheel}", checkout), (wheel, checkout / "light")):
        done = run_python("-c", f"from setuptools.build_meta import *; {code}", cwd=cwd)
        assert done.returncode == 0, done.stderr
    [light], [sdist] = folder.glob("*+light-*.whl"), folder.glob("*.tar.gz")
    [wheel] = set(folder.glob("*.whl")) - {light}
    return {"wheel": wheel, "sdist": sdist, "light": light}


@pytest.fixture(scope="module", params=["wheel", "sdist", *EDITABLE])
def installed(request, make_environment, built, copy_sources):
    """An environment with the plugin installed, and whether that is an editable install."""
    environment = make_environment()
    if request.param in EDITABLE:
        mode = f"--config-settings=editable_mode={EDITABLE[request.param]}"
        environment.pip("install", *OFFLINE, mode, "--editable", copy_sources())
    else:
        environment.pip("install", *OFFLINE, built[request.param])
    return environment


@pytest.fixture(scope="module")
def from_wheel(make_environment, built):
    environment = make_environment()
    environment.pip("install", *OFFLINE, built["wheel"])
    return environment


@pytest.fixture
def clone(tmp_path):
    """Copy an environment, so that a test can break or empty it."""

    def copy(environment):
        folder = shutil.copytree(environment.folder, tmp_path / "clone", symlinks=True)
        return Environment(folder, environment.run_python)

    return copy


@pytest.mark.parametrize(
    "flags", [["-W", "error"], ["-W", "error", "-I"]], ids=["python", "python -I"]
)
def test_listed_without_an_import(installed, flags):
    assert installed.run(*flags, "-c", LISTED) == "True"


def test_listed_in_a_spawned_worker(installed):
    script = installed.folder / "spawn.py"
    script.write_text(f"""
import multiprocessing
def listed():
    exec({LISTED!r})
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=listed)
    worker.start()
    worker.join()
""")
    assert installed.run("-W", "error", script) == "True"


def test_switched_off(installed):
    assert installed.run("-c", LISTED, LIFEIQA_AUTOLOAD="0") == "False"


def test_python_starts_in_silence(installed):
    assert installed.run("-W", "error", "-c", "") == ""


def test_entry_point(installed):
    """Finds the architecture without the hook, and does not list the metric behind the user's back."""
    code = PYIQA + "print('LifeIQA' in ARCH_REGISTRY, 'lifeiqa' in DEFAULT_CONFIGS)"
    assert installed.run("-W", "error", "-c", code, LIFEIQA_AUTOLOAD="0") == "True False"


def test_package_data(installed):
    names = {file.name for file in (ROOT / "lifeiqa_plugin" / "checkpoints").glob("*.[os]*")}
    code = """
import lifeiqa_plugin, pathlib
folder = pathlib.Path(lifeiqa_plugin.__file__).parent
print((folder / "py.typed").exists(), *sorted(file.name for file in (folder / "checkpoints").glob("*.[os]*")))
"""
    assert names
    assert installed.run("-c", code).split() == ["True", *sorted(names)]


def test_recipes_are_found_by_name_from_any_folder(installed):
    """The option files of the checkout; a new one of one's own is written from them, and is read."""
    names = sorted(path.stem for path in (ROOT / "options" / "train").glob("*.yml"))
    code = """
from lifeiqa_plugin.training.recipes import recipes
for name, path in recipes().items():
    path.read_text()
    print(name)
"""
    assert names
    assert sorted(installed.run("-c", code).split()) == names
    environment = installed.folder / "empty" / "own"
    installed.run("-m", "lifeiqa_plugin", "train", "--new", environment / "mine.yml")
    code = (
        "import sys; from lifeiqa_plugin.training.options import read_options; "
        "print(read_options(sys.argv[1])['name'])"
    )
    assert installed.run("-c", code, environment / "mine.yml") == "mine"
    shutil.rmtree(environment)


def test_uninstall_leaves_nothing(installed, clone, make_environment):
    environment = clone(installed)
    environment.run("-c", LISTED)
    environment.pip("uninstall", "--yes", "--quiet", "lifeiqa_plugin")
    assert environment.files() - {"spawn.py"} == make_environment().files()
    assert environment.run("-W", "error", "-c", LISTED) == "False"


def test_wheel_installs_two_names_only(built, tmp_path):
    shutil.unpack_archive(built["wheel"], tmp_path, "zip")
    names = {entry.name for entry in tmp_path.iterdir() if entry.suffix != ".dist-info"}
    hook = {"_lifeiqa_autoload.py", "_lifeiqa_autoload.pth", "_lifeiqa_autoload.start"}
    assert names == {"lifeiqa_plugin"} | hook


def test_the_full_and_the_light_install_replace_each_other(make_environment, built):
    """Both have the same files, and so may not be there side by side."""
    environment = make_environment()
    code = """
from importlib.metadata import requires, version
print(version("lifeiqa_plugin"), any(name.startswith("pyiqa") for name in requires("lifeiqa_plugin")))
"""
    for name, says in (("light", "+light False"), ("wheel", " True"), ("light", "+light False")):
        environment.pip("install", *OFFLINE, built[name])
        assert environment.run("-c", code) == __version__ + says
        assert len(list(environment.site_packages.glob("lifeiqa_plugin*.dist-info"))) == 1


def package_is_missing(site_packages):
    shutil.rmtree(site_packages / "lifeiqa_plugin")


def package_is_broken(site_packages):
    (site_packages / "lifeiqa_plugin" / "__init__.py").write_text(NOT_PYTHON)


def hook_is_missing(site_packages):
    (site_packages / "_lifeiqa_autoload.py").unlink()


def hook_is_broken(site_packages):
    (site_packages / "_lifeiqa_autoload.py").write_text(NOT_PYTHON)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (package_is_missing, "ModuleNotFoundError No module named 'lifeiqa_plugin'"),
        (package_is_broken, "SyntaxError invalid syntax (__init__.py, line 1)"),
    ],
)
def test_broken_package(from_wheel, clone, damage, error):
    """Python and pyiqa do not notice, and who asks for the metric is told the truth."""
    environment = clone(from_wheel)
    damage(environment.site_packages)
    assert environment.run("-W", "error", "-c", LISTED + ASKED_FOR).splitlines() == ["True", error]


@pytest.mark.parametrize("damage", [hook_is_missing, hook_is_broken])
def test_broken_hook(from_wheel, clone, damage):
    """The ``.pth`` left behind alone is harmless."""
    environment = clone(from_wheel)
    damage(environment.site_packages)
    assert environment.run("-W", "error", "-c", LISTED) == "False"


def test_checkout_has_moved(make_environment, copy_sources):
    environment, checkout = make_environment(), copy_sources()
    environment.pip("install", *OFFLINE, "--editable", checkout)
    checkout.rename(checkout.with_name("moved"))
    error = "ModuleNotFoundError No module named 'lifeiqa_plugin'"
    assert environment.run("-W", "error", "-c", LISTED + ASKED_FOR).splitlines() == ["True", error]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="Python reads .start files from 3.15 on")
def test_start_file_alone(from_wheel, clone):
    environment = clone(from_wheel)
    (environment.site_packages / "_lifeiqa_autoload.pth").unlink()
    assert environment.run("-W", "error", "-c", LISTED) == "True"


def test_command_lists_it(from_wheel):
    assert "'lifeiqa'" in from_wheel.run("-I", "-m", "pyiqa.pyiqa_cmd", "-ls", silent=False)


def test_metric_scores_offline(from_wheel):
    code = (
        NO_NETWORK
        + """
import pyiqa, torch
print(0 <= pyiqa.create_metric("lifeiqa", device="cpu")(torch.full((1, 3, 64, 64), 0.5)).item() <= 1)
"""
    )
    assert from_wheel.run("-c", code, silent=False) == "True"


def test_broken_package_under_all_of_pyiqa(from_wheel, clone):
    environment = clone(from_wheel)
    package_is_broken(environment.site_packages)
    code = """
import pyiqa
try:
    pyiqa.create_metric("lifeiqa")
except SyntaxError as error:
    print("the real error:", error)
"""
    assert environment.run("-c", code, silent=False).startswith("the real error: invalid syntax")


def test_light_install_scores_as_torch_does(light):
    """Without torch and pyiqa, neither of which can be imported there."""
    photos = sorted((ROOT / "examples" / "photos").glob("c*_0_clean.jpg"))
    assert len(photos) == 3
    for package in ("torch", "pyiqa", "pandas", "scipy"):
        assert (
            light.run("-c", f"import importlib.util as u; print(u.find_spec({package!r}))")
            == "None"
        )
    light.run("-m", "lifeiqa_plugin", "score", *photos, "-o", "scores.csv", silent=False)
    with open(light.folder / "empty" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = list(score(photos, engine="torch", device="cpu"))
    for row, image in zip(rows, expected, strict=True):
        assert (row["path"], row["error"]) == (image.name, "")
        assert float(row["score"]) == pytest.approx(image.score, abs=1e-4)
        assert float(row["std"]) == pytest.approx(image.std, abs=1e-4)


def test_light_install_writes_a_report_without_maps(light):
    folder = ROOT / "examples" / "photos"
    light.run("-m", "lifeiqa_plugin", "report", folder, "-o", "page.html", silent=False)
    assert "no flaw named" in (light.folder / "empty" / "page.html").read_text(encoding="utf-8")


def test_light_install_names_what_it_lacks(light):
    code = """
from lifeiqa_plugin.runtimes import create_engine
for engine in ("torch", "openvino"):
    try:
        create_engine(engine)
    except ImportError as error:
        print(error)
"""
    assert light.run("-c", code).splitlines() == [
        "engine torch is not installed: pip install . in a checkout of lifeiqa_plugin",
        "engine openvino is not installed: pip install 'lifeiqa_plugin[openvino]' or openvino",
    ]


@pytest.mark.parametrize(
    ("command", "package"),
    [("explain {photo} -o out", "torch"), ("train -opt quick", "pydantic")],
)
def test_light_install_says_in_one_line_what_a_command_needs(light, command, package):
    arguments = command.format(photo=ROOT / "examples/photos/coffee_0_clean.jpg").split()
    python, folder = light.folder / "bin" / "python", light.folder / "empty"
    done = light.run_python("-m", "lifeiqa_plugin", *arguments, cwd=folder, python=python)
    assert done.returncode == 1
    assert done.stderr == (
        f"lifeiqa {arguments[0]}: needs {package}, which is not installed; "
        "pip install . in a checkout brings all that the commands need\n"
    )

"""Packaging. Two things are unusual: the start-up hook, see ``BuildWithStartUp``, and ``light/setup.py``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
RECIPES = "lifeiqa_plugin.recipes"  # the option files of the checkout, not a copy of them
START_UP = ["_lifeiqa_autoload.py", "_lifeiqa_autoload.pth", "_lifeiqa_autoload.start"]

# Each bound is one that the tests have passed with, see CONTRIBUTING.md.
LIGHT = [  # all that `lifeiqa score` needs
    "numpy>=2.0.2",
    "onnxruntime>=1.20.0",
    "pillow>=11.3.0",
    "pyarrow>=18.0.0",
    "tqdm>=4.66.3",
]
REQUIRED = [
    *LIGHT,
    "pyiqa>=0.1.16",
    "torch>=2.6.0",
    "torchvision>=0.21.0",
    "timm>=1.0.24",
    "safetensors>=0.4.5",
    "scipy>=1.13.1",
    "pandas>=2.2.3",
    "pydantic>=2.11",
    "PyYAML>=6.0.1",
    "tabulate>=0.9.0",
]
EXPLAIN = ["matplotlib"]  # figures of explanations
ONNX = ["onnx>=1.18", "onnx-ir>=0.1.3", "onnxscript>=0.5"]  # what lifeiqa export writes
TEST = [*EXPLAIN, "cogapp", "hypothesis>=6.100", "pytest>=8", "pytest-xdist>=3.6", "setuptools>=64"]
TEST += ["torchmetrics>=1.4", "websocket-client", "wheel"]
EXTRAS = {
    "train": ["openpyxl"],  # CSIQ's scores are a spreadsheet; pyiqa brings all else
    "explain": EXPLAIN,
    "onnx": ONNX,
    "openvino": [*ONNX, "openvino>=2024.4"],
    "figures": ["matplotlib"],  # lifeiqa benchmark --figures
    "ray": ["ray[data]>=2.60"],
    "scatter": ["torch-scatter>=2.1.2"],
    "completion": ["argcomplete"],
    "serve": [
        "fastapi>=0.115",
        "prometheus-client>=0.21",
        "python-multipart>=0.0.18",
        "uvicorn>=0.32",
    ],
    "test": TEST,
    "docs": ["ipykernel", "matplotlib", "mkdocs-material>=9.5", "nbclient"],
    "dev": [*TEST, "build", "mypy", "ruff"],
}


class BuildWithStartUp(build_py):
    """Also put ``START_UP`` at the top level of every wheel: Python reads ``.pth`` files in site-packages only.

    An editable wheel has no code of the package, only a pointer to the checkout. Setuptools builds it in a folder
    that it calls the ``install`` command's ``install_lib``, and throws ``build_lib`` away. The three files are copied
    there, hook included, so that a checkout which has moved cannot leave a dangling ``.pth``.
    """

    def run(self) -> None:
        """Build as usual, then copy ``START_UP``."""
        super().run()
        for name in START_UP:
            self.copy_file(name, os.path.join(self._top_level(), name))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Name the copies too, where there is a ``build_lib`` that holds them."""
        copies = (
            [] if self.editable_mode else [os.path.join(self.build_lib, name) for name in START_UP]
        )
        return [*super().get_outputs(include_bytecode), *copies]

    def get_source_files(self) -> list[str]:
        """Name ``START_UP`` too: this list is what a source distribution contains."""
        return [*super().get_source_files(), *START_UP]

    def _top_level(self) -> str:
        return (
            self.get_finalized_command("install").install_lib
            if self.editable_mode
            else self.build_lib
        )


def read_version() -> str:
    """Read ``__version__`` without importing the package, which may lack its dependencies now."""
    source = (ROOT / "lifeiqa_plugin" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


is_light = __name__ == "light"  # as light/setup.py runs this file
setup(
    name="lifeiqa_plugin",
    version=read_version() + "+light" * is_light,
    description="Life-IQA, a no-reference image quality metric, as a plugin to pyiqa (IQA-PyTorch)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The lifeiqa_plugin authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="image quality assessment, no-reference, blind, IQA, pyiqa, PyTorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    install_requires=LIGHT if is_light else REQUIRED,
    extras_require=EXTRAS,
    packages=[*find_packages(include=["lifeiqa_plugin", "lifeiqa_plugin.*"]), RECIPES],
    package_dir={RECIPES: "options/train"},
    package_data={
        RECIPES: ["*.yml"],
        "lifeiqa_plugin": [
            "py.typed",
            "checkpoints/*.onnx",
            "checkpoints/*.safetensors",
            "checkpoints/*.trained_on",
            "datasets/*.csv",
            "benchmark/page.html",
            "page/*.css",
            "page/*.html",
            "page/*.js",
            "report/*.css",
            "report/*.html",
            "report/*.js",
        ],
    },
    include_package_data=False,
    zip_safe=False,
    cmdclass={"build_py": BuildWithStartUp},
    # pyiqa calls the others when it first looks up an unknown name; more than one call does no harm.
    entry_points={
        "console_scripts": ["lifeiqa = lifeiqa_plugin.cli:main"],
        **{
            f"pyiqa.{group}": ["lifeiqa = _lifeiqa_autoload:register_objects"]
            for group in ("archs", "datasets", "losses", "models")
        },
    },
)

"""``tools/hub_folder.py``: a folder that a hub takes as it is, and that scores as the bundled model does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lifeiqa_plugin.checkpoints.models import BUNDLED, resolve

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", BUNDLED)
def test_a_folder_for_a_hub(run_python, tmp_path, name):
    done = run_python(ROOT / "tools/hub_folder.py", name, "hub", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "hub"
    files = ["LICENSE", "README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert resolve(folder).sha256 == resolve(name).sha256
    assert json.loads((folder / "config.json").read_text())["backbone"] == "tf_efficientnet_lite2"


def test_the_head_of_a_card_is_one_that_hubs_read():
    hub = pytest.importorskip("huggingface_hub")
    for name in BUNDLED:
        card = hub.ModelCard.load(ROOT / f"docs/card_{name}.md")
        assert (card.data.license, card.data.library_name) == ("apache-2.0", "pyiqa")
        assert f"# Model card: `{name}`" in card.content

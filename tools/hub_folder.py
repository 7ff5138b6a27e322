"""Write a folder that can be pushed to a model hub as it is: weights, card, config and license.

python tools/hub_folder.py lifeiqa hub/lifeiqa
lifeiqa score photo.jpg --model hub/lifeiqa
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from lifeiqa_plugin.checkpoints.files import read_checkpoint
from lifeiqa_plugin.checkpoints.models import BUNDLED, resolve

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=BUNDLED)
    parser.add_argument("folder", type=Path, help="is made; must not be there")
    args = parser.parse_args()
    model = resolve(args.model)
    args.folder.mkdir(parents=True)
    shutil.copyfile(model.path, args.folder / "model.safetensors")
    shutil.copyfile(ROOT / "docs" / f"card_{args.model}.md", args.folder / "README.md")
    shutil.copyfile(ROOT / "LICENSE", args.folder / "LICENSE")
    config = {"type": "LifeIQA", **(read_checkpoint(model.path).config or {})}
    (args.folder / "config.json").write_text(f"{json.dumps(config, indent=1)}\n", "utf-8")


if __name__ == "__main__":
    main()

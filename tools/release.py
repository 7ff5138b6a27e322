r"""Turn the best checkpoint of a training run into the one that ships: matrices as float16, half the size.

    python tools/release.py experiments/NAME/models/net_best.safetensors lifeiqa_plugin/checkpoints/lifeiqa.safetensors

Prints the digest that ``lifeiqa_plugin/checkpoints/files.py`` checks.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa
from lifeiqa_plugin.checkpoints.files import read_checkpoint, save_checkpoint


def main() -> None:
    """Parse the command line, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="as 'lifeiqa train' wrote it")
    parser.add_argument("out", type=Path, help="safetensors file to write")
    args = parser.parse_args()
    card = read_checkpoint(args.checkpoint).card
    if card is None:
        raise SystemExit(
            f"{args.checkpoint}: not written by 'lifeiqa train', which says what it was trained on"
        )
    save_checkpoint(build_lifeiqa(pretrained_model_path=args.checkpoint), args.out, card, half=True)
    print(
        f"sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}, {args.out.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()

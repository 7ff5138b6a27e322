r"""Turn the best checkpoint of a training run into the one that ships: error line fitted, matrices halved.

    python tools/release.py experiments/train_LifeIQA_bundled/models/net_best.safetensors meta_info_biq2021.csv \
        BIQ2021_FOLDER lifeiqa_plugin/weights/lifeiqa.safetensors

The line from spread to expected error (``std_line``) is fitted to the val part, which also chose the epoch; the test
part is not read. Prints the digest that ``lifeiqa_plugin/weights.py`` checks.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from calibration import collect, fit_std_line

from lifeiqa_plugin.data import LifeIQADataset
from lifeiqa_plugin.weights import build_lifeiqa, read_checkpoint, save_checkpoint


def main() -> None:
    """Parse the command line, score the val part, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="as 'lifeiqa train' wrote it")
    parser.add_argument("meta", type=Path, help="csv of the training set")
    parser.add_argument("root", type=Path, help="its folder")
    parser.add_argument("out", type=Path, help="safetensors file to write")
    args = parser.parse_args()
    card = read_checkpoint(args.checkpoint).card
    if card is None:
        raise SystemExit(f"{args.checkpoint}: not written by 'lifeiqa train', which says what it was trained on")
    network = build_lifeiqa(pretrained_model_path=args.checkpoint, std_line=(0.0, 1.0)).eval()
    opt = {"phase": "val", "meta_info_file": str(args.meta), "dataroot_target": str(args.root)}
    mos, scores, spreads = collect(network, LifeIQADataset(opt | {"split_index": "official_split"}))
    network.config["std_line"] = fit_std_line(scores - mos, spreads)
    save_checkpoint(network, args.out, card, half=True)
    print(f"std_line {network.config['std_line']}")
    print(f"sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

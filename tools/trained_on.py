"""Write the list of digests beside a bundled model: of the images whose scores it learnt.

    lifeiqa prepare biq2021 BIQ2021 && lifeiqa prepare livec ChallengeDB_release && lifeiqa prepare agiqa3k AGIQA-3K
    BIQ=meta_info_biq2021.csv@BIQ2021 LIVEC=meta_info_livec.csv@ChallengeDB_release AGIQA=meta_info_agiqa3k.csv@AGIQA-3K
    python tools/trained_on.py lifeiqa-biq2021 $BIQ
    python tools/trained_on.py lifeiqa $BIQ $LIVEC $AGIQA

Each CSV@FOLDER gives the rows that are ``train`` in its column ``bundled_split``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lifeiqa_plugin.checkpoints.models import BUNDLED, resolve
from lifeiqa_plugin.datasets.labelled import read_labelled
from lifeiqa_plugin.datasets.trained_on import TrainedOn, digests_of


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=list(BUNDLED))
    parser.add_argument("sets", nargs="+", metavar="CSV@FOLDER")
    args = parser.parse_args()
    paths = []
    for item in args.sets:
        meta, _, folder = item.partition("@")
        dataset = read_labelled(Path(meta), folder, only={"bundled_split": "train"})
        paths += [image.path for image in dataset.images]
    found = TrainedOn.build(digests_of(paths))
    out = resolve(args.model).path.with_suffix(".trained_on")
    out.write_text(found.to_text(), encoding="utf-8")
    print(f"{out}: {found.images:,} images, {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

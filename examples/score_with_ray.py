"""Score WebDataset shards on a cluster with Ray Data; rows as those of `lifeiqa score`, `path` is the sample's key.

    python examples/score_with_ray.py shards scores  # every .tar of a folder that all machines see

Groups of shards become a folder of Parquet each. Given again, it goes on with the groups that have none yet.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import ray

from lifeiqa_plugin.scoring.ray import Scorer

GROUP = 64
"""Shards whose rows are lost if everything ends at once; Ray itself replaces workers that end."""


def main() -> None:
    """Score group by group, all workers at each."""
    folder, out = (Path(argument).absolute() for argument in sys.argv[1:])
    shards = sorted(map(str, folder.glob("*.tar")))
    for i in range(0, len(shards), GROUP):
        target, part = out / Path(shards[i]).stem, out / "part"
        if target.exists():
            continue
        shutil.rmtree(part, ignore_errors=True)
        images = ray.data.read_webdataset(shards[i : i + GROUP], decoder=None)
        workers = ray.data.ActorPoolStrategy(
            min_size=1, max_size=1000
        )  # as many as there are cores
        scored = images.map_batches(Scorer, batch_size=512, compute=workers)
        scored.write_parquet(str(part))
        part.rename(target)  # whole, or not there
        print(f"written: {target}", flush=True)


if __name__ == "__main__":
    main()

"""Ask the query of a seed again and print the smallest query that is still wrong: `python -m tests.equivalence.replay SEED...`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.cluster import in_process_cluster, load_skies
from tests.support.harness import Harness
from tests.support.sky_builder import build_sky


def main(seeds: list[str]) -> None:
    """Replay each seed over the skies of the suite, in this process."""
    skies = [build_sky(seed) for seed in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with in_process_cluster(load_skies(root, skies), root / "work") as cluster:
            harness = Harness(cluster, skies)
            for text in seeds:
                seed = int(text) if text.isdigit() else text
                print(harness.replay(seed) or f"seed {seed}: no difference")


if __name__ == "__main__":
    main(sys.argv[1:])

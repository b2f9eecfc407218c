"""Print the text-to-image recall of the codes, relative to the backbone alone.

python -m tests.benchmarks.recall scenes --split test
"""

from __future__ import annotations

import argparse
import json

from sieve.data_prep.bundled import locate_collection
from sieve.model.checkpoint import Checkpoint, find_checkpoint
from sieve.model.collection import Collection
from sieve.model.training.validation import code_quality


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection")
    parser.add_argument("--checkpoint")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    collection = Collection.open(locate_collection(args.collection))
    checkpoint = Checkpoint.load(args.checkpoint or find_checkpoint(collection))
    found = code_quality(checkpoint.encoder, collection, args.split)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, recall in found["codes"].items():
        dense = found["backbone"][name]
        ratio = recall / max(dense, 1e-9)
        print(f"{name:>10}  codes {recall:.3f}  backbone {dense:.3f}  ratio {ratio:.3f}")
    live = found["dimensions"]
    print(f"live {live['live']:.3f}, of those in both modalities {live['live_in_both']:.3f}")


if __name__ == "__main__":
    main()

"""Ablate the choices of the sparse encoder one at a time, with several seeds.

    python -m tests.benchmarks.ablation COLLECTION --track caption --seeds 0,1,2

Train on the train split and evaluate on the items of the select split (validation) with tuning
pairs, which no benchmark reports; test items are never used. The baseline, in the same run, is the
backbone with tuned subtraction. Encoders are cached as in `sieve evaluate`, so an interrupted run
can be resumed.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.backbone.clip import backbone_of
from sieve.model.benchmark.baselines import TRAINING_FREE
from sieve.model.benchmark.measurement import tune
from sieve.model.benchmark.methods import SIEVE, BackboneEmbeddings, coded, train_method
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.statistics import live_shares
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.metrics import measure_rankings
from sieve.model.evaluation.pairs import (
    PairCriteria,
    PairSet,
    caption_concepts,
    label_concepts,
    select_pairs,
)
from sieve.model.evaluation.rules import PUSH
from sieve.model.hyperparameters import IMAGE, TEXT, TrainingConfig
from sieve.model.training.validation import recall_of_split
from sieve.model.words.nouns import benchmark_nouns

CHANGES: dict[str, dict[str, Any]] = {
    "compact": {},
    "no contrast": {"contrast": 0.0},
    "no reconstruction": {"reconstruct": 0.0},
    "no cross-reconstruction": {"cross": 0.0},
    "no presence": {"presence": 0.0},
    "no narrow presence": {"narrow": 0.0},
    "no assigned words": {"assign": 0.0, "concentrate": 0.0},
    "no concentration": {"concentrate": 0.0},
    "assign 100": {"assign": 100.0},
    "concentrate 1": {"concentrate": 1.0},
    "no exclusion": {"exclude": 0.0},
    "exclusion 3": {"exclude": 3.0},
    "no kinds": {"kinds": False},
    "no balance": {"balance": 0.0},
    "no noise": {"noise": 0.0},
    "noise 0.3": {"noise": 0.3},
    "noise 0.8": {"noise": 0.8},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "no annealing of k": {"anneal": 0.0},
    "k = 32": {"k": 32},
    "k = 128": {"k": 128},
    "k = 32 for texts": {"k_text": 32},
    "floor 0.3": {"floor": 0.3},
    "m = 512": {"m": 512},
    "m = 2048": {"m": 2048},
    "dense control": {"activation": "dense"},
}
CRITERIA = PairCriteria(relevant=5, violating=5)
TRIALS = 60


def select_questions(collection: Collection, track: str) -> PairSet:
    """Return the tuning pairs over the validation items."""
    if track == "label":
        concepts = label_concepts(collection, benchmark_nouns(), CRITERIA)
    else:
        concepts = caption_concepts(collection, benchmark_nouns())
    rows = collection.rows_of_split(["select"])
    return select_pairs(concepts, rows, CRITERIA, tuning=True)


def measure(
    source: BackboneEmbeddings, encoders: Sequence[SparseEncoder], questions: PairSet
) -> dict[str, Any]:
    """Return AP@10 at the best of 60 settings of linear exclusion, and the secondary metrics."""
    spaces = coded(SIEVE, source, encoders).represent(questions)
    setting = tune((PUSH,), spaces, questions.relevant, TRIALS).setting
    found = [
        measure_rankings(setting.scores(s), questions.relevant, questions.violating) for s in spaces
    ]
    plain = [measure_rankings(s["codes"].score(s["codes"].a), questions.has_a).ap for s in spaces]
    ap = [float(np.nanmean(one.ap)) for one in found]
    row = {
        "ap@10": float(np.mean(ap)),
        "spread": float(np.std(ap, ddof=1)) if len(ap) > 1 else 0.0,
        "violation@10": float(np.mean([np.nanmean(one.violation) for one in found])),
        "plain_ap@10": float(np.mean([np.nanmean(one) for one in plain])),
    }
    if encoders[0].config.activation == "dense":
        return row
    quality = [_quality(encoder, source.collection) for encoder in encoders]
    return row | {name: float(np.mean([one[name] for one in quality])) for name in quality[0]}


def _quality(encoder: SparseEncoder, collection: Collection) -> dict[str, float]:
    images = encode_codes(encoder, collection.image_embeddings, IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings, TEXT)
    found = recall_of_split(images, texts, collection, "select")
    ratio = found["codes"]["recall@10"] / max(found["backbone"]["recall@10"], 1e-9)
    return {"recall@10 ratio": ratio, **live_shares(images, texts)}


def subtraction(source: BackboneEmbeddings, questions: PairSet) -> float:
    """Return AP@10 of tuned subtraction on the backbone's own embeddings, raw or centred."""
    raw = source.space(questions)
    spaces = {"raw": raw, "centred": source.centred(raw)}
    return tune((TRAINING_FREE["subtraction"].rule,), [spaces], questions.relevant, TRIALS).ap


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Create a parser with the options of all comparisons of encoders."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("collection")
    parser.add_argument("--track", choices=("label", "caption"), default="caption")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=TrainingConfig().epochs)
    return parser


def main() -> None:
    """Train each variant and print its metrics."""
    parser = arguments(__doc__)
    parser.add_argument("--only", help="comma-separated names of the changes to measure")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    collection = Collection.open(locate_collection(args.collection))
    source = BackboneEmbeddings(collection, backbone_of(collection).encode_texts)
    questions = select_questions(collection, args.track)
    baseline = subtraction(source, questions)
    rows: dict[str, dict[str, Any]] = {}
    for name in args.only.split(",") if args.only else CHANGES:
        encoders = [
            train_method(
                SIEVE,
                collection,
                replace(TrainingConfig(epochs=args.epochs, **CHANGES[name]), seed=int(seed)),
                source.texts,
                n_words=0,
            ).encoder
            for seed in args.seeds.split(",")
        ]
        rows[name] = measure(source, encoders, questions)
        if not args.json:
            print_row(name, rows[name], baseline)
    if args.json:
        found = {"pairs": len(questions), "subtraction": baseline, "rows": rows}
        print(json.dumps(found, indent=1))


def print_row(name: str, row: dict[str, Any], baseline: float) -> None:
    """Print one row of the Markdown table."""
    cells = [
        f"{row['ap@10']:.3f} ± {row['spread']:.3f}",
        f"{row['ap@10'] / baseline:.3f}",
        f"{row['violation@10']:.3f}",
        f"{row['plain_ap@10']:.3f}",
        *(
            f"{row[key]:.3f}" if key in row else "–"
            for key in ("recall@10 ratio", "live", "live_in_both")
        ),
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

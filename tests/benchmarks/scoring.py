"""Compare nonlinear exclusion scores with the linear one, for codes and for dense embeddings.

    python -m tests.benchmarks.scoring COLLECTION --train OTHER --track caption --epochs 6

Uses only validation items and tuning pairs, as `tests.benchmarks.ablation`. The hyperparameters of
each score are drawn `--trials` times per method; the best result is printed with its ratio to the
same method's linear score and a paired confidence interval. The encoders are those of the
benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.backbone.clip import backbone_of
from sieve.model.benchmark.measurement import DEPTH, draw_resamples, paired_ratio, resample
from sieve.model.benchmark.methods import CONTROL, SIEVE, BackboneEmbeddings, coded, train_method
from sieve.model.collection import Collection
from sieve.model.evaluation.metrics import measure_rankings, ranked_rows
from sieve.model.evaluation.pairs import PairSet
from sieve.model.evaluation.rules import Range, Space, dimensions_off
from sieve.model.hyperparameters import TrainingConfig
from tests.benchmarks.ablation import select_questions

RESAMPLES = 400
HYPERPARAMETERS = {
    "push": Range(0.2, 3.0, 1.0, log=True),
    "a_limit": Range(0.0, 1.5, 0.5),
    "b_limit": Range(0.0, 0.9, 0.3),
    "a_width": Range(0.05, 1.0, 0.3, log=True),
    "b_width": Range(0.05, 1.0, 0.3, log=True),
    "ratio": Range(0.7, 3.0, 1.0, log=True),
    "floor": Range(0.0, 0.3, 0.1),
}
"""Hyperparameters; limits and widths are relative to a query's 99th percentile over the items."""


class Parts(NamedTuple):
    """Components of a score, relative to its 99th percentile: (p, n) each."""

    a: np.ndarray
    b: np.ndarray
    a_scale: np.ndarray
    """(p, 1)"""
    b_scale: np.ndarray
    """(p, 1)"""


Knobs = Mapping[str, float]


def _softplus(x: np.ndarray, width: float) -> np.ndarray:
    return width * np.logaddexp(0, x / width)


def _linear(x: Parts, k: Knobs) -> np.ndarray:
    return x.a * x.a_scale - k["push"] * x.b * x.b_scale


def _hinge(x: Parts, k: Knobs) -> np.ndarray:
    return x.a * x.a_scale - k["push"] * np.maximum(x.b - k["b_limit"], 0) * x.b_scale


def _saturating(x: Parts, k: Knobs) -> np.ndarray:
    return x.a * x.a_scale - k["push"] * np.minimum(x.b, k["b_limit"]) * x.b_scale


def _likely(x: Parts, k: Knobs) -> np.ndarray:
    """Penalise by the probability that B is present, a logistic function of its score."""
    return x.a - k["push"] / (1 + np.exp(-(x.b - k["b_limit"]) / k["b_width"]))


def _product(x: Parts, k: Knobs) -> np.ndarray:
    """Return A's score times the probability that B is absent."""
    return np.maximum(x.a, 0) / (1 + np.exp((x.b - k["b_limit"]) / k["b_width"]))


def _both_likely(x: Parts, k: Knobs) -> np.ndarray:
    """Return log P(A) + push · log P(not B), each a logistic function of its score."""
    a = -_softplus(k["a_limit"] - x.a, k["a_width"])
    return a - k["push"] * _softplus(x.b - k["b_limit"], k["b_width"])


FORMS: Mapping[str, Callable[[Parts, Knobs], np.ndarray]] = {
    "linear": _linear,
    "hinge": _hinge,
    "saturating": _saturating,
    "by P(B)": _likely,
    "A · P(not B)": _product,
    "log P(A) + log P(not B)": _both_likely,
}


def parts_of(space: Space, values: Knobs, of_codes: bool) -> Parts:
    """Return the scores of A with B's dimensions off (codes only), and those of B."""
    if of_codes:
        off = dimensions_off(space, values)
        a, b = np.where(off, 0, space.a), np.where(off, np.maximum(space.a, space.b), 0)
    else:
        a, b = space.a, space.b
    scores = [space.score(query) for query in (a, b)]
    scales = [np.maximum(np.quantile(s, 0.99, axis=1, keepdims=True), 1e-3) for s in scores]
    return Parts(*(s / scale for s, scale in zip(scores, scales, strict=True)), *scales)


def best_of(
    form: str, spaces: Sequence[Space], of_codes: bool, questions: PairSet, trials: int
) -> list[np.ndarray]:
    """Return the scores of the best draw for each space; all methods get the same draws."""
    generator = np.random.default_rng(0)
    found: tuple[float, list[np.ndarray]] = (-1.0, [])
    for _ in range(trials):
        values = {
            name: distribution.draw(generator) for name, distribution in HYPERPARAMETERS.items()
        }
        totals = [
            FORMS[form](parts_of(space, values, of_codes), values).astype(np.float32)
            for space in spaces
        ]
        aps = [np.nanmean(measure_rankings(total, questions.relevant).ap) for total in totals]
        found = max(found, (float(np.mean(aps)), totals), key=lambda one: one[0])
    return found[1]


def report(
    name: str, spaces: Sequence[Space], of_codes: bool, questions: PairSet, trials: int
) -> None:
    """Print one Markdown row per score."""
    draws = draw_resamples(questions.a_names, len(questions.rows), RESAMPLES, 0)
    plain = [measure_rankings(s.score(s.a), questions.has_a).ap for s in spaces]
    linear = None
    for form in FORMS:
        totals = best_of(form, spaces, of_codes, questions, trials)
        measured = [measure_rankings(t, questions.relevant, questions.violating) for t in totals]
        ap = float(np.mean([np.nanmean(one.ap) for one in measured]))
        violation = float(np.mean([np.nanmean(one.violation) for one in measured]))
        plain_ratio = np.mean([measure_rankings(t, questions.has_a).ap for t in totals]) / np.mean(
            plain
        )
        rankings = [ranked_rows(total, DEPTH) for total in totals]
        means = resample(rankings, questions.relevant, questions.violating, draws)
        ap_linear, means_linear = linear = linear or (ap, means)
        low, high = paired_ratio(means, means_linear, ap / ap_linear)
        cells = (f"{ap:.3f}", f"{ap / ap_linear:.3f} [{low:.3f}, {high:.3f}]",
                 f"{violation:.3f}", f"{plain_ratio:.3f}")  # fmt: skip
        print(f"| {name} | {form} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Evaluate every score with every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection")
    parser.add_argument("--train", help="collection that the encoders are trained on")
    parser.add_argument("--track", choices=("label", "caption"), default="caption")
    parser.add_argument("--epochs", type=int, default=TrainingConfig().epochs)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", type=int, default=120)
    args = parser.parse_args()
    collection = Collection.open(locate_collection(args.collection))
    train = Collection.open(locate_collection(args.train)) if args.train else collection
    source = BackboneEmbeddings(collection, backbone_of(collection).encode_texts, train)
    questions = select_questions(collection, args.track)
    raw = source.space(questions)
    report("backbone", [source.centred(raw)], False, questions, args.trials)
    for name in (CONTROL, SIEVE):
        encoders = [
            train_method(
                name,
                train,
                replace(TrainingConfig(epochs=args.epochs), seed=int(seed)),
                source.texts,
                n_words=0,
            ).encoder
            for seed in args.seeds.split(",")
        ]
        spaces = [s["codes"] for s in coded(name, source, encoders).represent(questions)]
        report(name, spaces, name == SIEVE, questions, args.trials)


if __name__ == "__main__":
    main()

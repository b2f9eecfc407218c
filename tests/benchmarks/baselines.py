"""Measure the dense baselines, codes and learned weights of B on validation items.

    python -m tests.benchmarks.baselines scenes --track label --checkpoint assets/checkpoints/scenes

Uses only validation items and tuning pairs, as `tests.benchmarks.ablation`: every row is the best
of 60 settings. `--checkpoint` is Sieve; `--dense` trains the dense control on `--train` as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.backbone.clip import backbone_of
from sieve.model.benchmark.baselines import TRAINING_FREE
from sieve.model.benchmark.measurement import tune
from sieve.model.benchmark.methods import (
    CONTROL,
    PROBED,
    SIEVE,
    BackboneEmbeddings,
    Method,
    coded,
    probed,
    train_method,
    training_free,
)
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.encoder import SparseEncoder
from sieve.model.evaluation.metrics import measure_rankings
from sieve.model.evaluation.pairs import PairSet
from sieve.model.evaluation.rules import CODE_RULES, Range, Rule
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.words.text import concept_presence
from tests.benchmarks.ablation import TRIALS, arguments, select_questions

PUSH_FEW = CODE_RULES[1]


def _corrected(by_nearest: bool):  # noqa: ANN202
    """Return the scores of codes with one scale and offset per item, from the bank of words."""

    def scores(space, values):  # noqa: ANN001, ANN202
        total, bias = PUSH_FEW.scores(space, values), space.item_bias
        if by_nearest:
            return bias.subtract_nearest(total, values["share"], round(values["nearest"]))
        return ((total - values["share"] * bias.mean) / bias.deviation ** values["power"]).astype(
            np.float32
        )

    return scores


CORRECTED = (
    Rule(
        "item-standardised codes",
        _corrected(by_nearest=False),
        {
            **PUSH_FEW.hyperparameters,
            "share": Range(0.0, 1.5, 1.0),
            "power": Range(0.0, 1.0, 0.5),
        },
    ),
    Rule(
        "NNN of codes",
        _corrected(by_nearest=True),
        {
            **PUSH_FEW.hyperparameters,
            "share": Range(0.0, 1.5, 0.75),
            "nearest": Range(1, 256, 128, log=True),
        },
    ),
)


def rows_of(
    source: BackboneEmbeddings,
    train: Collection,
    sieve: Sequence[SparseEncoder],
    control: Sequence[SparseEncoder],
) -> Iterator[tuple[str, Method, tuple[Rule, ...]]]:
    """Yield a label, a method and the rules to tune of each row."""
    for name in TRAINING_FREE:
        method = training_free(source, name)
        yield name, method, method.rules
        for rule in method.variants:
            yield f"{name}: {rule.name}", method, (rule,)
    for name, encoders in ((CONTROL, control), (SIEVE, sieve)):
        if not encoders:
            continue
        method = coded(name, source, encoders)
        yield name, method, method.rules
        for rule in (*method.variants, *(CORRECTED if name == SIEVE else ())):
            yield f"{name}: {rule.name}", method, (rule,)
        learned = next(one for one, of in PROBED.items() if of == name)
        method = probed(learned, source, encoders, train)
        yield learned, method, method.rules
        for rule in method.rules:
            yield f"{learned}: {rule.name}", method, (rule,)


def print_row(label: str, method: Method, rules: tuple[Rule, ...], questions: PairSet) -> None:
    """Tune on the questions, and print one row of the Markdown table."""
    spaces = method.represent(questions)
    setting, ap, _ = tune(rules, spaces, questions.relevant, TRIALS)
    found = [
        measure_rankings(setting.scores(one), questions.relevant, questions.violating).violation
        for one in spaces
    ]
    values = ", ".join(f"{name} {value:g}" for name, value in setting.values.items())
    note = f"{setting.rule.name}, {setting.space}: {values}"
    print(f"| {label} | {ap:.3f} | {np.nanmean(found):.3f} | {note} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--train", help="collection that the encoders are trained on")
    parser.add_argument("--checkpoint", action="append", default=[], help="Sieve; repeatable")
    parser.add_argument("--dense", action="store_true", help="also train the dense control")
    parser.add_argument("--only", default="", help="only rows that start with this")
    args = parser.parse_args()
    collection = Collection.open(locate_collection(args.collection))
    train = Collection.open(locate_collection(args.train)) if args.train else collection
    captions = train.items["captions"].iloc[train.rows_of_split(["train"])].tolist()
    source = BackboneEmbeddings(
        collection,
        backbone_of(collection).encode_texts,
        train,
        words=concept_presence(captions).words,
    )
    questions = select_questions(collection, args.track)
    config = TrainingConfig(epochs=args.epochs)
    seeds = args.seeds.split(",") if args.dense else []
    control = [
        train_method(
            CONTROL, train, replace(config, seed=int(seed)), source.texts, n_words=0
        ).encoder
        for seed in seeds
    ]
    sieve = [Checkpoint.load(Path(path)).encoder for path in args.checkpoint]
    print(f"{len(questions)} pairs, {len(questions.rows)} items, {len(source.words)} words")
    for label, method, rules in rows_of(source, train, sieve, control):
        if label.startswith(args.only):
            print_row(label, method, rules, questions)


if __name__ == "__main__":
    main()

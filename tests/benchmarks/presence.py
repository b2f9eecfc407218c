"""Compare estimates of P(concept | activation) on items that did not fit them.

    python -m tests.benchmarks.presence scenes

Estimates are fitted on validation ("select") items and measured on test items, against mentions in
captions and labels: the concepts of dimensions with certain names, and the nouns of the benchmark
as excluded phrases. LL: log loss; ECE: expected calibration error, in ten bins; recall and
precision of P ≥ 0.5. The last two lines print the mean and the standard deviation of the parameters
over frequent concepts and phrases, which the priors of `sieve.model.dimensions.presence` are based
on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.isotonic import IsotonicRegression

from sieve.data_prep.bundled import locate_collection
from sieve.model.dimensions.presence import (
    CONCEPT_PRIOR,
    MIN_MENTIONS,
    PHRASE_PRIOR,
    Examples,
    PresenceModel,
    Prior,
    fit_logistic,
    sigmoid,
)
from sieve.model.duplicates import evaluation_rows
from sieve.model.engine import SearchEngine
from sieve.model.words.nouns import benchmark_nouns
from sieve.model.words.text import mentioned_words

FREQUENT = 10
"""Mentions on validation items from which parameters are averaged for a prior."""
WEAK = Prior((0.0, 0.0, 0.0), (100.0, 10.0, 10.0))


class Case(NamedTuple):
    """A concept or phrase: activation, cosine and mention of all items, validation items first."""

    activation: np.ndarray
    cosine: np.ndarray
    mentioned: np.ndarray


Estimate = Callable[[Case, int], np.ndarray]
"""Case and number of validation items → probabilities of all items."""


def logistic(features: Callable[[Case, int], list[np.ndarray]], prior: Prior) -> Estimate:
    """Fit a logistic regression of some features."""

    def estimate(case: Case, n: int) -> np.ndarray:
        columns = np.column_stack(features(case, n))
        size = columns.shape[1] + 1
        own = Prior(prior.mean[:size], prior.deviation[:size])
        parameters = fit_logistic(columns[:n], case.mentioned[:n], own)
        return sigmoid(parameters[0] + columns @ parameters[1:])

    return estimate


def scaled(case: Case, n: int) -> np.ndarray:
    """Scale the activation to a mean of 1 over the validation items that have it."""
    positive = case.activation[:n][case.activation[:n] > 0]
    return case.activation / (positive.mean() if len(positive) else 1)


def standard(case: Case, n: int) -> np.ndarray:
    """Scale the cosine to zero mean and unit variance over validation items."""
    return (case.cosine - case.cosine[:n].mean()) / max(case.cosine[:n].std(), 1e-9)


def isotonic(case: Case, n: int) -> np.ndarray:
    """Fit an isotonic regression."""
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(case.activation[:n], case.mentioned[:n])
    return fitted.predict(case.activation)


def root(case: Case, n: int) -> list[np.ndarray]:
    """Return the square root of the scaled activation."""
    return [np.sqrt(scaled(case, n))]


BY_ACTIVATION: dict[str, Estimate] = {
    "isotonic": isotonic,
    "logistic": logistic(lambda case, n: [scaled(case, n)], WEAK),
    "logistic, zero indicator": logistic(
        lambda case, n: [scaled(case, n), (case.activation > 0) * 1.0], WEAK
    ),
    "logistic of root": logistic(root, WEAK),
    "logistic of root, prior": logistic(root, CONCEPT_PRIOR),
}
BY_BOTH: dict[str, Estimate] = {
    "cosine alone": logistic(lambda case, n: [standard(case, n)], WEAK),
    "root and cosine": logistic(lambda case, n: [*root(case, n), standard(case, n)], WEAK),
    "root and cosine, prior": logistic(
        lambda case, n: [*root(case, n), standard(case, n)], PHRASE_PRIOR
    ),
}


def report(name: str, estimate: Estimate, cases: Sequence[Case], n: int) -> None:
    """Print the errors of an estimate on test items."""
    p = np.concatenate([estimate(case, n)[n:] for case in cases])
    y = np.concatenate([case.mentioned[n:] for case in cases]).astype(float)
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -np.mean(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    bins = np.minimum((p * 10).astype(int), 9)
    error = sum(
        abs(p[bins == one].mean() - y[bins == one].mean()) * (bins == one).mean()
        for one in np.unique(bins)
    )
    hidden = p >= 0.5
    recall, precision = y[hidden].sum() / y.sum(), y[hidden].mean() if hidden.any() else np.nan
    print(
        f"  {name:26} LL {loss:.4f}  Brier {np.mean((p - y) ** 2):.4f}  ECE {error:.4f}  "
        f"recall {recall:.2f}  precision {precision:.2f}"
    )


def print_prior(
    features: Callable[[Case, int], list[np.ndarray]], cases: Sequence[Case], n: int
) -> None:
    """Print the distribution of the parameters over frequent concepts."""
    prior = Prior((-7.0, 3.0, 0.5), (5.0, 5.0, 5.0))
    found = []
    for case in cases:
        if case.mentioned[:n].sum() >= FREQUENT:
            columns = np.column_stack(features(case, n))[:n]
            size = columns.shape[1] + 1
            own = Prior(prior.mean[:size], prior.deviation[:size])
            found.append(fit_logistic(columns, case.mentioned[:n], own))
    mean, deviation = np.mean(found, axis=0), np.std(found, axis=0)
    print(f"  parameters: mean {mean.round(2)}, standard deviation {deviation.round(2)}")


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="scenes")
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    engine = SearchEngine.open(locate_collection(args.collection), args.checkpoint)
    collection, concepts, names = engine.collection, engine.concepts, engine.checkpoint.names
    select, test = (evaluation_rows(collection, split) for split in ("select", "test"))
    rows, n = np.concatenate([select, test]), len(select)
    items = collection.items.iloc[rows]
    texts = zip(items["captions"], items["labels"], strict=True)
    words = mentioned_words(["\n".join([*one, *other]) for one, other in texts])
    codes = csr_array(engine.image_codes.by_row[rows])
    embeddings = np.asarray(collection.image_embeddings[rows], np.float32)
    model = PresenceModel(Examples(rows, engine.image_codes.take(rows), words))

    by_concept = []
    for leading in np.unique(concepts.of_dimension).tolist():
        members = concepts.members(leading)
        certain = [names[j].name for j in members if j in names and names[j].confident]
        if certain:
            activation = np.asarray(codes[:, members].sum(1)).ravel()
            by_concept.append(Case(activation, np.zeros(len(rows)), model.mentions(certain[0])))
    nouns, by_phrase = benchmark_nouns(), []
    for lemma in nouns.lemmas:
        code, embedding = engine.encode_text(nouns.query_text(lemma))
        if code.any():
            activation = np.asarray(codes @ code).ravel()
            by_phrase.append(Case(activation, embeddings @ embedding, model.mentions(lemma)))
    for what, cases, estimates in (
        ("concepts", by_concept, BY_ACTIVATION),
        ("phrases", by_phrase, BY_ACTIVATION | BY_BOTH),
    ):
        kept = [case for case in cases if case.mentioned[:n].sum() >= MIN_MENTIONS]
        print(f"{what}: {len(kept)} of {len(cases)} with {MIN_MENTIONS} mentions or more")
        for name, estimate in estimates.items():
            report(name, estimate, kept, n)
        both = what == "phrases"
        print_prior(lambda c, n: [*root(c, n), standard(c, n)] if both else root(c, n), kept, n)  # noqa: B023


if __name__ == "__main__":
    main()

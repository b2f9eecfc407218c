"""Report on the quality of a checkpoint, for the page and the command line.

The thresholds are stated with each finding. They are targets for a code whose dimensions a person
can read and switch, not results of other work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from threading import Lock, Thread
from typing import Any, NamedTuple

import numpy as np

from sieve.data_prep.scenes.captions import label_synonyms
from sieve.explorer.errors import one_line
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine
from sieve.model.interpretability import (
    InterpretabilityReport,
    is_live,
    is_report_cached,
    open_report,
)

log = logging.getLogger(__name__)

_NO_EVIDENCE = "Untrained codes of the same width score as well, so there is no target."
"""Note for metrics on which controls score as well as the checkpoint: see `sanity_checks`."""


class Finding(NamedTuple):
    """One measure of a checkpoint."""

    name: str
    value: str
    good: bool | None
    """Whether it reaches the target; None if there is none."""
    meaning: str
    """Explanation of the value, with its target."""


def synonyms_of(collection: Collection) -> Mapping[str, Sequence[str]]:
    """Return other correct names of the labels of a collection, if they are known."""
    return label_synonyms() if collection.manifest.source.startswith("Scenes(") else {}


def checkpoint_report(engine: SearchEngine) -> InterpretabilityReport:
    """Return the interpretability report of an engine, from the cache if possible."""
    return open_report(engine, synonyms_of(engine.collection))


def quick_findings(engine: SearchEngine) -> list[Finding]:
    """Return the findings that need no computation."""
    table = engine.dimension_table()
    live = is_live(table)
    named = float(table["confident"].to_numpy(bool)[live].mean()) if live.any() else 0.0
    concepts = len(np.unique(table["concept"].to_numpy()[live]))
    return [
        Finding(
            "Live dimensions", f"{live.sum():,} of {len(table):,}", bool(live.mean() >= 0.95),
            "Active in at least one image or caption. Target: 95%.",
        ),
        Finding(
            "Named with confidence", _percent(named), named >= 0.85,
            "Live dimensions whose name predicts where they are active, on images that did not "
            "choose the name. Judge the others by their images. Target: 85%.",
        ),
        Finding(
            "Concepts", f"{concepts:,}", None,
            "Groups of dimensions that are active together and mean the same.",
        ),
    ]  # fmt: skip


def findings(report: InterpretabilityReport) -> list[Finding]:
    """Return the findings of a report, without those of `quick_findings`."""
    found: list[Finding] = []
    naming, switches, recall = report.naming, report.switches, report.recall
    if naming.right is not None:
        found.append(Finding(
            "Names that hold on test images", _percent(naming.right), naming.right >= 0.9,
            f"Of {naming.tested:,} confident names: AUC of at least 0.80 on images that neither "
            "trained nor named the dimensions. Target: 90%.",
        ))  # fmt: skip
    if switches is not None:
        found.append(Finding(
            "Switches per exclusion", f"median {switches.median:g}, largest {switches.most}",
            switches.median <= 3 and switches.most <= 6,
            f"Concepts that “without …” switches off, over {switches.pairs:,} test queries. "
            "Target: median 3, largest 6.",
        ))  # fmt: skip
        found.append(Finding(
            "Switches that miss", _percent(switches.chance), switches.chance <= 0.1,
            "Dimensions switched off that hardly separate the excluded images from others (AUC "
            "below 0.60). Target: at most 10%.",
        ))  # fmt: skip
    if report.dimensions_of_a_word is not None:
        found.append(Finding(
            "Dimensions of a simple text", f"{report.dimensions_of_a_word:.1f}",
            report.dimensions_of_a_word <= 6,
            "Dimensions that hold 80% of a text such as “a dog”. Target: at most 6.",
        ))  # fmt: skip
    if recall is not None:
        found.append(Finding(
            "Search quality", f"{recall.codes:.2f}, backbone {recall.backbone:.2f}",
            recall.relative >= 0.95,
            "Text-to-image recall@10 on the test split. Target: 95% of the backbone's.",
        ))  # fmt: skip
    return [*found, *_label_findings(report)]


def _label_findings(report: InterpretabilityReport) -> list[Finding]:
    found: list[Finding] = []
    if labels := report.labels:
        found += [
            Finding(
                "Labels with a concept", _percent(labels.with_concept), labels.with_concept >= 0.8,
                f"Of {labels.labels:,} labels: a single concept separates their test images (AUC "
                "of at least 0.95). Target: 80%.",
            ),
            Finding(
                "Disentanglement", f"{labels.disentanglement:.2f}", None,
                f"1 if each dimension serves a single label. {_NO_EVIDENCE}",
            ),
            Finding(
                "Completeness", f"{labels.completeness:.2f}", labels.completeness >= 0.8,
                "1 if each label needs a single dimension. Target: 0.80.",
            ),
            Finding(
                "Informativeness", f"{labels.informativeness:.2f}", None,
                "Mean AUC with which all dimensions together predict a label; 0.5 is chance. "
                + _NO_EVIDENCE,
            ),
        ]  # fmt: skip
        if labels.absorption is not None:
            found.append(Finding(
                "Absorption", f"{labels.absorption:.2f}", labels.absorption <= 0.1,
                "Share of the images of a special case (a dog) on which the dimension of a general "
                f"label (animal) is inactive, over {labels.absorption_pairs:,} pairs of labels. "
                "Target: at most 0.10.",
            ))  # fmt: skip
    if leakage := report.leakage:
        found.append(Finding(
            "Leakage", f"{leakage.leakage:.2f}", None,
            "Share of what a classifier knows about a label that it still knows after the label's "
            "dimensions are off: 0 is none. Switching off ranks such images lower, but does not "
            f"erase the label from the code. {_NO_EVIDENCE}",
        ))  # fmt: skip
    return found


def _percent(share: float) -> str:
    return f"{share:.1%}"


class CheckpointReporter:
    """Computes the report of the open checkpoint once, in the background."""

    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._started = False
        self._found: list[Finding] | None = None
        self._fault = ""

    def checkpoint_report(self, _: Any) -> dict[str, Any]:
        """Return the findings so far; `computing` is whether more will follow."""
        with self._lock:
            if not self._started:
                self._started = True
                if is_report_cached(self._engine):
                    self._compute()
                else:
                    Thread(target=self._compute, daemon=True).start()
        found = [*quick_findings(self._engine), *(self._found or [])]
        return {
            "findings": [finding._asdict() for finding in found],
            "computing": self._found is None and not self._fault,
            "fault": self._fault,
        }

    def _compute(self) -> None:
        try:
            self._found = findings(checkpoint_report(self._engine))
        except (ValueError, OSError) as error:
            log.warning("the checkpoint was not measured: %s", error)
            self._fault = one_line(error)


def report_json(engine: SearchEngine) -> dict[str, Any]:
    """Serialise the report with its findings, for the command line."""
    report = checkpoint_report(engine)
    found = [*quick_findings(engine), *findings(report)]
    return {
        "collection": engine.collection.name,
        "checkpoint": str(engine.checkpoint.path.absolute()),
        **asdict(report),
        "findings": [finding._asdict() for finding in found],
    }


def controls_report(
    engine: SearchEngine, on_control: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Serialise each interpretability metric of an encoder, and of controls."""
    from sieve.model.sanity_checks import sanity_checks

    return [
        {
            "metric": check.name,
            "better": "lower" if check.lower_is_better else "higher",
            "not_distinguished_from": list(check.not_distinguished_from),
            "trained": check.trained._asdict(),
            **{name: value._asdict() for name, value in check.controls.items()},
        }
        for check in sanity_checks(engine, synonyms_of(engine.collection), on_control=on_control)
    ]


def counterfactual_report(engine: SearchEngine, collection: Collection) -> dict[str, Any]:
    """Summarise the selectivity of the dimensions, and of the concepts, whose names are certain.

    This adds the falls of each dimension to the dimension table.
    """
    from sieve.data_prep.scenes import counterfactual_pairs
    from sieve.model.sanity_checks import engine_falls

    pairs = counterfactual_pairs(collection.items["image"].tolist())
    dimensions, concepts = engine_falls(engine, collection, pairs)
    confident = engine.derived.dimensions["confident"].to_numpy(bool)
    leading = np.unique(engine.concepts.of_dimension)
    summary: dict[str, Any] = {"collection": collection.name, "pairs": len(pairs)}
    for kind, falls, certain in (
        ("dimensions", dimensions, confident),
        ("concepts", concepts, confident[leading]),
    ):
        measured = certain & ~np.isnan(falls.selectivity)
        values = {
            "median_selectivity": falls.selectivity,
            "median_fall_of_its_own_object": falls.own,
            "median_fall_of_another_object": falls.other,
        }
        summary[f"{kind}_measured"] = int(measured.sum())
        for name, value in values.items():
            median = float(np.median(value[measured])) if measured.any() else None
            summary[f"{kind}_{name}"] = median
    return summary


def seeds_report(engine: SearchEngine, others: Sequence[SearchEngine]) -> dict[str, Any]:
    """Serialise how many dimensions and concepts recur in the encoders of other training seeds."""
    from sieve.model.sanity_checks import RECURS, checkpoint_consistency

    return {
        "seeds": 1 + len(others),
        **{
            f"{kind}_{name}": value
            for kind, found in zip(
                ("dimensions", "concepts"), checkpoint_consistency([engine, *others]), strict=True
            )
            for name, value in (
                ("live", found.units),
                ("mean_correlation", found.mean_correlation),
                (f"recurring_at_{RECURS}", found.recurring),
            )
        },
    }

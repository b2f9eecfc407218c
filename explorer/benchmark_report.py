"""Reports of the exclusion benchmark: text tables, CSV files and plots with intervals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sieve.data_prep.captions.caption_text import tidy
from sieve.data_prep.images import read_thumbnail
from sieve.explorer.downloads import csv_bytes, data_url
from sieve.model.benchmark.baselines import TRAINING_FREE
from sieve.model.benchmark.failures import FAILURE_KINDS
from sieve.model.benchmark.methods import TRAINED
from sieve.model.benchmark.run import QUERIES
from sieve.model.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from sieve.model.benchmark.results import (
        BenchmarkResult,
        ConfidenceInterval,
        MethodResult,
        TrackResult,
    )
    from sieve.model.collection import Collection

# Okabe and Ito's palette, safe for colour-blind readers; markers repeat the distinction.
_KINDS = {
    "Sieve": ("#0072B2", "o"),
    "trained": ("#009E73", "s"),
    "dense": ("#D55E00", "^"),
    "other": ("#555555", "D"),
}
_LABEL_HEIGHT = 0.042
"""Height of a label as a share of the axis."""


def save_plot(track: TrackResult, path: Path) -> None:
    """Plot the methods of a track and save the plot as PNG and SVG; `path` has no suffix."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The same result gives the same file: no date, no random ids.
    with rc_context({"svg.hashsalt": "sieve", "font.size": 9}):
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _draw(axes, track)
        figure.savefig(path.with_suffix(".png"), dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def track_title(track: TrackResult) -> str:
    """Return the name of a track, such as "label track"."""
    return "query file" if track.track == QUERIES else f"{track.track} track"


def kind_of(method: str) -> str:
    """Return the kind of a method, which sets its colour."""
    if method == "Sieve":
        return method
    if method in TRAINED or method == "SpLiCE":
        return "trained"
    if method in ("A only", "oracle"):
        return "other"
    return "dense" if method in TRAINING_FREE else "trained"


def _draw(axes: Axes, track: TrackResult) -> None:
    shown = [method for method in track.methods if method.method != "oracle"]
    for method in shown:
        colour, marker = _KINDS[kind_of(method.method)]
        x, y = method.violation, method.ap
        is_sieve = method.method == "Sieve"
        axes.errorbar(
            x,
            y,
            xerr=[[x - method.violation_ci.low], [method.violation_ci.high - x]],
            yerr=[[y - method.ci.low], [method.ci.high - y]],
            color=colour,
            marker=marker,
            markersize=8 if is_sieve else 5,
            elinewidth=0.6,
            alpha=0.85,
            zorder=3 if is_sieve else 2,
        )
    axes.set_xlabel("violation@10: share of the top 10 that also show B (lower is better)")
    axes.set_ylabel("AP@10 of “A without B” (higher is better)")
    axes.set_title(
        f"{track_title(track)}: {track.pairs:,} pairs, {track.items:,} test items, 95% intervals; "
        "a perfect ranking is at the top left",
        loc="left",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, linewidth=0.6)
    axes.set_xlim(left=0)
    _label(axes, shown)


def _label(axes: Axes, methods: Sequence[MethodResult]) -> None:
    """Name the points in a column at the right, each at the end of a thin line from its point."""
    low, high = axes.get_ylim()
    step = (high - low) * _LABEL_HEIGHT
    column = axes.get_xlim()[1]
    axes.set_xlim(right=column)
    places = _spread([method.ap for method in methods], step, low, high)
    for method, place in zip(methods, places, strict=True):
        colour = _KINDS[kind_of(method.method)][0]
        axes.annotate(
            f"{method.method}  {method.ap:.3f}",
            (method.violation, method.ap),
            (column, place),
            va="center",
            annotation_clip=False,
            color=colour,
            fontsize=8,
            fontweight="bold" if method.method == "Sieve" else "normal",
            arrowprops={
                "arrowstyle": "-",
                "linestyle": ":",
                "color": colour,
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkB": 3,
            },
        )


def _spread(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Move values at least `step` apart, in order, each as near its own place as they can be."""
    import numpy as np
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(values, kind="stable")
    steps = step * np.arange(len(order))
    # Places with their steps taken off must not fall: that is isotonic regression.
    lowest = isotonic_regression(np.asarray(values)[order] - steps)
    placed = np.empty(len(order))
    placed[order] = np.clip(lowest, low, max(high - steps.max(initial=0), low)) + steps
    return placed.tolist()


_HEADER = (
    "Method", "AP@10", "95% CI", "Sieve / method", "95% CI", "P@10", "Violation@10", "nDCG@10",
    "AP@10 of A", "A kept", "A kept w/o B", "Seeds ±", "Wordings ±",
)  # fmt: skip
_SIEVE = "Sieve"
_SWITCHES = {"1": "1 switch", "2": "2 switches", "3": "3 switches", "all": "push away"}
"""Columns of the table by the number of switches, with their rules."""


def table_text(result: BenchmarkResult) -> str:
    """Return all tables and verdicts as text."""
    lines: list[str] = []
    for track in result.tracks:
        lines.append(
            f"{result.collection}, {track_title(track)}: {track.pairs:,} pairs with "
            f"{track.a_words:,} different A over {track.items:,} test items; tuned on "
            f"{track.tuning_pairs:,} other pairs over {track.tuning_items:,} validation items"
            f"{dropped_text(track)}{criteria_text(track)}"
        )
        lines += [tidy(note) for note in track.notes]
        lines += _columns([_HEADER, *map(_row, track.methods)])
        if track.variants:
            lines += ["", "Restricted to one exclusion rule:"]
            lines += _columns([_HEADER, *map(_row, track.variants)])
        if by_switches := _by_switches(track):
            lines += ["", "AP@10 / violation@10 by the maximum number of switches:"]
            lines += _columns([("Method", *_SWITCHES), *by_switches])
        lines += ["", *verdicts(track), "", *limits(track), ""]
        lines += failure_lines(track)
    recall = _recalls(result)
    return "\n".join([*lines, *recall, *([""] if recall else [])])


def _by_switches(track: TrackResult) -> list[tuple[str, ...]]:
    """Return AP@10 and violation@10 of each sparse code by the number of switches."""
    found = {one.method: one for one in track.variants}
    rows = []
    for method in track.methods:
        cells = [found.get(f"{method.method}: {rule}") for rule in _SWITCHES.values()]
        if cells[0] is not None:
            texts = (f"{one.ap:.3f} / {one.violation:.3f}" if one else "–" for one in cells)
            rows.append((method.method, *texts))
    return rows


def dropped_text(track: TrackResult) -> str:
    """Return how many items were excluded as near duplicates; empty if none were."""
    counts = [f"{count:,} {split}" for split, count in track.dropped.items() if count]
    if not counts:
        return ""
    return f"; {' and '.join(counts)} items excluded as near duplicates of an earlier split"


def criteria_text(track: TrackResult) -> str:
    """Describe which pairs are reported; empty for a query file."""
    needs = track.criteria
    if needs is None:
        return ""
    return (
        f"; a pair needs {needs.relevant} relevant and {needs.violating} violating items, and "
        f"P(B|A) ≥ {needs.share:g}"
    )


def failure_lines(track: TrackResult) -> list[str]:
    """Return the number of failures of each kind, with its rule."""
    if not track.failures:
        return []
    counts = Counter(failure.kind for failure in track.failures)
    lines = [f"The {len(track.failures)} worst pairs of Sieve, by the first rule that holds:"]
    rules = {kind: rule for kind, (rule, _) in FAILURE_KINDS.items()}
    lines += [f"  {counts[kind]:>3}  {kind}: {rule}" for kind, rule in rules.items()]
    return [*lines, ""]


def verdicts(track: TrackResult) -> list[str]:
    """Return sentences that compare Sieve with the baselines."""
    by_name = {method.method: method for method in track.methods}
    sieve = by_name.get(_SIEVE)
    if sieve is None:
        return []
    lines = []
    rows = (*track.methods, *track.variants)
    dense = [method for method in rows if method.method.partition(":")[0] in TRAINING_FREE]
    if dense:
        best = max(dense, key=lambda method: method.ap)
        lines.append(
            f"Best training-free baseline: {best.method}. Sieve / baseline: {_ratio(best)}; closes "
            f"{_percent(best.gap or 0)} {_span(best.gap_ci, _percent)} of the gap to a perfect "
            f"ranking. Violation@10: {_decimal(sieve.violation)} vs. {_decimal(best.violation)}."
        )
    plain = max(sieve.plain_ap, 1e-12)
    spared = sieve.spared_ap / max(sieve.spared_plain_ap, 1e-12)
    lines.append(
        f"With B off, Sieve keeps {_decimal(sieve.kept_ap / plain)} of the AP@10 of A; removing "
        f"exactly the items with B would keep {_decimal(sieve.spared_plain_ap / plain)}. "
        f"Among items without B, Sieve keeps {_decimal(spared)}."
    )
    for method in track.methods:
        if method.method in (_SIEVE, "oracle") or method.ratio_ci is None:
            continue
        name, ratio = tidy(method.method), f"(Sieve / method: {_ratio(method)})"
        if method.ratio_ci.high < 1:
            lines.append(f"{name} beats Sieve {ratio}.")
        elif method.ratio_ci.low <= 1:
            lines.append(f"{name} and Sieve are not significantly different {ratio}.")
    for method in track.variants:
        if method.same_rule_ratio is not None and not method.method.startswith(_SIEVE):
            ratio = f"{_decimal(method.same_rule_ratio)} {_span(method.same_rule_ratio_ci)}"
            lines.append(f"Sieve with the same rule / {method.method}: {ratio}.")
    return lines


def limits(track: TrackResult) -> list[str]:
    """Return sentences about the limits of the results of a track."""
    lines = []
    dense = [one for one in (*track.methods, *track.variants) if kind_of(one.method) == "dense"]
    ratios = [one.detectable_ratio for one in dense if one.detectable_ratio is not None]
    if ratios:
        lines.append(
            "The smallest ratio that these pairs can distinguish from 1 is "
            f"{_decimal(min(ratios))} to {_decimal(max(ratios))}, by baseline (95% interval, "
            "80% power)."
        )
    for sieve in [one for one in track.methods if one.method == _SIEVE and one.wordings]:
        values = [f"“{name}” {_decimal(value)}" for name, value in sieve.wordings.items()]
        lines.append(f"AP@10 of Sieve depends on the wording of A and B: {', '.join(values)}.")
    if track.track == "caption":
        lines.append(
            "A caption may not mention everything in its image, so some results that count as "
            "wrong are right."
        )
    return lines


def write_report(result: BenchmarkResult, out: Path, collection: Collection) -> None:
    """Write result.json, config.json, table.txt, failures.html, each track's CSV, pairs and plot.

    The folder `out` must not exist yet.
    """
    with atomic_folder(out) as folder:
        for name, content in (("result", result.as_json()), ("config", result.settings())):
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
        (folder / "table.txt").write_text(table_text(result), encoding="utf-8")
        page = failures_page(result.tracks, collection)
        (folder / "failures.html").write_text(page, encoding="utf-8")
        for track in result.tracks:
            _write_csv(folder / f"{track.track}.csv", (*track.methods, *track.variants))
            header = ["a", "without", "relevant", "violating", *(m.method for m in track.methods)]
            rows = (
                [*pair, *(round(method.by_pair[place], 6) for method in track.methods)]
                for place, pair in enumerate(track.pair_counts)
            )
            (folder / f"{track.track}_pairs.csv").write_bytes(csv_bytes(header, rows))
            save_plot(track, folder / track.track)


_PAGE = Markup("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Failures</title><style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 1240px; margin: 24px auto; padding: 0 16px; font: 14px/1.5 system-ui, sans-serif; }}
h3 {{ margin: 24px 0 4px; font-size: 15px; }}
p {{ max-width: 720px; margin: 0 0 8px; opacity: .8; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 8px; margin: 0; padding: 0; list-style: none; }}
img {{ display: block; width: 100%; aspect-ratio: 4 / 3; border-radius: 6px; object-fit: cover; }}
li {{ font-size: 12px; }} li.v img {{ outline: 2px solid #d55e00; outline-offset: -2px; }} li.n img {{ opacity: .55; }}
</style><h1>Where Sieve fails</h1>{}</html>
""")  # noqa: E501
_TILE = Markup('<li class="{}"><img src="{}" alt="{}" title="{}">{}</li>')


def failures_page(tracks: Sequence[TrackResult], collection: Collection) -> str:
    """Return a self-contained page of the failures of each track, with images."""
    rows, captions = collection.row_of_id, collection.items["captions"]
    parts: list[Markup] = []
    for track in tracks:
        parts.append(Markup("<h1>{}</h1>").format(track_title(track).capitalize()))
        if not track.failures:
            parts.append(Markup("<p>No pair was measured for Sieve, or all were perfect.</p>"))
        for kind, (rule, _) in FAILURE_KINDS.items():
            failures = [failure for failure in track.failures if failure.kind == kind]
            if not failures:
                continue
            parts.append(
                Markup("<h2>{} ({} of {})</h2><p>{}</p>").format(
                    kind.capitalize() if kind[0].islower() else kind,
                    len(failures), len(track.failures), rule,
                )
            )  # fmt: skip
            for failure in failures:
                pair = track.pair_counts[failure.pair]
                words = {"r": f"✓ {pair.a}", "v": f"✗ {pair.b} too", "n": f"no {pair.a}"}
                ap = next(one for one in track.methods if one.method == _SIEVE).by_pair[
                    failure.pair
                ]
                facts = ", ".join(f"{name} {value:.2f}" for name, value in failure.facts.items())
                parts.append(
                    Markup("<h3>{} without {}</h3><p>AP@10 {}; {}</p>").format(
                        pair.a, pair.b, _decimal(ap), facts.replace("_", " ")
                    )
                )
                tiles = [
                    _TILE.format(
                        mark,
                        _small_image(collection, item),
                        words[mark],
                        next(iter(captions.iloc[rows[item]]), ""),
                        words[mark],
                    )
                    for item, mark in zip(failure.items, failure.marks, strict=True)
                    if item in rows
                ]
                parts.append(Markup("<ol>{}</ol>").format(Markup("").join(tiles)))
    return str(_PAGE.format(Markup("\n").join(parts)))


def _small_image(collection: Collection, item: str) -> str:
    """Return an item's thumbnail as a small data URL; empty if it is missing."""
    from io import BytesIO

    from PIL import Image

    try:
        data = read_thumbnail(collection.path, item)
        with Image.open(BytesIO(data), formats=["WEBP"]) as image:
            image.thumbnail((128, 128))
            small = BytesIO()
            image.convert("RGB").save(small, "WEBP", quality=70)
    except (OSError, ValueError):
        return ""
    return data_url("image/webp", small.getvalue())


def _write_csv(path: Path, methods: Sequence[MethodResult]) -> None:
    rows: list[dict[str, Any]] = []
    for method in methods:
        row: dict[str, Any] = {}
        for name, value in method.as_json().items():
            if name.endswith("ci"):
                row[f"{name}_low"], row[f"{name}_high"] = value or (None, None)
            else:
                row[name] = value
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.write_bytes(csv_bytes(columns, ([row.get(name) for name in columns] for row in rows)))


def _row(method: MethodResult) -> tuple[str, ...]:
    numbers = (
        method.precision,
        method.violation,
        method.ndcg,
        method.plain_ap,
        method.kept_ap / max(method.plain_ap, 1e-12),
        method.spared_ap / max(method.spared_plain_ap, 1e-12),
        method.spread,
        method.wording_spread,
    )
    ap = (_decimal(method.ap), _span(method.ci), _decimal(method.ratio), _span(method.ratio_ci))
    return (tidy(method.method), *ap, *map(_decimal, numbers))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _recalls(result: BenchmarkResult) -> list[str]:
    if not result.tracks or not result.backbone_recall:
        return []
    rows = [("text→image", *(name.replace("recall", "R") for name in result.backbone_recall))]
    rows.append(("backbone", *map(_decimal, result.backbone_recall.values())))
    rows += [
        (tidy(method.method), *map(_decimal, method.recall.values()))
        for method in result.tracks[0].methods
        if method.recall is not None
    ]
    return _columns(rows)


def _ratio(method: MethodResult) -> str:
    return f"{_decimal(method.ratio or 0)} {_span(method.ratio_ci)}"


def _decimal(value: float | None) -> str:
    """Format a number with three decimals, for example `0.418`."""
    return "" if value is None else f"{value:.3f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")


def _span(interval: ConfidenceInterval | None, form: Callable[[float], str] = _decimal) -> str:
    return "" if interval is None else f"[{form(interval.low)}, {form(interval.high)}]"

"""The Benchmark tab: evaluations that were made, and the pairs where Sieve wins and loses most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sieve.explorer.benchmark.desk import EvaluationDesk
from sieve.explorer.components import piece
from sieve.explorer.faults import answered

if TYPE_CHECKING:
    from sieve.explorer.training.desk import TrainingDesk
    from sieve.model.engine import Engine


def benchmark_tab(engine: Engine, training: TrainingDesk | None) -> None:
    """Lay out the tab; call inside a `gr.Tab`.

    Parameters
    ----------
    engine : Engine
    training : TrainingDesk, optional
        Whose device and lane a quick evaluation takes; without it none can be started.
    """
    jobs = training.trainings if training else None
    desk = EvaluationDesk(
        engine.collection,
        engine.checkpoint,
        jobs.device if jobs else "auto",
        jobs.lane if jobs else None,
        jobs.text_encoder if jobs else "",
    )
    runs = (desk.evaluation_start, desk.evaluation_stop) if jobs else ()
    asks = (desk.evaluations, desk.evaluation, desk.evaluation_pairs, *runs)
    piece("benchmark", *map(answered, asks))

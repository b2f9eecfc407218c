"""Test that `sieve explore` opens the page or offers training first."""

from __future__ import annotations

import pytest
from command_line import Sieve, fault

from sieve.explorer.security.access import Access
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.engine import SearchEngine


def test_explore_serves_the_page(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def stopped_at_once(engine: SearchEngine, **where: object) -> None:
        started.append((engine.collection.name, engine.checkpoint.path, where))
        raise KeyboardInterrupt

    monkeypatch.setattr("sieve.explorer.app.start", stopped_at_once)
    monkeypatch.setenv("SIEVE_PASSWORD", "open")
    published = ("--public-safe", "--auth", "guest", "--root-path", "/sieve")
    for flags in ((), ("--no-training",), published):
        assert sieve("explore", *opened, "--port", "8123", *flags).code == 130
    (name, checkpoint, where), (*_, without), (*_, public) = started
    assert public["access"] == Access(public=True, root_path="/sieve", auth=("guest", "open"))
    assert public["training"] is None and where["access"] == Access()
    assert (name, checkpoint) == ("tiny", opened[-1])
    assert (where["host"], where["port"]) == ("127.0.0.1", 8123)
    assert where["training"] is not None and without["training"] is None


def test_explore_offers_training_if_no_checkpoint_fits(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at_once(engine: None, *, training: TrainHandlers, **_: object) -> None:
        assert engine is None
        assert (training.collection.name, training.checkpoint) == ("tiny", None)
        raise KeyboardInterrupt

    monkeypatch.setattr("sieve.explorer.app.start", stopped_at_once)
    assert sieve("explore", opened[0]).code == 130
    assert "no checkpoint fits" in fault(sieve("explore", opened[0], "--no-training"))

"""Run `sieve` commands in the test process and capture their output and exit code."""

from __future__ import annotations

import json
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sieve.explorer.cli import main

if TYPE_CHECKING:  # conftest sets the number of threads before numpy is imported
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self):  # noqa: ANN201
        return json.loads(self.out)


Sieve = Callable[..., CommandResult]


@pytest.fixture
def sieve(capsys: pytest.CaptureFixture[str], home: Path) -> Iterator[Sieve]:
    """Run a command in this process, with a temporary $SIEVE_HOME."""
    assert {path.name for path in home.iterdir()} == {"trusted_backbones.json", "words"}
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path) -> CommandResult:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), captured.out, captured.err)

    with warnings.catch_warnings():
        yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def opened(tiny_collection: Collection, tiny_checkpoint: Checkpoint) -> tuple[str | Path, ...]:
    """Arguments that open the tiny collection with its checkpoint."""
    return tiny_collection.path, "--checkpoint", tiny_checkpoint.path


def fault(answer: CommandResult) -> str:
    """Return the one-line message of a user error."""
    assert answer.code == 1, answer
    assert answer.out == ""
    assert re.fullmatch(r"sieve: [^\n]+\n", answer.err), answer.err
    return answer.err.removeprefix("sieve: ").rstrip()

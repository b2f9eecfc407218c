"""The state of an unfinished training, saved so that a killed run goes on exactly.

One safetensors file, replaced atomically: parameters, optimiser moments, counters of idle
dimensions, and the curves so far in its metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sieve.model.drafts import whole_file

_STATE = "state.safetensors"


def save_state(
    folder: Path,
    parameters: nn.Module,
    optimizer: Optimizer,
    idle: Tensor,
    facts: dict[str, Any],
) -> None:
    """Write the state, replacing an older one only when whole.

    Parameters
    ----------
    folder : Path
    parameters : nn.Module
        Everything that is learned.
    optimizer : Optimizer
    idle : (m,) int64
        Steps since each dimension last fired.
    facts : dict
        Whatever JSON can hold: step, configuration, curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{name}": part for name, part in parameters.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors["idle"] = idle
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(folder / _STATE) as draft:
        save_file(contiguous, draft, {"facts": json.dumps(facts)})


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Read the facts of an unfinished training; None where there is none.

    Raises
    ------
    ValueError
        If the state is damaged.
    """
    path = folder / _STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as state:
            return json.loads(state.metadata()["facts"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to train from anew") from None


def load_state(folder: Path, parameters: nn.Module, optimizer: Optimizer, idle: Tensor) -> None:
    """Put a saved state back into freshly made objects of the same shapes."""
    with safe_open(folder / _STATE, "pt") as state:
        names = set(state.keys())
        parameters.load_state_dict(
            {
                name.removeprefix("parameter."): state.get_tensor(name)
                for name in names
                if name.startswith("parameter.")
            }
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name in names:
            if name.startswith("optimizer."):
                _, index, moment = name.split(".")
                moments.setdefault(int(index), {})[moment] = state.get_tensor(name)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        with torch.no_grad():
            idle.copy_(state.get_tensor("idle"))

"""Read named tensors from safetensors and PyTorch files that other people made.

Nothing in a file is executed: PyTorch files are unpickled with `weights_only`, and only if they are
uncompressed zip archives, so that no file takes more memory than it has bytes. Shapes are checked
before a tensor is copied, and numbers that are not finite are refused.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from sieve.model.files import UNREADABLE, reason_of

PYTORCH = (".pt", ".pth", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
_MAX_PICKLE = 1 << 24
_MAX_TENSORS = 10_000
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_SAFE_FLOATS = {"F16", "BF16", "F32", "F64"}
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.serialization _get_layout",
    "numpy dtype",
    "_codecs encode",
    *(f"numpy.{core}.multiarray scalar" for core in ("core", "_core")),
    *(
        f"torch {kind}Storage"
        for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")
    ),
}  # fmt: skip
"""Everything that a state dict and NumPy numbers need."""


class TensorFile:
    """Named tensors of a file, of which only the wanted ones are read.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shape of each tensor; names of nested dictionaries are joined by dots.
    numbers : dict of str to float or str
        Other values of a PyTorch file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[str, float | str] = {}
        self._tensors: dict[str, Tensor] = {}
        if path.suffix.lower() == SAFETENSORS:
            with self._faults(), safetensors.safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                self._is_float = {
                    name: part.get_dtype() in _SAFE_FLOATS for name, part in slices.items()
                }
        elif path.suffix.lower() in PYTORCH:
            with self._faults():
                self._collect(_load_pickle(path), "")
            self.shapes = {name: tuple(part.shape) for name, part in self._tensors.items()}
            self._is_float = {name: part.dtype in _FLOATS for name, part in self._tensors.items()}
        else:
            raise ValueError(
                f"{path} is not a file of weights; expected {SAFETENSORS} or {', '.join(PYTORCH)}"
            )
        if len(self.shapes) > _MAX_TENSORS:
            raise ValueError(f"{path} has {len(self.shapes):,} tensors; expected an encoder's few")

    def tensor(self, name: str, *shapes: Sequence[int]) -> Tensor:
        """Read a tensor as float32; its shape must be one of `shapes`.

        Raises
        ------
        ValueError
            If it is missing, of another shape or type, or has a number that is not finite.
        """
        if name not in self.shapes:
            names = ", ".join(sorted(self.shapes)[:12]) or "none"
            raise ValueError(f"{self.path} has no tensor {name[:80]!r}; there are: {names[:400]}")
        shape = self.shapes[name]
        if shape not in {tuple(one) for one in shapes}:
            expected = " or ".join(str(tuple(one)) for one in shapes)
            raise ValueError(
                f"{self.path}: tensor {name[:80]!r} has shape {shape}; expected {expected}"
            )
        if not self._is_float[name]:
            raise ValueError(f"{self.path}: tensor {name[:80]!r} holds no floating-point numbers")
        if name in self._tensors:
            value = self._tensors[name].detach().to(torch.float32, copy=True).contiguous()
        else:
            with self._faults(), safetensors.safe_open(self.path, "pt") as file:
                value = file.get_tensor(name).to(torch.float32).contiguous()
        if not value.isfinite().all():
            raise ValueError(f"{self.path}: tensor {name[:80]!r} has a number that is not finite")
        return value

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {self.path}") from None
        except (safetensors.SafetensorError, *UNREADABLE, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as weights ({reason_of(error)}); save its "
                "state_dict() again, preferably as safetensors"
            ) from None

    def _collect(self, value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            self._tensors[name] = value
        elif isinstance(value, Mapping):
            for key, part in value.items():
                self._collect(part, f"{name}.{key}" if name else str(key))
        elif isinstance(value, int | float | np.number):
            self.numbers[name] = float(value)
        elif isinstance(value, str):
            self.numbers[name] = value[:200]


def _load_pickle(path: Path) -> Any:
    """Unpickle an uncompressed PyTorch archive of tensors and numbers; raise a ValueError else."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its archive is compressed, which PyTorch does not write")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its archive declares more data than the file has")
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE:
            raise ValueError("it is not a state dict of PyTorch")
        names = _globals_of(archive.read(pickles[0]))
    if unknown := sorted(names - _GLOBALS):
        raise ValueError(
            f"it holds a pickled object, {unknown[0].replace(' ', '.')[:80]}, not only tensors"
        )
    allowed: list[Any] = [
        np.dtype,
        type(np.dtype("f4")),
        type(np.dtype("f8")),
        type(np.dtype("i8")),
    ]
    scalar: Any = np.float64(0).__reduce__()[0]
    # The same function, by the names that NumPy 1 and 2 pickle it under.
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*allowed, *named]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _globals_of(code: bytes) -> set[str]:
    """Return the names that a pickle would import; its opcodes are listed, never run."""
    found = set()
    for opcode, argument, _ in pickletools.genops(code):
        if opcode.name == "GLOBAL":
            found.add(str(argument))
        elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            found.add(opcode.name)  # PyTorch writes only GLOBAL
    return found

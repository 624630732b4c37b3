"""Write a model as one file for other programs, its offset inside.

    camri export tuned/folder_signs/model signs.stablehlo
    camri export tuned/folder_signs/model signs.onnx

The function takes images uint8, any number of the size of training, and returns
logits: their arg max is the class, with the threshold that was promised. StableHLO is
read by JAX on CPU, CUDA and TPU, and expires with its versions; the weights in the
model's directory do not. ONNX needs the extra `onnx` to be written, and no JAX to run.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import tyro

from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.console import wrote
from camri_jax.takehome import load_model
from camri_jax.takehome.exporting import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Export a model.

    Attributes:
      model: Directory of a model.
      file: To write.
      kind: Of file; else what its name ends with.
    """

    model: tyro.conf.Positional[Path]
    file: tyro.conf.Positional[Path]
    kind: Kind | None = None


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "export")
    kind = given.kind or given.file.suffix.removeprefix(".")
    if kind not in get_args(Kind):
        raise UsageError(
            f"{given.file} must end with .stablehlo or .onnx, or --kind must say which"
        )
    words.writable(given.file.parent)
    backend.set_up_jax()
    wrote(kind, load_model(given.model).export(given.file, cast(Kind, kind)))

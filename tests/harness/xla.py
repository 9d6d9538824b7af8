"""XLA's CPU backend as a judge of the oracle: modules run in a child process of a Python that has jax.

The module goes through StableHLO, the only way in that jax offers; what cannot be said there is no verdict.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.operator import find
from nxcc.ir.hlo.oracle import flatten
from nxcc.ir.hlo.proto.writer import write_module

CHILD = Path(__file__).with_name("xla_child.py")
FLAGS = "--xla_allow_excess_precision=false --xla_cpu_enable_fast_math=false --xla_cpu_enable_fast_min_max=false " \
        "--xla_cpu_multi_thread_eigen=false"
"""As the stored results of the conformance corpora were made, and NaN in minima and maxima as the specification says."""


class NoVerdict(Exception):
    """XLA did not run a module; the text says why."""


def _without_fusions(module: Module) -> Module:
    """A copy with calls for fusions, in which XLA wants every parameter to be used."""
    copy = clone_module(module)
    for instruction in copy.instructions():
        if instruction.opcode == "fusion":
            instruction.operator, instruction.opcode = find("call"), "call"
            instruction.attributes = {}
        for called in instruction.called:
            called.is_fusion = False
    return copy


class Xla:
    """Runs modules; the child is started when needed, and again after a crash. seconds: how long one may take."""

    def __init__(self, python: str, seconds: float = 20.0) -> None:
        self.python = python
        self.seconds = seconds
        self._child: subprocess.Popen[str] | None = None

    def run(self, module: Module, values: Sequence[Any]) -> list[Any]:
        """Result leaves of a module for one value a parameter. Raises NoVerdict."""
        with tempfile.TemporaryDirectory(prefix="nxcc-xla-") as folder:
            write_module(_without_fusions(module), os.path.join(folder, "module.pb"))
            rows = []
            for number, array in enumerate(flatten(tuple(values))):
                np.ascontiguousarray(array).tofile(os.path.join(folder, f"input{number}"))
                rows.append((number, array))
            leaves = [leaf for parameter in module.entry.parameters for leaf in parameter.shape.leaves() if leaf.is_array]
            Path(folder, "inputs.json").write_text(json.dumps(
                [[leaf.dtype.name, list(array.shape), f"input{number}"]
                 for (number, array), leaf in zip(rows, leaves, strict=True)]), encoding="utf-8")
            words = self._ask(folder)
            if words != "ok":
                raise NoVerdict(words)
            shapes = json.loads(Path(folder, "outputs.json").read_text(encoding="utf-8"))
            wanted = [leaf for leaf in module.entry.root.shape.leaves() if leaf.is_array]
            if len(shapes) != len(wanted):
                raise NoVerdict(f"{len(shapes)} results for {len(wanted)}")
            return [np.fromfile(os.path.join(folder, f"output{number}"), leaf.dtype.numpy).reshape(shape)
                    for number, (shape, leaf) in enumerate(zip(shapes, wanted, strict=True))]

    def _ask(self, folder: str) -> str:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen([self.python, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=subprocess.DEVNULL, text=True,
                                           env={**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu", "PYTHONPATH": ""})
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(folder + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return "XLA's process is gone"
        ready, _, _ = select.select([child.stdout], [], [], self.seconds)
        if not ready:
            self.close()
            return "XLA takes too long"
        return child.stdout.readline().strip() or self._crashed()

    def _crashed(self) -> str:
        self.close()
        return "XLA's process crashed"

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def __enter__(self) -> Xla:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

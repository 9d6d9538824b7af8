"""What is measured: modules of the corpus with their weights brought to life, and modules written here."""

from __future__ import annotations

import gzip
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from processes import run

VARIABLE = "NXCC_CORPUS"


class CorpusMissing(Exception):
    """No corpus where one is needed; the text says what to do."""


@dataclass(frozen=True)
class Corpus:
    """A folder with models/, timing/ and expand.py. cache: where unpacked modules and weights are kept."""

    path: Path
    cache: Path

    def model(self, name: str) -> Path:
        return self.path / "models" / name / "module.hlo.pb"

    def timing(self, name: str) -> Path | None:
        """The unpacked module of a timing row; None if the corpus has no graph for it."""
        packed = self.path / "timing" / name / "module.hlo.pb.gz"
        if not packed.exists():
            return None
        unpacked = self.cache / f"{name}.hlo.pb"
        if not unpacked.exists():
            unpacked.write_bytes(gzip.decompress(packed.read_bytes()))
        return unpacked

    def has_graph(self, name: str) -> bool:
        """Whether there is a module for a timing row."""
        return (self.path / "timing" / name / "module.hlo.pb.gz").exists()

    def weight_params(self, folder: str, name: str) -> str:
        """The parameters that are weights, as `--weight-params` takes them."""
        meta = json.loads((self.path / folder / name / "meta.json").read_text())
        numbers = [row["index"] for row in meta["parameters"] if row["role"] == "weight"]
        ranges: list[list[int]] = []
        for number in numbers:
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)

    def constants(self, name: str) -> Path:
        """The module with its weights as constants inside."""
        return self._made(name, "--constants", self.cache / f"{name}.constants.hlo.pb")

    def weights(self, name: str) -> Path:
        return self._made(name, "--weights", self.cache / f"{name}.weights.npz")

    def inputs(self, name: str) -> Path:
        """Stored inputs of a model, with which every value is finite: a simulated run that meets others is made twice."""
        return self.path / "models" / name / "io.npz"

    def graph(self, name: str) -> tuple[Path, Path]:
        """A TensorFlow graph with its weights, and its io-config."""
        folder, target = self.path / "tensorflow" / name, self.cache / f"{name}.pb"
        if not folder.exists():
            raise CorpusMissing(f"the corpus has no {folder}")
        if not target.exists():
            done = run([sys.executable, str(self.path / "expand_tf.py"), name, str(target)])
            if done.status:
                raise CorpusMissing(f"expand_tf.py {name}: {done.failure}")
        return target, folder / "io_config.json"

    def _made(self, name: str, flag: str, target: Path) -> Path:
        if not target.exists():
            done = run([sys.executable, str(self.path / "expand.py"), name, flag, str(target)])
            if done.status:
                raise CorpusMissing(f"expand.py {name} {flag}: {done.failure}")
        return target


def open_corpus(path: str, cache: Path) -> Corpus:
    """The corpus of an option, or of NXCC_CORPUS; CorpusMissing if it is not there."""
    for place in [path] if path else os.environ.get(VARIABLE, "").split(os.pathsep):
        if place and (Path(place) / "timing" / "modules.csv").exists():
            return Corpus(Path(place), cache)
    raise CorpusMissing(f"no corpus: give --corpus FOLDER or set {VARIABLE} to a folder with models/, timing/ and expand.py")


def matmul_text(size: int, dtype: str = "bf16") -> str:
    shape = f"{dtype}[{size},{size}]"
    return (f"HloModule matmul{size}\nENTRY main {{\n  a = {shape} parameter(0)\n  b = {shape} parameter(1)\n"
            f"  ROOT c = {shape} dot(a, b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}\n}}\n")


def mlp_text(rows: int = 64, width: int = 1024, layers: int = 4) -> str:
    """Dense layers with bias and tanh; weights are parameters 1 and on."""
    lines = ["HloModule mlp", "ENTRY main {", f"  x0 = f32[{rows},{width}] parameter(0)"]
    for n in range(layers):
        lines += _dense(n, f"x{n}", rows, width, width, 2 * n + 1)
        lines.append(f"  {'ROOT ' if n == layers - 1 else ''}x{n + 1} = f32[{rows},{width}] tanh(sum{n})")
    return "\n".join([*lines, "}", ""])


def _dense(n: int, value: str, rows: int, inner: int, outer: int, parameter: int) -> list[str]:
    return [f"  w{n} = f32[{inner},{outer}] parameter({parameter})", f"  b{n} = f32[{outer}] parameter({parameter + 1})",
            f"  d{n} = f32[{rows},{outer}] dot({value}, w{n}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
            f"  c{n} = f32[{rows},{outer}] broadcast(b{n}), dimensions={{1}}",
            f"  sum{n} = f32[{rows},{outer}] add(d{n}, c{n})"]


def layers_text(layers: int, rows: int = 128, width: int = 512) -> str:
    """Equal layers: two dense ones with tanh between, the input added, and a layer norm; weights are parameters 1 and on."""
    lines = ["HloModule layers", "add {", "  p = f32[] parameter(0)", "  q = f32[] parameter(1)", "  ROOT r = f32[] add(p, q)",
             "}", "ENTRY main {", f"  x0 = f32[{rows},{width}] parameter(0)", "  zero = f32[] constant(0)",
             f"  count = f32[] constant({width})", f"  counts = f32[{rows}] broadcast(count), dimensions={{}}"]
    for n in range(layers):
        lines += _layer(n, rows, width)
    lines.append(f"  ROOT result = f32[{rows},{width}] copy(x{layers})")
    return "\n".join([*lines, "}", ""])


def _layer(n: int, rows: int, width: int) -> list[str]:
    full, column = f"f32[{rows},{width}]", f"f32[{rows}]"
    return [
        *_dense(2 * n, f"x{n}", rows, width, 4 * width, 4 * n + 1), f"  t{n} = f32[{rows},{4 * width}] tanh(sum{2 * n})",
        *_dense(2 * n + 1, f"t{n}", rows, 4 * width, width, 4 * n + 3), f"  y{n} = {full} add(sum{2 * n + 1}, x{n})",
        f"  total{n} = {column} reduce(y{n}, zero), dimensions={{1}}, to_apply=add",
        f"  mean{n} = {column} divide(total{n}, counts)", f"  meanb{n} = {full} broadcast(mean{n}), dimensions={{0}}",
        f"  centred{n} = {full} subtract(y{n}, meanb{n})", f"  square{n} = {full} multiply(centred{n}, centred{n})",
        f"  squares{n} = {column} reduce(square{n}, zero), dimensions={{1}}, to_apply=add",
        f"  var{n} = {column} divide(squares{n}, counts)", f"  scale{n} = {column} rsqrt(var{n})",
        f"  scaleb{n} = {full} broadcast(scale{n}), dimensions={{0}}", f"  x{n + 1} = {full} multiply(centred{n}, scaleb{n})"]


def write_as_proto(text: str, target: Path, bound: bool = False) -> Path:
    """Write HLO text as a serialized module; bound: parameters from 1 on become constants with random values."""
    import numpy as np

    from nxcc.compiler.interface.parameters import Signature
    from nxcc.compiler.interface.weights import bind_weights
    from nxcc.ir.hlo.proto.writer import write_module
    from nxcc.ir.hlo.text.reader import read_text
    module = read_text(text)
    if bound:
        random = np.random.default_rng(0)
        parameters = module.entry.parameters
        values = {str(n): random.standard_normal(p.shape.dims, np.float32) for n, p in enumerate(parameters) if n}
        signature = Signature(list(range(len(parameters))), frozenset(range(1, len(parameters))))
        problems = bind_weights(module, signature, values, "")
        assert not problems, problems[0]
    write_module(module, target)
    return target


def parameter_shapes(path: Path, target: Path) -> Path:
    """A JSON file with numpy dtype and dims of each parameter of a module."""
    from nxcc.compiler.files.inputs import read_model
    module = read_model(str(path))
    rows = [(p.shape.dtype.numpy.name, list(p.shape.dims)) for p in module.entry.parameters]
    target.write_text(json.dumps(rows))
    return target

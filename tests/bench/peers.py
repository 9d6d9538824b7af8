"""The compilers beside which nxcc is measured: XLA for this CPU and IREE, each if it can be found."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from processes import Cost, run

HERE = Path(__file__).resolve().parent
IREE_FLAGS = ("--iree-input-type=stablehlo", "--iree-hal-target-device=local",
              "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host")


@dataclass(frozen=True)
class Peers:
    """xla: an interpreter with jax. iree: the program iree-compile. Empty if there is none. cache: folder for files made."""

    xla: str
    iree: str
    cache: Path
    timeout_s: float

    def xla_compile(self, module: Path) -> Cost | None:
        """A process that compiles a serialized HLO module for this CPU, import of jax included."""
        return run([self.xla, str(HERE / "xla_cpu.py"), str(module)], self.timeout_s) if self.xla else None

    def iree_compile(self, module: Path) -> Cost | None:
        """A process that compiles the module's StableHLO; turning HLO into StableHLO is jaxlib's work and not counted."""
        if not self.iree or not self.xla:
            return None
        source, target = self.cache / f"{module.stem}.stablehlo", self.cache / f"{module.stem}.vmfb"
        converted = run([self.xla, str(HERE / "stablehlo.py"), str(module), str(source)], self.timeout_s)
        if converted.failure:
            return converted
        cost = run([self.iree, *IREE_FLAGS, str(source), "-o", str(target)], self.timeout_s)
        for path in (source, target):
            path.unlink(missing_ok=True)
        return cost


def find_peers(xla_python: str, iree_compile: str, cache: Path, timeout_s: float) -> tuple[Peers, list[str]]:
    """What is there, and a line for each that is left out."""
    has_jax = run([xla_python, "-c", "import jax"]).status == 0
    iree = shutil.which(iree_compile) or ""
    missing = []
    if not has_jax:
        missing.append(f"XLA is left out: {xla_python} has no jax (pip install 'nxcc[bench]', or --xla-python)")
    if not iree:
        missing.append(f"IREE is left out: there is no {iree_compile} (pip install 'nxcc[bench]', or --iree-compile)")
    elif not has_jax:
        missing.append("IREE is left out: jaxlib turns HLO into StableHLO")
    return Peers(xla_python if has_jax else "", iree, cache, timeout_s), missing

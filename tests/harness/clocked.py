"""How long the simulator's clock says that a module takes on v2, compiled as `nxcc compile -O2` would."""

from __future__ import annotations

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.simulator.timing import time_program
from nxcc.backends.target import load_target
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.pipeline import run_pipeline


def microseconds(text: str, cast: str = "matmult") -> float:
    """Of a module whose result is one array."""
    module, target = read_text(text), load_target("v2")
    run_pipeline(module, pass_settings(options_from(optlevel=2, auto_cast=cast), target))
    shapes = {f"in{i}": p.shape for i, p in enumerate(module.entry.parameters)} | {"out": module.entry.root.shape}
    node = DeviceNode("test", module, tuple(n for n in shapes if n != "out"), ("out",))
    program = generate([node], shapes, target, optlevel=2).program
    return target.nanoseconds(time_program(program, target).ticks) / 1e3

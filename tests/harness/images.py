"""Modules of images, and image programs on the strict device against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.target import load_target
from nxcc.compiler.driver import pass_settings
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.marks import IMAGES
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes.pipeline import run_pipeline

from harness.combiners import combiner
from harness.device import random_inputs

HEAD = "HloModule m\n" + combiner("sum", "add") + combiner("larger", "maximum") + "ENTRY main {\n"
TOLERANCES = {"none": 2e-6, "matmult": 1e-2}
"""Of the largest value, by --auto-cast."""


class Graph:
    """Writes a module of images [n, c, h, w]; statements give names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.inputs = 0
        self.shapes: dict[str, tuple[int, ...]] = {}

    def add(self, shape: Sequence[int], text: str) -> str:
        name = f"v{len(self.shapes)}"
        self.shapes[name] = tuple(shape)
        self.lines.append(f"  {name} = f32[{','.join(map(str, shape))}] {text}")
        return name

    def input(self, *shape: int) -> str:
        self.inputs += 1
        return self.add(shape, f"parameter({self.inputs - 1})")

    def number(self, value: float, like: str) -> str:
        return self.add(self.shapes[like], f"broadcast({self.add((), f'constant({value})')}), dimensions={{}}")

    def channels(self, vector: str, like: str) -> str:
        return self.add(self.shapes[like], f"broadcast({vector}), dimensions={{1}}")

    def map(self, opcode: str, *values: str) -> str:
        return self.add(self.shapes[values[0]], f"{opcode}({', '.join(values)})")

    def conv(self, x: str, outputs: int, size: int, stride: int = 1, pad: int | None = None, dilate: int = 1) -> str:
        n, c, *space = self.shapes[x]
        low = (size - 1) // 2 if pad is None else pad
        w = self.input(outputs, c, size, size)
        out = [((s - 1) * dilate + 1 + 2 * low - size) // stride + 1 for s in space]
        window = (f"window={{size={size}x{size} stride={stride}x{stride} pad={low}_{low}x{low}_{low} "
                  f"lhs_dilate={dilate}x{dilate}}}")
        return self.add((n, outputs, *out), f"convolution({x}, {w}), {window}, dim_labels=bf01_oi01->bf01")

    def depthwise(self, x: str, size: int, stride: int = 1, dilate: int = 1) -> str:
        """Each channel for itself."""
        n, c, *space = self.shapes[x]
        low = (size - 1) * dilate // 2
        w = self.input(c, 1, size, size)
        out = [(s + 2 * low - (size - 1) * dilate - 1) // stride + 1 for s in space]
        window = (f"window={{size={size}x{size} stride={stride}x{stride} pad={low}_{low}x{low}_{low} "
                  f"rhs_dilate={dilate}x{dilate}}}")
        return self.add((n, c, *out), f"convolution({x}, {w}), {window}, dim_labels=bf01_oi01->bf01, feature_group_count={c}")

    def norm(self, x: str) -> str:
        """Statistics, factor and offset by channel."""
        c = self.shapes[x][1]
        mean, variance, factor, offset = (self.input(c) for _ in range(4))
        centred = self.map("subtract", x, self.channels(mean, x))
        spread = self.map("exponential", self.map("multiply", variance, variance))
        scaled = self.map("divide", centred, self.channels(spread, x))
        return self.map("add", self.map("multiply", scaled, self.channels(factor, x)), self.channels(offset, x))

    def relu(self, x: str) -> str:
        return self.map("maximum", x, self.number(0, x))

    def squeeze(self, x: str, inner: int) -> str:
        """Each channel by a factor that all channels' means decide."""
        n, c, *_ = self.shapes[x]
        m = self.add((n, c, 1, 1), f"reshape({self.mean(x)})")
        gate = self.map("logistic", self.conv(self.map("tanh", self.conv(m, inner, 1)), c, 1))
        flat = self.add((n, c), f"reshape({gate})")
        return self.map("multiply", x, self.add(self.shapes[x], f"broadcast({flat}), dimensions={{0,1}}"))

    def swish(self, x: str) -> str:
        return self.map("multiply", x, self.map("logistic", x))

    def relu6(self, x: str) -> str:
        return self.map("minimum", self.relu(x), self.number(6, x))

    def pool(self, x: str) -> str:
        n, c, h, w = self.shapes[x]
        low = self.add((), "constant(-inf)")
        return self.add((n, c, (h - 1) // 2 + 1, (w - 1) // 2 + 1), f"reduce-window({x}, {low}), window={{size=1x1x3x3 "
                        "stride=1x1x2x2 pad=0_0x0_0x1_1x1_1}, to_apply=larger")

    def mean(self, x: str) -> str:
        n, c, *_ = self.shapes[x]
        return self.add((n, c), f"reduce({x}, {self.add((), 'constant(0)')}), dimensions={{2,3}}, to_apply=sum")

    def join(self, *values: str) -> str:
        n, _, h, w = self.shapes[values[0]]
        channels = sum(self.shapes[v][1] for v in values)
        return self.add((n, channels, h, w), f"concatenate({', '.join(values)}), dimensions={{1}}")

    def text(self) -> str:
        *lines, last = self.lines
        return HEAD + "\n".join(lines) + "\n  ROOT " + last.strip() + "\n}\n"


def images_in(module: Module) -> list[str]:
    """Names of the image programs of the entry."""
    return [i.name for i in module.entry.instructions if IMAGES in i.frontend_attributes]


def check_images(text: str, cast: str, exact: bool = False) -> list[str]:
    """Assert that the code of a module without host work computes what the oracle does; its image programs.

    exact: no transposes by the tensor engine.
    """
    target = load_target("v2")
    module = read_text(text)
    inputs = random_inputs(module)
    wanted = flatten(evaluate(module, inputs))
    run_pipeline(module, pass_settings(options_from(optlevel=2, auto_cast=cast), target))
    shapes = {f"in{i}": p.shape for i, p in enumerate(module.entry.parameters)} | {"out": module.entry.root.shape}
    node = DeviceNode("test", module, tuple(n for n in shapes if n != "out"), ("out",))
    code = generate([node], shapes, target, optlevel=2, exact_transposes=exact)
    machine = StrictMachine(code.program, code.program.hbm_bytes)
    for number, value in enumerate(inputs):
        machine.write(code.bindings[f"in{number}"].address, np.ascontiguousarray(value))
    for binding, literal in code.constants:
        machine.write(binding.address, np.ascontiguousarray(literal.array))
    machine.run(0)
    out = code.bindings["out"]
    found = machine.read(out.address, out.dtype, out.dims)
    assert np.abs(found - wanted[0]).max() <= TOLERANCES[cast] * np.abs(wanted[0]).max()
    return images_in(module)

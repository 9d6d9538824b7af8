"""An instruction made ready to run: which arrays it takes and the function that computes on them.

`engines/` holds one preparing function per instruction, registered with `semantics`. All decisions by dtype, shape and field
are made there, once; what remains for each execution is a call of the kernel with arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nxcc.backends.isa.program import AccessPattern, Affine, DmaPattern, Engine, Instruction, InstructionSpec
from nxcc.backends.simulator.memory import AnyView, Memories, View, invalid, refine
from nxcc.backends.simulator.numerics import Scratch
from nxcc.ir.dtypes import S32, U32
from nxcc.ir.facts import dataclass

Kernel = Callable[..., Any]
Dims = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """kernel(*arrays, *integers): one array a view (None where an optional operand is left out), then the evaluated affines."""

    kernel: Kernel
    views: tuple[AnyView | None, ...]
    affines: tuple[Affine, ...] = ()


class Alerts:
    """What engines tell the host at the end of a run.

    spread: the tensor engine met what is not finite: in a transpose, which is a product, or in a product whose other factor may
    hold zeros that the module does not have; NaN may have come of finite values. A device reports NaN that arises while it
    runs, at no cost (documented, runtime return codes: 1003, completed with numerical errors (NaN)); which instruction made it
    is assumed to be known to the runtime as for other errors.
    """

    __slots__ = ("spread",)

    def __init__(self) -> None:
        self.spread = False


@dataclass(frozen=True, slots=True)
class Settings:
    """check_ranges: an activation input outside the documented range of its function is an error (strict mode)."""

    alerts: Alerts
    check_ranges: bool = False


class Operation:
    """One instruction being prepared, with the memories and the scratch space that its kernel may use."""

    __slots__ = ("instruction", "engine", "memories", "scratch", "settings")

    def __init__(self, instruction: Instruction, engine: Engine, memories: Memories, scratch: Scratch,
                 settings: Settings) -> None:
        self.instruction, self.engine, self.memories, self.scratch = instruction, engine, memories, scratch
        self.settings = settings

    def field(self, name: str) -> Any:
        fields = self.instruction.fields
        if name in fields:
            return fields[name]
        return next(f.default for f in self.instruction.spec.fields if f.name == name)

    def has(self, name: str) -> bool:
        return name in self.instruction.operands

    def pattern(self, name: str) -> AccessPattern:
        operand = self.instruction.operands.get(name)
        if not isinstance(operand, AccessPattern):
            raise invalid(f"{self.instruction.spec.name} needs the operand {name} as an access pattern")
        return operand

    def dma(self, name: str) -> DmaPattern:
        operand = self.instruction.operands.get(name)
        if not isinstance(operand, DmaPattern):
            raise invalid(f"{self.instruction.spec.name} needs the operand {name} as a DMA pattern")
        return operand

    def view(self, pattern: AccessPattern, dims: Dims | None = None, dtype: Any = None) -> View:
        return View(self.memories, pattern, pattern.dims if dims is None else dims, dtype)

    def aligned(self, *names: str) -> list[View]:
        """Views of elementwise operands, all of one shape [partitions, ...] with at least one free dimension."""
        patterns = [self.pattern(name) for name in names]
        if len({p.partitions for p in patterns}) != 1:
            raise invalid("operands differ in their number of partitions")
        dims = refine([p.dims for p in patterns])
        return [self.view(p, d or [(1, 1)]) for p, d in zip(patterns, dims, strict=True)]

    def per_partition(self, name: str, like: View) -> View | None:
        """The view of an optional operand with one value a partition, shaped to broadcast against `like`."""
        if not self.has(name):
            return None
        pattern = self.pattern(name)
        if pattern.partitions != like.shape[0] or pattern.free_elements != 1:
            raise invalid(f"{name} must hold one element in each partition of the data")
        return self.view(pattern, [(1, 1)] * (len(like.shape) - 1))

    @property
    def is_native_integer(self) -> bool:
        """GpSimd computes in 32-bit integers when all operands are such."""
        return self.engine is Engine.GPSIMD and all(
            isinstance(o, AccessPattern) and o.dtype in (S32, U32) for o in self.instruction.operands.values())


SEMANTICS: dict[str, Callable[[Operation], Prepared]] = {}


def semantics(spec: InstructionSpec) -> Callable[[Callable[[Operation], Prepared]], Callable[[Operation], Prepared]]:
    """Register the function that prepares this instruction."""
    def register(prepare: Callable[[Operation], Prepared]) -> Callable[[Operation], Prepared]:
        assert spec.name not in SEMANTICS
        SEMANTICS[spec.name] = prepare
        return prepare
    return register

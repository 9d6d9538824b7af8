"""Shapes that a text leaves out, inferred from the operands."""

from __future__ import annotations

from nxcc.ir.diagnostics import INVALID_MODULE, LIMIT_EXCEEDED
from nxcc.ir.hlo.builder import infer_shape
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.text.completion import with_layout
from nxcc.ir.hlo.text.cursor import MAX_NESTING, TextError
from nxcc.ir.shapes import Shape

_INFERRED = frozenset((
    "broadcast", "call", "concatenate", "conditional", "convolution", "dot", "fft", "gather", "get-tuple-element", "map", "pad",
    "reduce", "reduce-window", "reverse", "scatter", "select-and-scatter", "sort", "transpose", "triangular-solve", "cholesky",
    "tuple", "while", "topk", "batch-norm-grad", "batch-norm-inference", "batch-norm-training", "after-all", "add-dependency",
    "partition-id", "replica-id", "domain", "get-dimension-size", "set-dimension-size", "ragged-dot", "scaled-dot", "scan",
    "opt-barrier"))
"""Besides the elementwise ones, the operators whose shape HLO text may leave out."""

_MOST_LEAVES = 1 << 16
"""Leaves of a tuple shape whose text was left out."""


class InferredShapes:
    """Infers shapes of one module. Tuples of tuples grow exponentially with the lines of a text, so depth and leaves are
    bounded; what is known of a shape is kept by its identity, and the shape with it."""

    def __init__(self) -> None:
        self.sizes: dict[int, tuple[int, int]] = {}
        self.measured: list[Shape] = []

    def shape(self, made: Instruction, position: int) -> Shape:
        """The shape of an instruction whose operands, attributes and computations are known; position: for errors.

        Raises TextError where the operator does not say its shape, operands do not fit, or a tuple is too large.
        """
        if not (made.operator.elementwise or made.opcode in _INFERRED):
            raise TextError(position, f"{made.opcode} needs its shape written before it", INVALID_MODULE)
        try:
            shape = infer_shape(made.operator, [o.shape for o in made.operands], made.attributes, made.called)
        except ShapeError as reason:
            raise TextError(position, f"the shape of {made.name} was left out and cannot be inferred", INVALID_MODULE,
                            why=str(reason)) from None
        self._measure(shape, position)
        return with_layout(shape, made)

    def _measure(self, shape: Shape, position: int) -> tuple[int, int]:
        """Depth and leaves of a shape."""
        if not shape.is_tuple:
            return 0, 1
        known = self.sizes.get(id(shape))
        if known is None:
            parts = [self._measure(e, position) for e in shape.elements]
            depth, leaves = 1 + max((p[0] for p in parts), default=0), sum(p[1] for p in parts)
            if depth > MAX_NESTING or leaves > _MOST_LEAVES:
                raise TextError(position, f"a tuple shape has more than {_MOST_LEAVES} parts or {MAX_NESTING} levels",
                                LIMIT_EXCEEDED)
            known = depth, leaves
            self.sizes[id(shape)] = known
            self.measured.append(shape)
        return known

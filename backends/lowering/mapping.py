"""Map: a computation of scalars on each place of its operands."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.bodies import body_reason, body_tiles, run_body, words_in
from nxcc.backends.lowering.elementwise import tile_width
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import flat_tiles, load, store, tile_like
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    return body_reason(instruction.called[0], target, "mapped computation")


@rule("map", unsupported=_unsupported)
def lower_map(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """One pass over the iteration space."""
    body = instruction.called[0]
    width = tile_width(kernel, sum(words_in(view.dtype) for view in (*operands, *results)) + body_tiles(body))
    for cut in flat_tiles(kernel, [*operands, *results], width):
        inputs, outs = cut[:len(operands)], cut[len(operands):]
        tiles = [load(kernel, view) for view in inputs]
        computed = [tile_like(kernel, view) for view in outs]
        run_body(kernel, body, [tile.flat() for tile in tiles], [tile.flat() for tile in computed])
        for view, tile in zip(outs, computed, strict=True):
            store(kernel, view, tile)

"""A target that holds nothing on chip, and regions that the passes form for v2, with the oracle's answer kept."""

from __future__ import annotations

import numpy as np

from nxcc.backends.capability.rows import TargetRowCapacity
from nxcc.backends.target import load_target
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.fusing.chain_regions import ChainRegions
from nxcc.passes.fusing.fusion import Fusion
from nxcc.passes.fusing.merge_regions import MergeRegions


class NothingFits:
    """A target on which no region can be formed."""

    max_inputs = 0

    def supported(self, instruction: Instruction) -> bool:
        return False

    def fits(self, *what: object) -> bool:
        return False

    def packs(self, convolution: Instruction) -> bool:
        return False


def with_regions(text: str, *passes: type[Fusion] | type[MergeRegions] | type[ChainRegions]) -> Module:
    """A module after these passes, which must leave it valid and its results on random inputs as they were."""
    module = read_text(text)
    inputs = [np.random.default_rng(n).normal(size=p.shape.dims).astype(np.float32)
              for n, p in enumerate(module.entry.parameters)]
    wanted = flatten(evaluate(module, inputs))
    capacity = TargetRowCapacity(load_target("v2"))
    for kind in passes:
        kind(capacity).run(module)
    verify(module)
    for got, want in zip(flatten(evaluate(module, inputs)), wanted, strict=True):
        np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=1e-6)
    return module

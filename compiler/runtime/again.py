"""A run again, with code that keeps what is not finite in its place.

Where products are large, operands are turned by products with the identity unless `--relayout` says otherwise (see
`relayout.py`), and passes put zeros into products (see `nxcc.passes.added_zeros`), which is right for what is finite. If a
device reports a transpose or a product that is not finite, what it computed is dropped: the module that the file carries is
compiled with `--relayout exact` and without those zeros, once, and that code runs on the same values. So a NaN costs time where
there is one, and nothing where there is none.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

from nxcc.compiler.choices.relayout import EXACT
from nxcc.compiler.driver import compile_module
from nxcc.compiler.runtime.carried import as_read, embedded_module, options_of
from nxcc.compiler.runtime.loaded import Loaded
from nxcc.ir.literals import Array
from nxcc.neff.reader import open_neff
from nxcc.neff.writer import write_neff


class ExactTwin:
    """The module of a loaded file with exact code, ready to run. Its inputs are the file's inputs and weights.

    Raises CompileError if the file carries no module, or one whose exact code does not fit.
    """

    def __init__(self, loaded: Loaded, strict: bool = False, seed: int = 0) -> None:
        module, self.constants = embedded_module(loaded.neff)
        recorded = options_of(loaded.graph.nxcc.options)
        options = replace(recorded, relayout=EXACT, neuroncore_pipeline_cores=1, optlevel=min(recorded.optlevel, "2"))
        build = compile_module(as_read(module), options)
        assert build.package is not None
        with tempfile.TemporaryDirectory(prefix="nxcc-exact-") as folder:
            path = os.path.join(folder, "exact.neff")
            write_neff(path, build.package)
            self.loaded = Loaded(open_neff(path), strict=strict, seed=seed)

    def run(self, values: list[Array]) -> list[Array]:
        """The results in tuple order. values: of all inputs and weights in order, as the file's own code takes them."""
        return self.loaded.run_within([*values, *self.constants])

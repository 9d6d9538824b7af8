"""A child process that writes a serialized HLO module as StableHLO: stablehlo.py MODULE TARGET. Needs jaxlib."""

import sys
from pathlib import Path

from jaxlib import _jax

if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(_jax.mlir.hlo_to_stablehlo(Path(sys.argv[1]).read_bytes()))

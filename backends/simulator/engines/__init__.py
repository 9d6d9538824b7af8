"""What each instruction does to arrays, one engine family a file, mirroring `isa/instructions`.

Importing this package registers the semantics of every instruction that touches memory.
"""

from nxcc.backends.simulator.engines import control, dma, gpsimd, pe, scalar, vector

__all__ = ["control", "dma", "gpsimd", "pe", "scalar", "vector"]

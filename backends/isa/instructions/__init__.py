"""The instruction set, one engine family a file. Importing this package declares every instruction.

Sources: hardware model sections 1.4 to 1.8 and 2; what is not public (registers, branches, DMA triggers) is ours.
"""

from nxcc.backends.isa.instructions import control, dma, gpsimd, pe, scalar, vector

__all__ = ["control", "dma", "gpsimd", "pe", "scalar", "vector"]

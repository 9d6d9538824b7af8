"""Random numbers: the counter-based generators bit for bit, and the stateful ones of old modules."""

from nxcc.ir.hlo.attributes import DELTA, DISTRIBUTION, RNG_ALGORITHM
from nxcc.ir.hlo.operator import operator

operator("rng", (0, None), attributes=(DISTRIBUTION,), side_effect=True)
operator("rng-bit-generator", 1, attributes=(RNG_ALGORITHM,))
operator("rng-get-and-update-state", 0, attributes=(DELTA,), side_effect=True)

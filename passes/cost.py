"""What passes ask about a machine: small protocols, which a target's implementation answers; the driver hands it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nxcc.ir.hlo.imagespace import ImageMap
from nxcc.ir.hlo.module import Instruction


class Unsupported(Protocol):
    """Whether the device can run an instruction."""

    def __call__(self, instruction: Instruction, /) -> str | None:
        """Why the device cannot run it, in words; None if it can. May look at called computations."""


class RowCapacity(Protocol):
    """What a row program may hold on the target."""

    @property
    def max_inputs(self) -> int:
        """Operands that one region can take."""

    def supported(self, instruction: Instruction, /) -> bool:
        """Whether a region can compute this instruction."""

    def fits(self, widths: list[tuple[Instruction, int]], streams: bool, hopeful: bool = False, /) -> bool:
        """Whether tiles of these values, (instruction, elements a row) from the root backwards, fit on the chip.

        hopeful: or would fit once a product is there as well that makes the long rows.

        streams: columns do not depend on each other, so that a tile need not hold whole rows.
        """

    def at_most(self, member: Instruction, columns: int, /) -> tuple[int, int]:
        """Bytes a partition that a member with so many elements a row takes with what it reads, at most: of tiles that are cut
        along columns, and of whole rows. More than there is if that is not known member by member."""

    def has_room(self, size: int, /) -> bool:
        """Whether members that take so many bytes a partition together fit, whatever else holds of them."""

    def holds(self, products: Sequence[Instruction], /) -> bool:
        """Whether one region may multiply by the matrices of all of these products."""

    def chains(self, regions: Sequence[Instruction], rows: int, /) -> bool:
        """Whether row programs of so many rows fit on the chip together, each handing on to later ones what they read of it."""

    def heads(self, head: Instruction, regions: Sequence[Instruction], rows: int, /) -> bool:
        """Whether attention whose rows the first of these row programs multiplies fits on the chip with them."""


class ImageCapacity(Protocol):
    """What an image program may hold on the target."""

    @property
    def max_inputs(self) -> int:
        """Operands that one region can take."""

    @property
    def spans_blocks(self) -> bool:
        """Whether a region goes on through values that several of its members read, as the blocks of a network hand them on."""

    def supported(self, instruction: Instruction, /) -> bool:
        """Whether a region can compute this instruction."""

    def packs(self, convolution: Instruction, /) -> bool:
        """Whether it reads its image from memory in a way of its own, so that nothing before it belongs to the region."""

    def fits(self, members: Sequence[Instruction], maps: Mapping[Instruction, ImageMap], /) -> bool:
        """Whether a region of these members, root first, fits on the chip. maps: of members and what they read."""


class PlacementCosts(Protocol):
    """What it costs to run an instruction on either side, and to change sides; nanoseconds."""

    @property
    def launch(self) -> int:
        """A call of a device region."""

    def host(self, instruction: Instruction, /) -> int:
        """The host's time for an instruction."""

    def device(self, instruction: Instruction, /) -> int:
        """The device's time for an instruction."""

    def transfer(self, size: int, /) -> int:
        """Time for this many bytes from one side to the other."""


class StageCosts(Protocol):
    """What a stage of a pipeline costs on one core of the target. Ticks are the target's."""

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights that a core can keep on chip beside its work."""

    def ticks(self, node: str, instruction: str, /) -> int:
        """Ticks of an instruction of a node's entry, its weights being on chip; both by name."""

    def needed_bytes(self, node: str, instruction: str, /) -> int:
        """Bytes that the weights of the instruction take on chip."""

    def stream_ticks(self, sizes: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Ticks to bring this many bytes of weights from device memory, one number a stage."""

    def handover_ticks(self, sizes: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Ticks in which two neighbours pass on this many bytes, one number a border; none where there are none."""

    def is_weight(self, value: str, /) -> bool:
        """Whether the value of this name is a declared weight."""

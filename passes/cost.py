"""What passes ask about a machine: small protocols, which a target's implementation answers; the driver hands it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

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

    def fits(self, widths: list[tuple[Instruction, int]], streams: bool, /) -> bool:
        """Whether tiles of these values, (instruction, elements a row) from the root backwards, fit on the chip.

        streams: columns do not depend on each other, so that a tile need not hold whole rows.
        """


class ImageCapacity(Protocol):
    """What an image program may hold on the target."""

    @property
    def max_inputs(self) -> int:
        """Operands that one region can take."""

    def supported(self, instruction: Instruction, /) -> bool:
        """Whether a region can compute this instruction."""

    def packs(self, convolution: Instruction, /) -> bool:
        """Whether it reads its image from memory in a way of its own, so that nothing before it belongs to the region."""

    def fits(self, members: Sequence[Instruction], maps: Mapping[Instruction, ImageMap], /) -> bool:
        """Whether a region of these members, root first, fits on the chip. maps: of members and what they read."""

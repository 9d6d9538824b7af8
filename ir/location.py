"""Where an instruction came from: the framework's own names and source lines, carried from the input to every report."""

from __future__ import annotations

from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """Metadata of one instruction (OpMetadata of the HLO format); empty text and 0 mean absent."""

    op_type: str = ""
    op_name: str = ""
    source_file: str = ""
    source_line: int = 0
    source_end_line: int = 0
    source_column: int = 0
    source_end_column: int = 0
    stack_frame_id: int = 0
    deduplicated_name: str = ""
    scheduling_name: str = ""

    def __str__(self) -> str:
        if self.source_file:
            place = f"{self.source_file}:{self.source_line}"
            return f"{place} ({self.op_name})" if self.op_name else place
        return self.op_name or self.op_type


NOWHERE = Location()

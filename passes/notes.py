"""What passes tell the user: a cast, a narrowed integer, something dropped. The driver hands in who listens."""

from __future__ import annotations

from collections.abc import Callable

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction


@dataclass(frozen=True)
class Note:
    """One thing that a pass did or fears.

    where: the instruction; source: the framework's name and line; is_warning: results may differ from what the module says.
    """

    pass_name: str
    text: str
    where: str = ""
    source: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        text = f"{self.pass_name}: {self.text}"
        if self.where:
            text += f" [at {self.where}]"
        return text + (f" [from {self.source}]" if self.source else "")


Report = Callable[[Note], None]


def unheard(note: Note) -> None:
    """Nobody listens."""


def note_at(pass_name: str, instruction: Instruction, text: str, is_warning: bool = False) -> Note:
    return Note(pass_name, text, instruction.name, str(instruction.location), is_warning)

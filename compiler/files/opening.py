"""Opens what a user names as a NEFF; what is no NEFF is called what it is, with the command that takes it."""

from __future__ import annotations

from nxcc.compiler.files.recognition import MODELS, NEFF, description
from nxcc.ir.diagnostics import FILE_UNREADABLE, NEFF_INVALID, CompileError
from nxcc.ir.files import map_file, near_file
from nxcc.neff.reader import Neff, open_neff


def open_compiled(path: str) -> Neff:
    """As `open_neff`, with the errors of a user who gave another file."""
    try:
        return open_neff(path)
    except CompileError as error:
        if error.code is FILE_UNREADABLE:
            error.remedy = error.remedy or near_file(path)
        kind = description(map_file(path)) if error.code is NEFF_INVALID else NEFF
        if kind in ("", NEFF):
            raise
        remedy = f"`nxcc compile {path}` makes one" if kind in MODELS else "`nxcc compile` makes one from a model"
        raise CompileError(NEFF_INVALID, f"{path} is no NEFF", why=f"it looks like {kind}", remedy=remedy) from None

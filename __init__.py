"""nxcc: an open ahead-of-time compiler for AWS NeuronCore v1 and v2.

`nxcc.compile(model, output, **options)` and `nxcc.load(path, weights).run(inputs)` are the verbs of the command line;
`nxcc.CompileError` is what they raise for anything that a user can cause.
"""

from __future__ import annotations

from nxcc.compiler.version import VERSION as __version__

TYPE_CHECKING = False
"""As typing has it, which takes longer to import than all of this."""

if TYPE_CHECKING:
    from nxcc.compiler.api import Compiled, CompileError, Model, compile, load

_LAZY = ("CompileError", "Compiled", "Model", "compile", "load")
__all__ = ["CompileError", "Compiled", "Model", "__version__", "compile", "load"]


def __getattr__(name: str) -> object:
    """Import the API when it is first used, so that `import nxcc` and the command line start fast."""
    if name in _LAZY:
        from nxcc.compiler import api
        return getattr(api, name)
    raise AttributeError(f"module 'nxcc' has no attribute {name!r}")

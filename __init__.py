"""nxcc: an open ahead-of-time compiler for AWS NeuronCore v1 and v2.

`nxcc.compile(model, output, **options)` and `nxcc.load(path, weights).run(inputs)` are the verbs of the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nxcc.compiler.api import Compiled, Model, compile, load

__version__ = "0.1.0"

__all__ = ["Compiled", "Model", "compile", "load"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used, so that `import nxcc` and the command line start fast."""
    if name in __all__:
        from nxcc.compiler import api
        return getattr(api, name)
    raise AttributeError(f"module 'nxcc' has no attribute {name!r}")

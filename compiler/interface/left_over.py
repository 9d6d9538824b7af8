"""Parameters that are inputs although they look like weights: a weights file that lacks one makes no error, since it need not
have them all, but is told of.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.compiler.interface.parameters import INPUT, Tensor
from nxcc.compiler.interface.weights import words_of

MAX_NAMED = 3


def left_over(bound: Sequence[Tensor], left: Sequence[Tensor], path: str) -> str:
    """What to say about inputs whose framework names stand beside those of bound weights; empty if there are none."""
    homes = {home for tensor in bound for home in _homes(tensor)}
    odd = [tensor for tensor in left if tensor.role == INPUT and homes.intersection(_homes(tensor))]
    if not odd:
        return ""
    named = ", ".join(f"{tensor.number} ({tensor.framework})" for tensor in odd[:MAX_NAMED])
    more = f" and {len(odd) - MAX_NAMED} more" if len(odd) > MAX_NAMED else ""
    which, stay = ("parameter", "it stays an input") if len(odd) == 1 else ("parameters", "they stay inputs")
    return f"{path} has no value for {which} {named}{more}, though for others beside; {stay}"


def _homes(tensor: Tensor) -> set[tuple[str, ...]]:
    """What a name lies in: all its words but the last, and the argument of the function, which may itself be numbered."""
    words = words_of(tensor.framework)
    root = 1
    while root < len(words) and words[root].isdecimal():
        root += 1
    return {home for home in (words[:-1], words[:root]) if 0 < len(home) < len(words)}

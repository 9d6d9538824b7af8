"""Several requests in a pipeline at the same time, as cores have them.

While a stage works on a request it takes over the next one's values, and the stage behind takes over the one before's. Of what
a stage takes over and hands over there are two places, which requests use in turns. Values that are needed farther on pass
from core to core. What is on the host is kept for each request.
"""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.compiler.runtime.loaded import Loaded, Walk
from nxcc.ir.hlo.texts import fresh
from nxcc.ir.literals import Array

STEPS = 2
"""From a stage's work on a request to the next stage's: in between its values are taken over."""


def stream(loaded: Loaded, requests: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """The outputs of each request, as `Loaded.run` gives them. requests: inputs in order.

    In odd steps values are taken over before stages work, in even ones behind that: if not both were right, stages would have
    to wait for each other. The last stage takes over first, so that a place which a value only passes is free for the next one.
    """
    nodes = loaded.graph.nodes
    with fresh():
        walks = []
        for number, values in enumerate(requests):
            checked = loaded.prepare({t.name: array for t, array in zip(loaded.inputs, values, strict=True)})
            entered = loaded.texts.entered(loaded.inputs, checked, loaded.neff.path)
            walks.append(Walk(loaded, number % 2).given(entered))
        for step in range(-1, STEPS * len(nodes) + len(requests)):
            def take_over(step: int = step) -> None:
                for stage, node in reversed(list(enumerate(nodes))):
                    request = step - STEPS * stage + 1
                    if 0 <= request < len(walks):
                        walks[request].take_over(node)

            if step % 2:
                take_over()
            for stage, node in enumerate(nodes):
                request = step - STEPS * stage
                if 0 <= request < len(walks):
                    walks[request].work(node)
            if not step % 2:
                take_over()
        return [loaded.texts.shown([row.name for row in loaded.outputs], walk.results(), loaded.neff.path) for walk in walks]

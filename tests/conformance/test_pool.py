"""The pool of workers: a case that touches too much memory costs itself only."""

from __future__ import annotations

import time

import numpy as np
import pytest
from conformance import pool
from conformance.walk import PASSED, SLOW, WalkOutcome

GREEDY_BYTES = 600 << 20


class Runner:
    """Cases are bytes to touch; one that takes much stays alive until it is ended."""

    def __call__(self, case: int) -> WalkOutcome:
        taken = np.ones(case, np.uint8)
        if case == GREEDY_BYTES:
            time.sleep(60)
        return self.lost(int(taken.size))

    def lost(self, case: int) -> WalkOutcome:
        return WalkOutcome("none", str(case), "", False, "")


def test_case_that_needs_too_much_memory_is_ended_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "RESIDENT_SHARE", 1.0)
    monkeypatch.setattr(pool, "_memory_bytes", lambda: pool.resident_bytes(None) + GREEDY_BYTES)
    found = {o.name: o for o in pool.run_all([GREEDY_BYTES, 1], Runner(), 1, 60.0)}
    assert {name: o.kind for name, o in found.items()} == {str(GREEDY_BYTES): SLOW, "1": PASSED}
    assert found[str(GREEDY_BYTES)].failures[0].cause == "needs too much memory"

"""The pipeline as a whole: its order, what each level runs, and that names stand for steps."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.oracle import evaluate
from nxcc.passes.pipeline import ORDER, PASS_NAMES, Settings, passes, run_pipeline

from harness.capacity import NothingFits
from harness.hlo_text import module_of


def settings(level: int) -> Settings:
    return Settings(level, "none", "bf16", NothingFits(), NothingFits())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_made_passes_have_the_names_of_their_steps(level: int) -> None:
    names = [row.name for row in passes(settings(level))]
    assert names == [name for name in PASS_NAMES if name in names]


def test_level_one_runs_every_step() -> None:
    assert tuple(row.name for row in passes(settings(1))) == PASS_NAMES


def test_facts_of_the_order_name_steps() -> None:
    assert {name for earlier, later, _ in ORDER for name in (earlier, later)} <= set(PASS_NAMES)
    assert all(reason for _, _, reason in ORDER)


def test_disabled_pass_does_not_run_and_observer_stops() -> None:
    seen: list[str] = []

    def observe(name: str, module: object, changed: bool) -> bool:
        seen.append(name)
        return name != "fold-constants"

    run_pipeline(module_of("ROOT x = f32[4] parameter(0)"), settings(1), disabled=("simplify",), observe=observe)
    assert "simplify" not in seen
    assert seen[-1] == "fold-constants"


@pytest.mark.parametrize("level", [0, 1])
def test_levels_agree(level: int) -> None:
    text = """
      ids = s64[2,3] parameter(0)
      table = f32[5,4] parameter(1)
      w = f32[6,4] parameter(2)
      rows = f32[2,3,4] gather(table, ids), offset_dims={2}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=2,
        slice_sizes={1,4}
      flat = f32[6,4] reshape(rows)
      wt = f32[4,6] transpose(w), dimensions={1,0}
      d = f32[6,6] dot(flat, wt), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      ROOT y = f32[2,3,6] reshape(d)
    """
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 5, (2, 3))
    others = [generator.normal(size=size).astype(np.float32) for size in ((5, 4), (6, 4))]
    wanted = evaluate(module_of(text), [ids, *others])
    module = module_of(text)
    run_pipeline(module, settings(level))
    np.testing.assert_allclose(evaluate(module, [ids, *others]), wanted, rtol=1e-6)

"""Collectives on one replica (HLO semantics notes, 9)."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.verifier import verify

from harness.hlo_text import module_of, value_of

X = np.array([1, 2, 3, 4], np.float32)
IDENTITIES = [
    "r = f32[4] all-reduce(p), replica_groups={}, to_apply=add_f32",
    "s = f32[4] all-reduce-start(p), to_apply=add_f32 ROOT r = f32[4] all-reduce-done(s)",
    "s = (f32[4], f32[4]) all-reduce-start(p), to_apply=add_f32 ROOT r = f32[4] all-reduce-done(s)",
    "r = f32[4] all-gather(p), dimensions={0}",
    "s = (f32[4], f32[4]) all-gather-start(p), dimensions={0} ROOT r = f32[4] all-gather-done(s)",
    "r = f32[4] all-to-all(p), dimensions={0}",
    "r = f32[4] reduce-scatter(p), dimensions={0}, to_apply=add_f32",
    "r = f32[4] collective-broadcast(p), replica_groups={{0}}",
    "r = f32[4] collective-permute(p), source_target_pairs={{0,0}}",
    "s = (f32[4], f32[4], u32[], u32[]) collective-permute-start(p), source_target_pairs={{0,0}} "
    "ROOT r = f32[4] collective-permute-done(s)",
]


@pytest.mark.parametrize("line", IDENTITIES)
def test_one_replica_gets_its_own_data(line: str) -> None:
    entry = "p = f32[4] parameter(0) " + (line if "ROOT" in line else "ROOT " + line)
    np.testing.assert_array_equal(value_of(entry, X), X)


def test_permute_without_source_gives_zeros() -> None:
    result = value_of("p = f32[4] parameter(0) ROOT r = f32[4] collective-permute(p), source_target_pairs={{0,1}}", X)
    np.testing.assert_array_equal(result, np.zeros(4))


def test_device_zero_keeps_its_part_of_a_reduce_scatter() -> None:
    result = value_of("p = f32[4] parameter(0) ROOT r = f32[2] reduce-scatter(p), replica_groups={{0,1}}, dimensions={0}, "
                      "to_apply=add_f32", X)
    np.testing.assert_array_equal(result, X[:2])


@pytest.mark.parametrize("line", ["all-gather(p, t), dimensions={0}",
                                  "reduce-scatter(p, t), replica_groups={{0},{1}}, dimensions={0}, to_apply=add_f32"])
def test_the_scalar_that_torch_xla_hands_along_stays_as_it_is(line: str) -> None:
    entry = f"p = f32[4] parameter(0) t = f32[] parameter(1) ROOT r = (f32[4], f32[]) {line}"
    whole, token = value_of(entry, X, np.array(7, np.float32))
    np.testing.assert_array_equal(whole, X)
    assert token == 7


def test_ragged_all_to_all_moves_its_own_rows() -> None:
    result = value_of("p = f32[4] parameter(0) o = f32[4] parameter(1) a = s32[1] constant({1}) n = s32[1] constant({2}) "
                      "ROOT r = f32[4] ragged-all-to-all(p, o, a, n, n, n), replica_groups={{0}}", X, np.zeros(4, np.float32))
    np.testing.assert_array_equal(result, [0, 0, 2, 3])


@pytest.mark.parametrize(("source", "size", "target", "wanted"), [
    (2, 4, 0, [3, 4, 0, 0]), (0, 4, 3, [0, 0, 0, 1]), (-1, 3, 0, [0, 1, 2, 0]), (0, 2, -1, [2, 0, 0, 0]), (9, 2, 0, [0] * 4),
    (1, -2, 0, [0] * 4)])
def test_rows_beyond_the_arrays_do_not_move(source: int, size: int, target: int, wanted: list[int]) -> None:
    result = value_of(f"p = f32[4] parameter(0) o = f32[4] parameter(1) a = s32[1] constant({{{source}}}) n = s32[1] "
                      f"constant({{{size}}}) t = s32[1] constant({{{target}}}) "
                      "ROOT r = f32[4] ragged-all-to-all(p, o, a, n, t, n), replica_groups={{0}}", X, np.zeros(4, np.float32))
    np.testing.assert_array_equal(result, wanted)


def test_replica_and_partition_are_zero() -> None:
    replica, partition = value_of("a = u32[] replica-id() b = u32[] partition-id() ROOT r = (u32[], u32[]) tuple(a, b)")
    assert replica == 0 and partition == 0 and replica.dtype == np.uint32


@pytest.mark.parametrize("line", ["r = f32[8] all-gather(p), replica_groups={{0,1}}, dimensions={0}",
                                  "r = f32[4] all-to-all(p), replica_groups={{0,1}}, dimensions={0}"])
def test_data_of_other_devices_is_refused(line: str) -> None:
    with pytest.raises(CompileError, match="NXC0301.*one device"):
        value_of(f"p = f32[4] parameter(0) ROOT {line}", X)


WRONG = [
    ("r = f32[5] all-gather(p), dimensions={0}", "must be that of"),
    ("r = f32[8] all-gather(p), replica_groups={{0,1,2,3}}, dimensions={0}", "must be that of"),
    ("r = f32[4] all-reduce(p), use_global_device_ids=true, to_apply=add_f32", "needs a channel_id"),
    ("r = f32[4] collective-permute(p), source_target_pairs={{0,1},{0,2}}", "names a source twice"),
    ("r = f32[4] all-to-all(p), replica_groups={{0,1,2}}, dimensions={0}", "cannot be split in 3"),
    ("r = f32[4] all-reduce-done(p)", "must come from all-reduce-start"),
]


@pytest.mark.parametrize("line,reason", WRONG, ids=[reason for _, reason in WRONG])
def test_broken_rule_is_reported(line: str, reason: str) -> None:
    with pytest.raises(CompileError, match=reason):
        verify(module_of(f"p = f32[4] parameter(0) ROOT {line}"))

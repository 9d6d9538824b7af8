"""Formulas become few instructions, and temporaries that fit."""

from __future__ import annotations

from collections.abc import Callable

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.emission import emit_groups, emit_term, emit_terms
from nxcc.backends.lowering.terms import Span, Term, activate, alu, bits, input_term, native, part, reciprocal, select
from nxcc.backends.target import load_target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, Loop, Op
from nxcc.ir.dtypes import BF16, F32, S32, U8, U32, DType

COLUMNS = 48


def emitted(formula: Callable[..., Term], *spans: Span, dtype: DType = F32, out: DType | None = None,
            columns: int = COLUMNS, taken: int = 0) -> tuple[list[Op], Kernel]:
    """The instructions of a formula over inputs of these spans; taken: bytes a partition that are in use before."""
    kernel = Kernel("test", load_target("v2"))
    if taken:
        kernel.sbuf((4, taken), U8)
    tiles: list[Access | float] = [2.0 if span is Span.NUMBER else kernel.sbuf((4, columns if span is Span.TILE else 1), dtype)
                                   for span in spans]
    terms = [input_term(place, dtype, span, 2.0 if span is Span.NUMBER else 0) for place, span in enumerate(spans)]
    emit_term(kernel, formula(*terms), tiles, kernel.sbuf((4, columns), out or dtype))
    return list(kernel.program.ops()), kernel


def names(ops: list[Op]) -> list[str]:
    return [op.spec.name for op in ops]


TILE, COLUMN, NUMBER = Span.TILE, Span.COLUMN, Span.NUMBER


def test_two_operators_with_scalars_are_one_instruction() -> None:
    (op,), _ = emitted(lambda x: x * 3.0 + 1.0, TILE)
    assert op.spec.name == "tensor_scalar" and (op.fields["op0"], op.fields["op1"]) == ("multiply", "add")


def test_a_column_is_a_scalar_on_either_side() -> None:
    (op,), _ = emitted(lambda x, c: c - x, TILE, COLUMN)
    assert op.fields["reverse0"] and op.operands["scalar0"].sizes == (4, 1)


def test_scalar_operator_before_a_tensor_operator_joins_it() -> None:
    (op,), _ = emitted(lambda x, y: y - x * 0.5, TILE, TILE)
    assert op.spec.name == "scalar_tensor_tensor" and op.fields["reverse1"] and not op.fields["reverse0"]


def test_a_value_used_twice_is_computed_once_and_alone() -> None:
    ops, _ = emitted(lambda x: _square(x + 1.0), TILE)
    assert names(ops) == ["tensor_scalar", "tensor_tensor"]


def _square(x: Term) -> Term:
    return x * x


def test_work_on_columns_stays_as_narrow_as_they_are() -> None:
    ops, _ = emitted(lambda x, c: x * activate("exp", c), TILE, COLUMN)
    assert [op.operands["out"].sizes for op in ops] == [(4, 1), (4, COLUMNS)]


def test_columns_that_cannot_be_scalars_repeat_by_stride() -> None:
    (op,), _ = emitted(lambda x, c: x + c, TILE, COLUMN, dtype=BF16)
    assert op.spec.name == "tensor_tensor" and op.operands["b"].dims == ((0, COLUMNS),)


def test_integers_run_on_gpsimd_and_power_too() -> None:
    (op,), _ = emitted(lambda x, y: native("multiply", x, y), TILE, TILE, dtype=S32)
    assert op.engine is Engine.GPSIMD
    (op,), _ = emitted(lambda x: alu("power", alu("maximum", x, -1.0), 0.5), TILE)
    assert op.engine is Engine.GPSIMD


def test_a_square_root_takes_an_inverse_root_on_gpsimd_and_one_instruction_on_vector() -> None:
    """Vector's keeps zero and infinity from their inverses; GpSimd's rsqrt takes a quarter of its power."""
    ops, _ = emitted(lambda x: alu("sqrt", x, 0.0), TILE)
    assert names(ops) == ["tensor_scalar", "scalar_tensor_tensor"] and ops[0].engine is Engine.GPSIMD


def test_the_inverse_of_a_root_takes_no_reciprocal() -> None:
    (op,), _ = emitted(lambda x: reciprocal(alu("sqrt", x, 0.0)), TILE)
    assert op.engine is Engine.GPSIMD and op.fields["op0"] == "rsqrt"


def test_scalar_squares_where_vector_has_more_to_do() -> None:
    kernel = Kernel("test", load_target("v2"))
    tile, out = (kernel.sbuf((4, 1, COLUMNS), F32) for _ in range(2))
    x = input_term(0, F32, TILE)
    kernel.tensor_tensor(out, tile, tile, "add")
    emit_groups(kernel, x * 3.0 * x, [tile], out)
    assert names(list(kernel.program.ops())) == ["tensor_tensor", "activation"]
    emit_groups(kernel, x * -3.0 * x, [tile], out)
    assert names(list(kernel.program.ops()))[2:] == ["scalar_tensor_tensor"]


def test_the_last_instruction_converts_and_parts_at_the_root_cost_nothing() -> None:
    assert names(emitted(lambda x, y: x + y, TILE, TILE, out=BF16)[0]) == ["tensor_tensor"]
    (op,), _ = emitted(lambda x: part(bits("bitwise_and", part(x, U32), 0x7FFFFFFF), F32), TILE)
    assert op.operands["out"].dtype is U32


def test_temporaries_take_the_memory_of_those_that_ended() -> None:
    def chain(x: Term) -> Term:
        for _ in range(20):
            x = activate("tanh", x) * x
        return x

    _, kernel = emitted(chain, TILE)
    assert kernel.program.sbuf_bytes <= 6 * 4 * 64


def test_columns_are_cut_where_temporaries_do_not_fit() -> None:
    columns = 8192
    _, roomy = emitted(lambda x: activate("exp", x) * activate("tanh", x), TILE, columns=columns)
    _, full = emitted(lambda x: activate("exp", x) * activate("tanh", x), TILE, columns=columns, taken=100_000)
    assert not any(isinstance(statement, Loop) for statement in roomy.program.body)
    assert any(isinstance(statement, Loop) for statement in full.program.body)


def test_several_results_share_what_they_have_in_common() -> None:
    kernel = Kernel("test", load_target("v2"))
    tile, first, second = (kernel.sbuf((4, COLUMNS), F32) for _ in range(3))
    shared = activate("exp", input_term(0, F32, TILE))
    emit_terms(kernel, [shared * 2.0, select(shared > 1.0, shared, 0.0)], [tile], [first, second])
    assert names(list(kernel.program.ops())).count("activation") == 1

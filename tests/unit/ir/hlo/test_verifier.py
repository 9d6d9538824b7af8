"""Each invariant of the verifier, broken once."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import MAX_CALL_DEPTH, MAX_TUPLE_DEPTH, verify
from nxcc.ir.location import Location
from nxcc.ir.shapes import Layout, Shape, array, tuple_of

from harness.hlo_text import module_of

VECTOR = array(F32, 4)


def small_module() -> Module:
    """main(p, q) = call(inner, p + q), inner(x) = -x."""
    return module_of("p = f32[4] parameter(0) q = f32[4] parameter(1) s = f32[4] add(p, q) "
                     "ROOT result = f32[4] call(s), to_apply=inner",
                     "inner { x = f32[4] parameter(0) ROOT n = f32[4] negate(x) }")


def instruction(module: Module, name: str) -> Instruction:
    return next(i for i in module.instructions() if i.name == name)


def test_valid_module_passes() -> None:
    verify(small_module())


def _remove_entry(module: Module) -> None:
    module.entry = Computation("elsewhere")


def _repeat_computation_name(module: Module) -> None:
    module.computations[0].name = "main"


def _call_self(module: Module) -> None:
    module.entry.root.called = (module.entry,)


def _call_foreign(module: Module) -> None:
    module.entry.root.called = (small_module().computations[0],)


def _lose_root(module: Module) -> None:
    module.entry.root = instruction(module, "n")


def _repeat_name(module: Module) -> None:
    instruction(module, "q").name = "p"


def _take_operand_elsewhere(module: Module) -> None:
    instruction(module, "s").operands = (instruction(module, "x"), instruction(module, "q"))


def _forget_user(module: Module) -> None:
    instruction(module, "p").users.clear()


def _make_circle(module: Module) -> None:
    module.entry.set_operands(instruction(module, "s"), (instruction(module, "p"), instruction(module, "result")))


def _skip_parameter_number(module: Module) -> None:
    instruction(module, "q").attributes["parameter_number"] = 2


def _drop_operand(module: Module) -> None:
    module.entry.set_operands(instruction(module, "s"), (instruction(module, "p"),))


def _declare_other_shape(module: Module) -> None:
    instruction(module, "s").shape = array(F32, 5)


def _add_attribute(module: Module) -> None:
    instruction(module, "s").attributes["dimensions"] = (0,)


def _spoil_attribute(module: Module) -> None:
    instruction(module, "result").attributes["is_composite"] = "yes"


def _call_nothing(module: Module) -> None:
    instruction(module, "result").called = ()


def _negative_size(module: Module) -> None:
    instruction(module, "p").shape = array(F32, -4)


def _huge(module: Module) -> None:
    instruction(module, "p").shape = array(F32, 2**40, 2**40)


def _nest_tuples(module: Module) -> None:
    shape = VECTOR
    for _ in range(MAX_TUPLE_DEPTH):
        shape = tuple_of(shape)
    instruction(module, "p").shape = shape


def _spoil_layout(module: Module) -> None:
    instruction(module, "p").shape = Shape(F32, (2, 2), layout=Layout((0, 0)))


def _alias_what_is_not_there(module: Module) -> None:
    module.aliases = (IoAlias((0,), 0, ()),)


def _alias_twice(module: Module) -> None:
    module.aliases = (IoAlias((), 0, ()), IoAlias((), 1, ()))


def _donate_what_is_not_there(module: Module) -> None:
    module.buffer_donors = ((2, ()),)


def _other_entry_layout(module: Module) -> None:
    module.entry_layout = ((VECTOR,), VECTOR)


BROKEN: list[tuple[Callable[[Module], None], str, str]] = [
    (_remove_entry, "NXC0106", "no entry computation"),
    (_repeat_computation_name, "NXC0106", "two computations are named main"),
    (_call_self, "NXC0106", "computations call themselves: main"),
    (_call_foreign, "NXC0106", "not part of the module"),
    (_lose_root, "NXC0106", "no root among its instructions"),
    (_repeat_name, "NXC0106", "two instructions are named p"),
    (_take_operand_elsewhere, "NXC0106", "operand %x is not an instruction of main"),
    (_forget_user, "NXC0106", "operand %p is not"),
    (_make_circle, "NXC0106", "in a circle"),
    (_skip_parameter_number, "NXC0106", "parameter numbers must be 0 to 1 without holes, they are 0, 2"),
    (_drop_operand, "NXC0106", "add takes 2 operands, 1 were given"),
    (_declare_other_shape, "NXC0106", r"declared as f32\[5\], it is f32\[4\]"),
    (_add_attribute, "NXC0106", "add has no attribute dimensions"),
    (_spoil_attribute, "NXC0106", "is_composite must be bool, it is 'yes'"),
    (_call_nothing, "NXC0106", "call calls 1 computations, 0 are given"),
    (_negative_size, "NXC0106", "size -4 of dimension 0 is negative"),
    (_huge, "NXC0107", "takes more than"),
    (_nest_tuples, "NXC0107", "tuples nest more than"),
    (_spoil_layout, "NXC0106", "is not an order of the 2 dimensions"),
    (_alias_what_is_not_there, "NXC0106", "names what does not exist"),
    (_alias_twice, "NXC0106", "repeats one of them"),
    (_donate_what_is_not_there, "NXC0106", "buffer_donor names parameter 2"),
    (_other_entry_layout, "NXC0106", "other parameters than the entry"),
]


@pytest.mark.parametrize("break_it,code,reason", BROKEN, ids=[row[0].__name__.strip("_") for row in BROKEN])
def test_broken_invariant_is_reported(break_it: Callable[[Module], None], code: str, reason: str) -> None:
    module = small_module()
    break_it(module)
    with pytest.raises(CompileError, match=f"{code}.*{reason}"):
        verify(module)


def test_all_problems_are_collected_with_instruction_and_location() -> None:
    module = small_module()
    instruction(module, "s").shape = instruction(module, "n").shape = array(F32, 5)
    instruction(module, "n").location = Location(op_name="layer/neg", source_file="model.py", source_line=7)
    with pytest.raises(CompileError) as caught:
        verify(module)
    error = caught.value
    assert error.where == "%n in inner" and error.location == "model.py:7 (layer/neg)"
    assert [line.split(":")[0] for line in error.details] == ["%n in inner", "%s in main", "%result in main"]


def test_calls_nest_only_so_deep() -> None:
    module = Module("deep")
    callee = None
    for level in range(MAX_CALL_DEPTH + 1):
        computation = module.add(Computation(f"level{level}"), entry=True)
        builder = Builder(computation)
        p = builder.parameter(0, VECTOR)
        computation.root = p if callee is None else builder.make("call", p, called=(callee,))
        callee = computation
    with pytest.raises(CompileError, match="NXC0107.*nest more than"):
        verify(module)


def test_unbounded_dimensions_are_left_to_others() -> None:
    verify(module_of("p = f32[?,2] parameter(0) q = f32[?,2] add(p, p) ROOT r = f32[?,4] concatenate(q, q), dimensions={1}"))


def test_dot_may_declare_a_wider_result() -> None:
    entry = "p = bf16[2,2] parameter(0) ROOT r = f32[2,2] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    verify(module_of(entry))


def test_definition_order_is_free_after_rewriting() -> None:
    module = small_module()
    main, builder = module.entry, Builder(module.entry)
    late = builder.make("negate", instruction(module, "p"))
    main.set_operands(instruction(module, "s"), (late, late))
    verify(module)


def test_time_grows_with_instructions_only() -> None:
    computation = Computation("chain")
    module = Module("chain")
    module.add(computation, entry=True)
    builder = Builder(computation)
    value = builder.constant(np.zeros(4, np.float32))
    times = []
    for count in (500, 4000):
        while len(computation.instructions) < count:
            value = builder.make("add", value, value)
        computation.root = value
        start = time.process_time()
        verify(module)
        times.append(time.process_time() - start)
    assert times[1] < 40 * times[0], "eight times the instructions must not take forty times as long"


def test_pinned_buffer_may_alias_the_array_that_it_holds() -> None:
    verify(read_text("""HloModule m
ENTRY e { x = f32[4] parameter(0)
  p = b(f32[4]) custom-call(x), custom_call_target="Pin", output_to_operand_aliasing={{}: (0, {})}
  ROOT u = f32[4] custom-call(p), custom_call_target="Unpin", output_to_operand_aliasing={{}: (0, {})} }"""))


def test_scan_of_one_result_may_be_an_array() -> None:
    verify(read_text("""HloModule m
step { x = f32[8] parameter(0)
  n = f32[8] negate(x)
  ROOT t = (f32[8]) tuple(n) }
ENTRY e { x = f32[16,8] parameter(0)
  ROOT s = f32[16,8] scan(x), dimensions={0}, num_carries=0, to_apply=step }"""))


def test_of_equal_wrong_instructions_each_is_reported() -> None:
    module = module_of("p = f32[4] parameter(0) a = f32[4] negate(p) b = f32[4] negate(a) ROOT c = f32[4] negate(b)")
    p, a, b, c = module.entry.instructions
    a.shape = b.shape = c.shape = array(F32, 5)
    b.operands = c.operands = a.operands
    p.users |= {b: None, c: None}
    with pytest.raises(CompileError) as caught:
        verify(module)
    assert [line.split(":")[0] for line in caught.value.details] == [f"%{i.name} in main" for i in (a, b, c)]

"""The machine verifier answers for any program that decodes."""

from hypothesis import HealthCheck, given, settings

from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.target import load_target
from nxcc.ir.diagnostics import CompileError

from harness.random_machine import PROGRAMS


@given(PROGRAMS)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_program_is_accepted_or_one_error(program):
    try:
        verify_program(program, load_target("v2"), hbm_bytes=1 << 20)
    except CompileError as error:
        assert error.code.name == "NXC0403" and error.details and error.where

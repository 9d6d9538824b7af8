"""Which operators' small forms are regions of their own on the device."""

from __future__ import annotations

from nxcc.backends.codegen.control import STRUCTURAL
from nxcc.backends.lowering.registry import rules
from nxcc.compiler.reports.operator_forms import EXPANDED, FORMS

LOWERED = sorted(set(rules()) & set(FORMS) - STRUCTURAL - set(EXPANDED))
"""Operators with a form and a lowering rule, but for what is structure or written in other operators."""

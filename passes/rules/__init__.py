"""Rewriting rules by family; `nxcc.passes.simplify` and `nxcc.passes.move_reshapes` say which ones they apply."""

"""Lowering rules of TensorFlow operators, one file a family; nxcc.ir.graphdef.registry imports them on first look-up."""

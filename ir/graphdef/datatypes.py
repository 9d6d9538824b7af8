"""TensorFlow's DataType: one row a type, with the HLO type that computes it and the field of TensorProto that holds it.

Source: GraphDef format reference, section 3.
"""

from __future__ import annotations

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass

STRING = 7
"""Strings are held as numbers in the table of a run (`nxcc.ir.hlo.texts`)."""

REFERENCE = 100
"""Added to the number of a type by reference, as TF1 variables have."""


@dataclass(frozen=True)
class DataType:
    """One element type. name: as in operator signatures and in io-config; dtype: None where HLO has no such values."""

    number: int
    name: str
    dtype: DType | None = None
    field: str = ""

    def __str__(self) -> str:
        return self.name


_ROWS = (
    DataType(1, "float32", dtypes.F32, "float_val"), DataType(2, "float64", dtypes.F64, "double_val"),
    DataType(3, "int32", dtypes.S32, "int_val"), DataType(4, "uint8", dtypes.U8, "int_val"),
    DataType(5, "int16", dtypes.S16, "int_val"), DataType(6, "int8", dtypes.S8, "int_val"),
    DataType(STRING, "string", dtypes.U32, "string_val"), DataType(8, "complex64", dtypes.C64, "scomplex_val"),
    DataType(9, "int64", dtypes.S64, "int64_val"), DataType(10, "bool", dtypes.PRED, "bool_val"),
    DataType(11, "qint8", dtypes.S8, "int_val"), DataType(12, "quint8", dtypes.U8, "int_val"),
    DataType(13, "qint32", dtypes.S32, "int_val"), DataType(14, "bfloat16", dtypes.BF16, "half_val"),
    DataType(15, "qint16", dtypes.S16, "int_val"), DataType(16, "quint16", dtypes.U16, "int_val"),
    DataType(17, "uint16", dtypes.U16, "int_val"), DataType(18, "complex128", dtypes.C128, "dcomplex_val"),
    DataType(19, "float16", dtypes.F16, "half_val"), DataType(20, "resource"), DataType(21, "variant"),
    DataType(22, "uint32", dtypes.U32, "uint32_val"), DataType(23, "uint64", dtypes.U64, "uint64_val"),
    DataType(24, "float8_e5m2", dtypes.F8E5M2, "float8_val"), DataType(25, "float8_e4m3fn", dtypes.F8E4M3FN, "float8_val"),
    DataType(26, "float8_e4m3fnuz", dtypes.F8E4M3FNUZ, "float8_val"),
    DataType(27, "float8_e4m3b11fnuz", dtypes.F8E4M3B11FNUZ, "float8_val"),
    DataType(28, "float8_e5m2fnuz", dtypes.F8E5M2FNUZ, "float8_val"),
    DataType(29, "int4", dtypes.S4, "int_val"), DataType(30, "uint4", dtypes.U4, "int_val"),
)
BY_NUMBER: dict[int, DataType] = {row.number: row for row in _ROWS}
BY_NAME: dict[str, DataType] = {row.name: row for row in _ROWS}
_OTHER_NAMES = {"half": "float16", "float": "float32", "double": "float64", "bool_": "bool", "int": "int32"}


def by_number(number: int) -> DataType | None:
    """The row of a DataType value, references counting as what they refer to; None if there is none."""
    return BY_NUMBER.get(number - REFERENCE if number > REFERENCE else number)


def by_name(name: str) -> DataType | None:
    """The row of a name as NumPy or TensorFlow writes it."""
    plain = name.removeprefix("DT_").lower() if name.startswith("DT_") else name
    return BY_NAME.get(_OTHER_NAMES.get(plain, plain))

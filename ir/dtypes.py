"""Element types: one row a dtype, from which text names, protobuf numbers, numpy types and sizes derive.

Source of names, numbers and payload fields: HLO format reference, section 3 "PrimitiveType".
"""

from __future__ import annotations

import enum
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.facts import dataclass


class Kind(enum.Enum):
    """What arithmetic an element type belongs to."""

    BOOL = "bool"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    FLOAT = "float"
    COMPLEX = "complex"
    TUPLE = "tuple"
    TOKEN = "token"
    OPAQUE = "opaque"
    BUFFER = "buffer"


@dataclass(frozen=True, eq=False)
class DType:
    """One element type.

    name: HLO text name; number: PrimitiveType value; literal_field: field of LiteralProto with the payload.
    numpy_type: the type that numpy (with ml_dtypes) computes in; sub-byte types take one byte an element there.
    Instances are singletons, compared by identity.
    """

    name: str
    number: int
    bits: int
    kind: Kind
    literal_field: str = ""
    numpy_type: Any = None

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype of an array of this type; an assertion error for tuple, token, opaque and buffer."""
        assert self.numpy_type is not None, f"{self.name} has no numpy type"
        return _numpy_dtype(self.numpy_type)

    @cached_property
    def is_array(self) -> bool:
        return self.numpy_type is not None

    @cached_property
    def is_float(self) -> bool:
        return self.kind is Kind.FLOAT

    @property
    def is_complex(self) -> bool:
        return self.kind is Kind.COMPLEX

    @cached_property
    def is_integer(self) -> bool:
        """Signed or unsigned integer; pred is neither."""
        return self.kind in (Kind.SIGNED, Kind.UNSIGNED)

    @property
    def is_signed(self) -> bool:
        return self.kind is Kind.SIGNED

    @property
    def is_unsigned(self) -> bool:
        return self.kind is Kind.UNSIGNED

    @cached_property
    def byte_size(self) -> int:
        """Bytes of one element in memory as we hold it: sub-byte types take a whole byte."""
        return max(1, self.bits // 8)

    def __repr__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype, (self.name,))


def _numpy_dtype(scalar_type: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(scalar_type)
    return found


PRED = DType("pred", 1, 8, Kind.BOOL, "preds", np.bool_)
S1 = DType("s1", 30, 1, Kind.SIGNED, "s1s", ml_dtypes.int1)
S2 = DType("s2", 26, 2, Kind.SIGNED, "s2s", ml_dtypes.int2)
S4 = DType("s4", 21, 4, Kind.SIGNED, "s4s", ml_dtypes.int4)
S8 = DType("s8", 2, 8, Kind.SIGNED, "s8s", np.int8)
S16 = DType("s16", 3, 16, Kind.SIGNED, "s16s", np.int16)
S32 = DType("s32", 4, 32, Kind.SIGNED, "s32s", np.int32)
S64 = DType("s64", 5, 64, Kind.SIGNED, "s64s", np.int64)
U1 = DType("u1", 31, 1, Kind.UNSIGNED, "u1s", ml_dtypes.uint1)
U2 = DType("u2", 27, 2, Kind.UNSIGNED, "u2s", ml_dtypes.uint2)
U4 = DType("u4", 22, 4, Kind.UNSIGNED, "u4s", ml_dtypes.uint4)
U8 = DType("u8", 6, 8, Kind.UNSIGNED, "u8s", np.uint8)
U16 = DType("u16", 7, 16, Kind.UNSIGNED, "u16s", np.uint16)
U32 = DType("u32", 8, 32, Kind.UNSIGNED, "u32s", np.uint32)
U64 = DType("u64", 9, 64, Kind.UNSIGNED, "u64s", np.uint64)
F16 = DType("f16", 10, 16, Kind.FLOAT, "f16s", np.float16)
F32 = DType("f32", 11, 32, Kind.FLOAT, "f32s", np.float32)
F64 = DType("f64", 12, 64, Kind.FLOAT, "f64s", np.float64)
BF16 = DType("bf16", 16, 16, Kind.FLOAT, "bf16s", ml_dtypes.bfloat16)
F8E5M2 = DType("f8e5m2", 19, 8, Kind.FLOAT, "f8e5m2s", ml_dtypes.float8_e5m2)
F8E4M3FN = DType("f8e4m3fn", 20, 8, Kind.FLOAT, "f8e4m3fns", ml_dtypes.float8_e4m3fn)
F8E4M3B11FNUZ = DType("f8e4m3b11fnuz", 23, 8, Kind.FLOAT, "f8e4m3b11fnuzs", ml_dtypes.float8_e4m3b11fnuz)
F8E5M2FNUZ = DType("f8e5m2fnuz", 24, 8, Kind.FLOAT, "f8e5m2fnuzs", ml_dtypes.float8_e5m2fnuz)
F8E4M3FNUZ = DType("f8e4m3fnuz", 25, 8, Kind.FLOAT, "f8e4m3fnuzs", ml_dtypes.float8_e4m3fnuz)
F8E4M3 = DType("f8e4m3", 28, 8, Kind.FLOAT, "f8e4m3s", ml_dtypes.float8_e4m3)
F8E3M4 = DType("f8e3m4", 29, 8, Kind.FLOAT, "f8e3m4s", ml_dtypes.float8_e3m4)
F8E8M0FNU = DType("f8e8m0fnu", 33, 8, Kind.FLOAT, "f8e8m0fnus", ml_dtypes.float8_e8m0fnu)
F6E3M2FN = DType("f6e3m2fn", 35, 6, Kind.FLOAT, "f6e3m2fns", ml_dtypes.float6_e3m2fn)
F6E2M3FN = DType("f6e2m3fn", 36, 6, Kind.FLOAT, "f6e2m3fns", ml_dtypes.float6_e2m3fn)
F4E2M1FN = DType("f4e2m1fn", 32, 4, Kind.FLOAT, "f4e2m1fns", ml_dtypes.float4_e2m1fn)
C64 = DType("c64", 15, 64, Kind.COMPLEX, "c64s", np.complex64)
C128 = DType("c128", 18, 128, Kind.COMPLEX, "c128s", np.complex128)
TUPLE = DType("tuple", 13, 0, Kind.TUPLE, "tuple_literals")
TOKEN = DType("token", 17, 0, Kind.TOKEN)
OPAQUE = DType("opaque", 14, 0, Kind.OPAQUE)
BUFFER = DType("buffer", 34, 0, Kind.BUFFER)

DTYPES: tuple[DType, ...] = tuple(value for value in list(globals().values()) if isinstance(value, DType))
BY_NAME: dict[str, DType] = {row.name: row for row in DTYPES}
BY_NUMBER: dict[int, DType] = {row.number: row for row in DTYPES}
_BY_NUMPY: dict[np.dtype[Any], DType] = {row.numpy: row for row in DTYPES if row.is_array}


def dtype(name: str) -> DType:
    """The dtype with this HLO text name; KeyError if there is none."""
    return BY_NAME[name]


def from_numpy(numpy_dtype: Any) -> DType:
    """The dtype that a numpy array of this type holds; KeyError if HLO has none."""
    return _BY_NUMPY[np.dtype(numpy_dtype)]

"""Entries of streams as float32, whatever they are stored as, for code that runs along rows.

NumPy has no bfloat16: such an array comes as its bits in uint16, see `bits`. Indices are those of a
flat array, taken as they are: no negative ones, no bounds.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

_INT, _FLOAT, _SHORT = ir.IntType(32), ir.FloatType(), ir.IntType(16)


def bits(x: Tensor) -> np.ndarray:
    """What a contiguous tensor stores, as a NumPy array; every step here costs a microsecond."""
    x = x.detach() if x.requires_grad else x
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def _pointer(context, builder, kind, array, index):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic
def get(typingctx, array, index):
    """The number at an index, as float32."""

    def generate(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        if array.dtype == types.uint16:
            high = builder.shl(builder.zext(value, _INT), ir.Constant(_INT, 16))
            return builder.bitcast(high, _FLOAT)
        return value

    return types.float32(array, types.intp), generate


@intrinsic
def put(typingctx, array, index, value):
    """Store a float32 at an index, rounded to nearest, ties to even."""

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, signature.args[0], *arguments[:2])
        value = arguments[2]
        if array.dtype == types.uint16:
            whole = builder.bitcast(value, _INT)
            last = builder.and_(builder.lshr(whole, ir.Constant(_INT, 16)), ir.Constant(_INT, 1))
            half = builder.add(last, ir.Constant(_INT, 0x7FFF))
            near = builder.lshr(builder.add(whole, half), ir.Constant(_INT, 16))
            nan = builder.fcmp_unordered("uno", value, value)
            value = builder.trunc(builder.select(nan, ir.Constant(_INT, 0x7FC0), near), _SHORT)
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate

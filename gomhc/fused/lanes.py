"""Eight numbers as one value of Numba: the compiler's own vectors, for code that runs over tokens.

Numba leaves vector instructions to LLVM, which finds few of them in loops over small matrices. With
a vector as a type, `a * b + c` is what it says for eight tokens at once, and a local variable is a
register. An array of `lanes` is a flat float64 array, and index k means numbers 8k to 8k + 7.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 8
_NUMBERS = ir.VectorType(ir.DoubleType(), WIDTH)
_BITS = ir.VectorType(ir.IntType(64), WIDTH)


class Lanes(types.Type):
    """The type of eight float64 numbers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _NUMBERS)


def _splat(builder: Any, number: Any) -> Any:
    first = builder.insert_element(ir.Constant(_NUMBERS, ir.Undefined), number, _int(0))
    return builder.shuffle_vector(
        first, first, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    )


def _int(number: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), number)


def _constant(number: float) -> ir.Constant:
    return ir.Constant(_NUMBERS, [number] * WIDTH)


def _define(operation: Callable[..., Any], instruction: str) -> None:
    """An operator between lanes, or lanes and a float that stands for eight of its kind."""
    pairs = [(lanes, lanes), (lanes, types.float64), (types.float64, lanes)]

    class Template(ConcreteTemplate):
        cases = [signature(lanes, *pair) for pair in pairs]

    infer_global(operation)(Template)
    for pair in pairs:

        def lower(context, builder, signature, arguments):
            whole = [
                value if kind == lanes else _splat(builder, value)
                for value, kind in zip(arguments, signature.args, strict=True)
            ]
            # A product and a sum may become one instruction, which rounds once.
            return getattr(builder, instruction)(*whole, flags=("contract",))

        lower_builtin(operation, *pair)(lower)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Pointer to the eight numbers."""
    data = context.make_array(kind)(context, builder, array).data
    offset = builder.mul(index, ir.Constant(index.type, WIDTH))
    return builder.bitcast(builder.gep(data, [offset]), _NUMBERS.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Lanes number `index` of a flat float64 array."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments)
        return builder.load(place, align=8)

    return lanes(array, types.intp), generate


@intrinsic
def store(typingctx, array, index, value):
    """Put lanes into a flat float64 array."""

    def generate(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _tokens(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
    """Pointers to array[row + t, column] for all lanes t."""
    value, row, column = arguments
    array = context.make_array(kind)(context, builder, value)
    size = builder.extract_value(array.shape, 1)
    start = builder.add(builder.mul(row, size), column)
    for t in range(WIDTH):
        yield (
            t,
            builder.gep(array.data, [start]),
        )
        start = builder.add(start, size)


@intrinsic
def read(typingctx, array, row, column):
    """A column of eight rows of a C-contiguous matrix of floats."""

    def generate(context, builder, signature, arguments):
        value = ir.Constant(_NUMBERS, ir.Undefined)
        for t, place in _tokens(context, builder, signature.args[0], arguments):
            number = context.cast(
                builder, builder.load(place), signature.args[0].dtype, types.float64
            )
            value = builder.insert_element(value, number, _int(t))
        return value

    return lanes(array, types.intp, types.intp), generate


@intrinsic
def write(typingctx, array, row, column, value):
    """Put lanes into a column of eight rows of a C-contiguous matrix of floats."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        for t, place in _tokens(context, builder, kind, arguments[:3]):
            number = builder.extract_element(arguments[3], _int(t))
            builder.store(context.cast(builder, number, types.float64, kind.dtype), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes), generate


@intrinsic
def fill(typingctx, number):
    """The same number in all lanes."""

    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return lanes(types.float64), generate


@intrinsic
def maximum(typingctx, left, right):
    """The larger numbers; of a NaN and a number, the right one."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return lanes(lanes, lanes), generate


@intrinsic
def exceeds(typingctx, value, limit):
    """One where |value| is above a limit or NaN, else zero."""

    def generate(context, builder, signature, arguments):
        mask = ir.Constant(_BITS, [2**63 - 1] * WIDTH)
        size = builder.bitcast(builder.and_(builder.bitcast(arguments[0], _BITS), mask), _NUMBERS)
        above = builder.fcmp_unordered(">", size, _splat(builder, arguments[1]))
        return builder.select(above, _constant(1.0), _constant(0.0))

    return lanes(lanes, types.float64), generate


@intrinsic
def positive(typingctx, value):
    """One where a value is above zero, else zero, as for NaN."""

    def generate(context, builder, signature, arguments):
        above = builder.fcmp_ordered(">", arguments[0], _constant(0.0))
        return builder.select(above, _constant(1.0), _constant(0.0))

    return lanes(lanes), generate


@intrinsic
def square_root(typingctx, value):
    """Roots."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_NUMBERS, [_NUMBERS])
        root = get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f64")
        return builder.call(root, arguments)

    return lanes(lanes), generate


@intrinsic
def _nearest_power(typingctx, value):
    """(k, 2^k) for the integers k nearest to a value within ±1000."""

    def generate(context, builder, signature, arguments):
        # Adding 1.5 · 2⁵² rounds to an integer, which then stands in the last bits.
        shift = _constant(1.5 * 2.0**52)
        shifted = builder.fadd(arguments[0], shift)
        bits = builder.add(builder.bitcast(shifted, _BITS), ir.Constant(_BITS, [1023] * WIDTH))
        power = builder.shl(bits, ir.Constant(_BITS, [52] * WIDTH))
        pair = builder.fsub(shifted, shift), builder.bitcast(power, _NUMBERS)
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(lanes, 2)(lanes), generate


_LN2_HIGH = 0.693147180369123816490  # its product with an integer of ten bits is exact
_LN2_LOW = 1.90821492927058770002e-10
_TAYLOR = tuple(1.0 / math.factorial(k) for k in range(13, -1, -1))


@numba.njit(nogil=True)
def exponential(value):
    """Exp for numbers up to 600, to the last bits: 2^k e^r with |r| ≤ ½ log 2, by Taylor.

    Below −700 it is that of −700, a number that vanishes beside 1.
    """
    value = maximum(fill(-700.0), value)
    k, power = _nearest_power(value * (1.0 / math.log(2.0)))
    r = value - k * _LN2_HIGH - k * _LN2_LOW
    total = fill(_TAYLOR[0])
    for term in _TAYLOR[1:]:
        total = total * r + term
    return total * power


@numba.njit(nogil=True)
def sigmoid(value):
    """1 / (1 + exp(−value)), to the last bits; beyond ±600 that of ±600."""
    value = maximum(fill(-600.0), 0.0 - maximum(fill(-600.0), 0.0 - value))
    return 1.0 / (1.0 + exponential(0.0 - value))

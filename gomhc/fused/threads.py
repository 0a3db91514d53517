"""Compiled code on PyTorch's own threads.

Note [Threads]
    The threads of PyTorch's matrix products spin for a while after each of them. Other threads
    would have to share the processors with these, and behind every product a network has one more
    pass of ours. So work is given to the same threads: those of the OpenMP runtime that libtorch is
    linked to, through `GOMP_parallel`, the entry that GCC's, LLVM's and Intel's runtimes have in
    common. Where there is none of that name, shares go to threads of Python's.

    Work comes in shares, and what a share gives never depends on how many there are. A process made
    by fork has no threads but its own, and OpenMP would wait for those of its parent: there all
    shares are done one after the other.

Note [Cache lines]
    What a share works with stands `APART` bytes from what others write. Two cores that write to one
    line of a cache take it from each other at every turn, and two shares are slower than one. So it
    is with the count of an array's references, which Numba raises and lowers around many a call:
    shares are given arrays that have no owner to count for. Their caller keeps them alive.
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gomhc.fused.process import Process

NONE = (0, 0, 0, 0)  # the pool of who does the work alone
APART = 128  # two lines, as some processors fetch them in pairs
_ENTRIES = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_BYTES, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)


def pool() -> tuple[int, int, int, int]:
    """Entries of the runtime that libtorch uses, and how many threads to ask of it; or `NONE`.

    It is asked for all of PyTorch's, whatever there is to do: runtimes end the threads that a call
    leaves out, and start them again for the next.
    """
    entries = _addresses()
    return NONE if entries is None else (*entries, torch.get_num_threads())


@functools.cache
def _addresses() -> tuple[int, int, int] | None:
    """Of `_ENTRIES`; None if libtorch needs no library with such names."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = Path(torch.__file__).parent / "lib" / name
        try:
            library = ctypes.CDLL(str(path))  # loaded already; names are looked up in what it needs
            entries = [ctypes.cast(getattr(library, entry), ctypes.c_void_p) for entry in _ENTRIES]
        except (OSError, AttributeError):
            continue
        first, second, third = (address.value or 0 for address in entries)
        return first, second, third
    return None


def rooms(shares: int, numbers: int, dtype: Any = np.float64) -> np.ndarray:
    """What shares write to while they work: (shares, numbers or more), see Note [Cache lines]."""
    return np.empty((shares, numbers + APART // np.dtype(dtype).itemsize), dtype)


def spread(entry: Callable[..., Any], shares: int, *arguments: Any) -> None:
    """Do all shares of some work, on as many threads.

    Args:
        entry: compiled, see `run`; it is called as entry(pool, first, shares, arguments).
        shares: how many; the function that does one is told its number and how many there are.
        arguments: of that function.
    """
    threads = NONE if Process.forked else pool()
    if shares > 1 and threads != NONE:
        entry(threads, 0, shares, arguments)
    elif shares > 1 and not Process.forked:
        with ThreadPoolExecutor(shares) as executor:
            list(executor.map(lambda share: entry(NONE, share, shares, arguments), range(shares)))
    else:
        for share in range(shares):
            entry(NONE, share, shares, arguments)


def report() -> str:
    """Whose threads compiled code runs on, in words."""
    if pool() == NONE:
        return (
            "Python's, which compete with PyTorch's (libtorch needs no library with GOMP_parallel)"
        )
    return "PyTorch's own"


def _lent(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """A value of this type whose arrays have no owner, see Note [Cache lines]."""
    if hasattr(kind, "types"):  # a tuple
        parts = zip(kind.types, cgutils.unpack_tuple(builder, value), strict=True)
        return context.make_tuple(builder, kind, [_lent(context, builder, *x) for x in parts])
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        return array._getvalue()
    return value


@intrinsic
def run(typingctx, pool, first, shares, function, arguments):
    """Call function(share, shares, *arguments), which is compiled and raises nothing.

    For all shares on the threads of a pool; if that is `NONE` for share `first`, on this thread.
    """
    called = typingctx.resolve_function_type(function, (types.int64,) * 2 + arguments.types, {})

    def generate(context, builder, own, values):
        pool, first, shares, _, packed = values
        compiled = function.dispatcher.get_compile_result(called)
        context.add_linking_libs([compiled.library])

        def call(builder, share, shares, packed):
            # Whether it raised is not asked: on another thread nobody could hear of it.
            inner, to = compiled.fndesc, context.declare_function(builder.module, compiled.fndesc)
            lent = _lent(context, builder, arguments, packed)
            values = [share, shares, *cgutils.unpack_tuple(builder, lent)]
            context.call_conv.call_function(builder, to, inner.restype, inner.argtypes, values)

        asked = ir.FunctionType(_INT, ()).as_pointer()

        def ask(builder, address):
            return builder.zext(builder.call(builder.inttoptr(address, asked), ()), shares.type)

        # What a thread runs, with all that it needs on the stack of this one.
        data = cgutils.pack_struct(builder, [shares, pool, packed])
        kind = ir.FunctionType(ir.VoidType(), [_BYTES])
        body = ir.Function(builder.module, kind, f"{builder.function.name}.share")
        body.linkage = "internal"
        inside = ir.IRBuilder(body.append_basic_block())
        known = inside.load(inside.bitcast(body.args[0], data.type.as_pointer()))
        count, entries, tuple_ = cgutils.unpack_tuple(inside, known, 3)
        # The runtime may give fewer threads than it was asked for.
        begin, step = (ask(inside, inside.extract_value(entries, k)) for k in (1, 2))
        with cgutils.for_range_slice(inside, begin, count, step) as (share, _):
            call(inside, share, count, tuple_)
        inside.ret_void()

        start = builder.extract_value(pool, 0)
        alone = builder.icmp_unsigned("==", start, ir.Constant(start.type, 0))
        with builder.if_else(alone) as (one, every):
            with one:
                call(builder, first, shares, packed)
            with every:
                parallel = ir.FunctionType(ir.VoidType(), [body.type, _BYTES, _INT, _INT])
                place = builder.bitcast(cgutils.alloca_once_value(builder, data), _BYTES)
                threads = builder.extract_value(pool, 3)
                number, flags = builder.trunc(threads, _INT), ir.Constant(_INT, 0)
                builder.call(
                    builder.inttoptr(start, parallel.as_pointer()), [body, place, number, flags]
                )
        return context.get_dummy_value()

    return types.none(pool, first, shares, function, arguments), generate

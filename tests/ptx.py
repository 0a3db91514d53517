"""Compile Triton's kernels for a T4 and an H100 where there is no GPU, in a process of its own.

What Triton's interpreter allows, in which the other tests run, the compiler may not.
"""

import subprocess
import sys


def names_compiled(script, tmp_path):
    """The kernels that a script compiled, sorted; it replaces `_launch` by calls of `build`."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.split()


def build(kernel, arguments, sizes):
    """Compile a kernel for arguments of these types, and give its name."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = {
        torch.float32: "*fp32",
        torch.float64: "*fp64",
        torch.bfloat16: "*bf16",
        torch.int32: "*i32",
    }
    # Triton 3.2, that of torch 2.6, has no bfloat16 for a T4.
    capabilities = (90,) if triton.__version__.startswith("3.2.") else (75, 90)
    kinds = [names[a.dtype] if isinstance(a, torch.Tensor) else "i32" for a in arguments]
    signature = dict(zip(kernel.arg_names, kinds, strict=False))  # then come the constants
    source = ASTSource(kernel, signature | dict.fromkeys(sizes, "constexpr"), sizes)
    for capability in capabilities:
        target = GPUTarget("cuda", capability, 32)
        built = triton.compile(source, target=target, options={"num_warps": 4})
        assert ".entry" in built.asm["ptx"]
    return kernel.__name__

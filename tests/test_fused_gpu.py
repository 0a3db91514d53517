"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter, on the CPU.

That they compile for a GPU can be seen without one.
"""

import pytest
import torch
from ptx import names_compiled
from test_fused import CASES, draw, error, exactly, flat

from gomhc import make_mixer
from gomhc.fused import FEWEST_TOKENS, choose
from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN, Stage

pytest.importorskip("triton")  # which conftest has put into its interpreter
from gomhc.fused import gpu  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAN = float("nan")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("scale", "dtype"), [(1.0, torch.float32), (10.0, torch.float32), (1.0, torch.bfloat16)]
)
def test_kernels_give_what_float64_gives(name, scale, dtype):
    stages = CASES[name]
    # More than one program each; the interpreter takes half a second for one of the large ones.
    large = any(stage.kind == CAYLEY and stage.size * stage.option > 8 for stage in stages)
    theta, slope = draw(stages, tokens=3 if large else 19, scale=scale)
    theta = theta.to(dtype)
    matrices, gradient = exactly(theta, slope, stages)
    result = gpu.mix(theta.to(DEVICE), stages).cpu()
    slopes = gpu.mix_backward(slope.to(DEVICE), theta.to(DEVICE), stages).cpu()
    assert (result.dtype, slopes.dtype) == (torch.float32, dtype)
    assert error(result, matrices) < 2e-6
    rounding = 2e-6 if dtype == torch.float32 else 2**-7  # the interpreter cuts digits off
    if matrices.shape[-1] == 1:
        assert slopes.abs().max() < 1e-15
    else:
        assert error(slopes, gradient) < rounding


@pytest.mark.parametrize(("scale", "rounding"), [(2e4, 2e-6), (1e5, 1e-5)])
@pytest.mark.parametrize("name", ["go-mhc d=4 s=2", "go-mhc d=5 s=3", "kron-go d=6"])
def test_large_angles(name, scale, rounding):
    stages = CASES[name]
    theta, slope = draw(stages, tokens=9, scale=scale)
    matrices, gradient = exactly(theta, slope, stages)
    assert error(gpu.mix(theta.to(DEVICE), stages).cpu(), matrices) < 2e-6
    slopes = gpu.mix_backward(slope.to(DEVICE), theta.to(DEVICE), stages).cpu()
    assert error(slopes, gradient) < rounding


@pytest.mark.parametrize("name", ["go-mhc d=4 s=2", "mhc d=4", "mhc-lite d=4", "kron-go d=6"])
def test_a_token_is_the_same_whatever_stands_beside(name):
    stages = CASES[name]
    theta, slope = draw(stages, tokens=20)
    theta[4] *= 3e4 if "go" in name else 1
    whole, slopes = (
        gpu.mix(theta.to(DEVICE), stages),
        gpu.mix_backward(slope.to(DEVICE), theta.to(DEVICE), stages),
    )
    for k in (3, 4, 19):
        own = theta[k : k + 1].to(DEVICE), slope[k : k + 1].to(DEVICE)
        assert torch.equal(gpu.mix(own[0], stages)[0], whole[k])
        assert torch.equal(gpu.mix_backward(own[1], own[0], stages)[0], slopes[k])


@pytest.mark.parametrize("tokens", [1, FEWEST_TOKENS - 1, FEWEST_TOKENS])
def test_a_gpu_has_one_way_for_any_number_of_tokens(tokens):
    choice = choose("auto", [Stage(CAYLEY, 4, 2)], tokens, torch.float32, "cuda")
    assert choice == ("fused", "triton")


@pytest.mark.parametrize(
    ("stage", "bad"),
    [
        (Stage(CAYLEY, 3, 2), NAN),
        (Stage(CAYLEY, 3, 2), 2e5),
        (Stage(CAYLEY, 3, 2), float("inf")),
        (Stage(SINKHORN, 3, 5), NAN),
        (Stage(SINKHORN, 3, 5), 700.0),
        (Stage(PERMUTATIONS, 3), NAN),
        (Stage(PERMUTATIONS, 3), float("inf")),
        (Stage(PERMUTATIONS, 3), -float("inf")),
    ],
)
def test_what_they_cannot_do_is_nan_in_its_own_token(stage, bad):
    theta, slope = draw([stage], tokens=5)
    theta[2, 1] = bad
    matrices = gpu.mix(theta.to(DEVICE), [stage]).cpu()
    slopes = gpu.mix_backward(slope.to(DEVICE), theta.to(DEVICE), [stage]).cpu()
    for result in (matrices, slopes):
        wrong = result.isnan().flatten(1)
        assert wrong[2].all()
        assert not wrong[[0, 1, 3, 4]].any()


def test_permutations_know_no_distance_of_logits():
    stage = Stage(PERMUTATIONS, 3)
    theta = torch.zeros(1, 6)
    theta[0, 4] = 1e30
    matrix = gpu.mix(theta.to(DEVICE), [stage]).cpu()
    assert matrix.sum() == 3
    assert matrix.max() == 1


def test_no_tokens():
    stage = Stage(CAYLEY, 2, 2)
    assert gpu.mix(torch.zeros(0, 6, device=DEVICE), [stage]).shape == (0, 2, 2)


COMPILE = """
import sys
from gomhc.fused import gpu
sys.path.insert(0, "tests")
from ptx import build
from test_fused import CASES, draw

done = set()

def launch(kernel, tokens, numbers, *arguments, **sizes):
    done.add(build(kernel, arguments, sizes | {"T": max(1, gpu.NUMBERS // numbers)}))

gpu._launch = launch
names = "go-mhc d=4 s=2", "mhc d=4", "mhc-lite d=4", "kron-go d=6"
names += "orthogonal d=4", "transport d=4"
for name in names:
    theta, slope = draw(CASES[name])
    gpu.mix(theta.bfloat16(), CASES[name])
    gpu.mix_backward(slope, theta.bfloat16(), CASES[name])
print(*sorted(done))
"""


def test_they_compile_for_gpus_without_one(tmp_path):
    stages = ("cayley", "kronecker", "permutations", "sinkhorn", "transport")
    both = sorted(f"_{stage}_{way}" for stage in stages for way in ("forward", "backward"))
    assert names_compiled(COMPILE, tmp_path) == both


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("name", ["go-mhc", "mhc", "mhc-lite", "kromhc"])
def test_mixers_on_a_gpu_take_them(name):
    mixer, other = make_mixer(name, 4), make_mixer(name, 4, backend="reference")
    theta = torch.randn(4096, mixer.num_parameters, device="cuda", requires_grad=True)
    slope = torch.randn(4096, 4, 4, device="cuda")
    torch.testing.assert_close(mixer(theta), other(theta), rtol=1e-5, atol=1e-6)
    assert torch.equal(mixer(theta[:3]), mixer(theta)[:3])
    (gradient,) = torch.autograd.grad(mixer(theta), theta, slope)
    (expected,) = torch.autograd.grad(other(theta), theta, slope)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    torch.library.opcheck(torch.ops.gomhc.mix, (theta, flat(mixer.stages())))

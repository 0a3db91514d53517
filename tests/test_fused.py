"""The fused path gives what the reference gives in float64, and is taken where it should be."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.library import opcheck

import gomhc
from gomhc import make_mixer
from gomhc.fused import FEWEST_TOKENS, backend_report, choose
from gomhc.fused.stages import CAYLEY, FREE, PERMUTATIONS, SINKHORN, TRANSPORT, Stage, reference

numba = pytest.importorskip("numba")
from numba import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from gomhc.fused import lanes, threads  # noqa: E402
from gomhc.fused.ops import mix, mix_backward  # noqa: E402

CASES = {
    "go-mhc d=1": [Stage(CAYLEY, 1, 2)],
    "go-mhc d=4 s=1": [Stage(CAYLEY, 4, 1)],
    "go-mhc d=4 s=2": [Stage(CAYLEY, 4, 2)],
    "go-mhc d=5 s=3": [Stage(CAYLEY, 5, 3)],
    "go-mhc d=16 s=2": [Stage(CAYLEY, 16, 2)],
    "mhc d=4": [Stage(SINKHORN, 4, 20)],
    "mhc d=8": [Stage(SINKHORN, 8, 3)],
    "mhc-lite d=4": [Stage(PERMUTATIONS, 4)],
    "kromhc d=8": [Stage(PERMUTATIONS, 2)] * 3,
    "kron-go d=6": [Stage(CAYLEY, 2, 2), Stage(CAYLEY, 3, 2)],
    "orthogonal d=4": [Stage(CAYLEY, 4, 0)],
    "orthogonal d=7": [Stage(CAYLEY, 7, 0)],
    "transport d=2": [Stage(TRANSPORT, 2)],
    "transport d=4": [Stage(TRANSPORT, 4)],
    "transport d=7": [Stage(TRANSPORT, 7)],
    "transport x orthogonal d=9": [Stage(TRANSPORT, 3), Stage(CAYLEY, 3, 0)],
    "mhc x mhc d=6": [Stage(SINKHORN, 2, 4), Stage(SINKHORN, 3, 20)],
    "all d=48": [
        Stage(SINKHORN, 2, 4),
        Stage(FREE, 2),
        Stage(PERMUTATIONS, 3),
        Stage(CAYLEY, 4, 1),
    ],
}
TOKENS = 301  # no multiple of a block's


def flat(stages):
    return [number for stage in stages for number in stage]


def draw(stages, tokens=TOKENS, scale=1.0):
    g = sum(stage.num_parameters for stage in stages)
    source = torch.Generator().manual_seed(tokens + g)
    theta = scale * (2 * torch.rand(tokens, g, generator=source) - 1)
    d = torch.tensor([stage.size for stage in stages]).prod().item()
    return theta, torch.randn(tokens, d, d, generator=source)


def exactly(theta, slope, stages):
    wide = theta.double().requires_grad_()
    matrices = reference(wide, stages)
    (gradient,) = torch.autograd.grad(matrices, wide, slope.double())
    return matrices.detach(), gradient


def error(value, exact):
    """Largest over tokens, relative to the token's own size."""
    difference = (value - exact).flatten(1).norm(dim=1)
    return (difference / exact.flatten(1).norm(dim=1).clamp_min(1e-300)).max().item()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_matrices_and_gradients_are_those_of_float64(name, scale):
    stages = CASES[name]
    theta, slope = draw(stages, scale=scale)
    matrices, gradient = exactly(theta, slope, stages)
    result = mix(theta.requires_grad_(), flat(stages))
    assert error(result.detach(), matrices) < 2e-6
    (slopes,) = torch.autograd.grad(result, theta, slope)
    if matrices.shape[-1] == 1:  # the matrix is 1, whatever θ is
        assert slopes.abs().max() < 1e-15
    else:
        assert error(slopes, gradient) < 2e-6
    assert slopes.dtype == result.dtype == torch.float32


def test_exponentials_are_right_to_the_last_bits():
    @numba.njit
    def apply(x, y):
        for k in range(len(x) // lanes.WIDTH):
            lanes.store(y, k, lanes.exponential(lanes.load(x, k)))

    x = np.linspace(-600, 600, 8 * 1001)
    y = np.empty_like(x)
    apply(x, y)
    np.testing.assert_allclose(y, np.exp(x), rtol=5e-16)
    apply(np.repeat([-700.0, -1e4, -np.inf, np.nan], 8), y[:32])
    np.testing.assert_allclose(y[:24], np.exp(-700.0), rtol=5e-16)
    assert np.isnan(y[24:32]).all()


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_from_run_to_run_and_whatever_stands_beside(name):
    stages = CASES[name]
    theta, slope = draw(stages)
    once, gradient = mix(theta, flat(stages)), mix_backward(slope, theta, flat(stages))
    assert torch.equal(once, mix(theta, flat(stages)))
    assert torch.equal(gradient, mix_backward(slope, theta, flat(stages)))
    assert torch.equal(mix(theta[7:8].clone(), flat(stages))[0], once[7])


@pytest.mark.parametrize("name", ["go-mhc d=4 s=2", "mhc d=4", "mhc-lite d=4", "kron-go d=6"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_generator_spoils_its_own_token_only(name, bad):
    stages = CASES[name]
    theta, _ = draw(stages)
    clean = mix(theta, flat(stages))
    theta[5, -1] = bad
    spoilt = mix(theta, flat(stages))
    assert spoilt[5].isnan().all()
    rest = [k for k in range(TOKENS) if k != 5]
    assert torch.equal(spoilt[rest], clean[rest])


@pytest.mark.parametrize("name", ["go-mhc d=4 s=2", "mhc d=4", "mhc-lite d=4"])
def test_hard_tokens_go_through_the_reference(name):
    """Angles and logits for which the compiled code is not made."""
    stages = CASES[name]
    theta, slope = draw(stages)
    theta[3] *= 5e4
    assert torch.equal(mix(theta, flat(stages))[3], reference(theta[3:4], stages)[0])
    wide = theta[3:4].clone().requires_grad_()
    (expected,) = torch.autograd.grad(reference(wide, stages), wide, slope[3:4])
    assert torch.equal(mix_backward(slope, theta, flat(stages))[3], expected[0])


@pytest.mark.parametrize("name", CASES)
def test_operators_keep_the_rules_of_pytorch(name):
    theta, slope = draw(CASES[name], tokens=5)
    opcheck(mix, (theta.requires_grad_(), flat(CASES[name])))
    inputs = slope.requires_grad_(), theta, flat(CASES[name])
    opcheck(mix_backward, inputs)


def test_second_derivatives_and_vmap():
    stages = CASES["go-mhc d=4 s=2"]
    theta, slope = draw(stages, tokens=3)
    wide = theta.double().requires_grad_()
    once = torch.autograd.grad(reference(wide, stages), wide, slope.double(), create_graph=True)[0]
    twice = torch.autograd.grad(once.square().sum(), wide)[0]
    theta.requires_grad_()
    once = torch.autograd.grad(mix(theta, flat(stages)), theta, slope, create_graph=True)[0]
    ours = torch.autograd.grad(once.square().sum(), theta)[0]
    assert error(ours, twice) < 1e-5
    batch = torch.stack([theta.detach(), -theta.detach()])
    mapped = torch.func.vmap(lambda x: mix(x, flat(stages)))(batch)
    torch.testing.assert_close(mapped, torch.stack([mix(x, flat(stages)) for x in batch]))


def test_derivatives_of_any_order():
    """Three times: by the operator, by PyTorch, and by the graph of that."""
    stages = CASES["go-mhc d=4 s=2"]
    theta, _ = draw(stages, tokens=3)
    thirds = []
    for x, call in (
        (theta.clone(), lambda x: mix(x, flat(stages))),
        (theta.double(), lambda x: reference(x, stages)),
    ):
        x.requires_grad_()
        value = call(x).pow(3).sum()
        for _ in range(2):
            (slopes,) = torch.autograd.grad(value, x, create_graph=True)
            value = slopes.square().sum()
        thirds.append(torch.autograd.grad(value, x)[0])
    assert error(*thirds) < 1e-4


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("name", ["go-mhc", "mhc", "mhc-lite", "kromhc"])
def test_forward_mode_and_transforms_go_through_pytorch(name):
    mixer, plain = make_mixer(name, 4), make_mixer(name, 4, backend="reference")
    theta = many(mixer)

    def loss(mixer):
        return lambda x: mixer(x).square().sum()

    torch.testing.assert_close(
        torch.func.grad(loss(mixer))(theta), torch.func.grad(loss(plain))(theta)
    )
    change = torch.randn_like(theta)
    ours, theirs = (torch.func.jvp(m, (theta,), (change,))[1] for m in (mixer, plain))
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["go-mhc", "mhc-lite"])
def test_autocast_changes_nothing(name):
    mixer = make_mixer(name, 4)
    theta = many(mixer)
    theta[3], theta[5, 0] = 2e4 * theta[3], float("nan")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = mixer(theta)
    torch.testing.assert_close(cast, mixer(theta), rtol=0, atol=0, equal_nan=True)
    assert cast[5].isnan().all()


def test_second_derivatives_of_narrow_generators():
    mixer = make_mixer("go-mhc", 4)
    theta = many(mixer).bfloat16().requires_grad_()
    (once,) = torch.autograd.grad(mixer(theta).square().sum(), theta, create_graph=True)
    (twice,) = torch.autograd.grad(once.float().square().sum(), theta)
    assert twice.dtype == torch.bfloat16 and twice.isfinite().all()


def test_the_default_dtype_has_no_say():
    mixer = make_mixer("go-mhc", 4)
    theta = (1e6 * many(mixer)).requires_grad_()
    torch.set_default_dtype(torch.float64)
    try:
        (slopes,) = torch.autograd.grad(mixer(theta).square().sum(), theta)
    finally:
        torch.set_default_dtype(torch.float32)
    assert slopes.dtype == torch.float32


# Which path


def many(mixer):
    return 0.1 * torch.randn(FEWEST_TOKENS, mixer.num_parameters)


@pytest.fixture
def taken(monkeypatch):
    """How often the fused path was taken, as the length of a list."""
    calls = []
    monkeypatch.setattr(
        "gomhc.mixers.base.fused", lambda *a: calls.append(1) or gomhc.fused.fused(*a)
    )
    return calls


@pytest.mark.parametrize(
    ("name", "d"), [("go-mhc", 4), ("mhc", 4), ("mhc-lite", 4), ("kromhc", 4), ("kron-go", 4)]
)
def test_mixers_take_it_and_agree_with_their_reference(name, d, taken):
    auto, other = make_mixer(name, d), make_mixer(name, d, backend="reference")
    theta = many(auto)
    torch.testing.assert_close(auto(theta), other(theta), rtol=1e-5, atol=1e-6)
    assert len(taken) == 1
    assert auto(theta.double()).dtype == torch.float64  # through PyTorch
    auto(theta[:3])
    assert len(taken) == 1


def test_a_subclass_with_another_map_does_not_inherit_the_compiled_one():
    class Halved(gomhc.Orthostochastic):
        def forward(self, theta, backend=None):
            return super().forward(theta / 2, backend)

    theta = torch.randn(FEWEST_TOKENS, 28)
    torch.testing.assert_close(Halved(4)(theta), gomhc.Orthostochastic(4)(theta / 2))
    assert Halved(4).stages() is None

    class Transposed(gomhc.Orthostochastic):
        def mix(self, theta):
            return super().mix(theta).mT

    mixer = Transposed(4)
    assert mixer.stages() is None
    theta = many(mixer)
    torch.testing.assert_close(mixer(theta), gomhc.Orthostochastic(4)(theta).mT)


def test_a_map_of_a_mixin_is_taken_for_many_tokens_too():
    class Halving:
        def mix(self, theta):
            return super().mix(theta) / 2

    class Halved(Halving, gomhc.Orthostochastic):
        pass

    class Whole(gomhc.Orthostochastic):
        pass

    theta = many(Halved(4))
    assert Halved(4).stages() is None
    torch.testing.assert_close(Halved(4)(theta), gomhc.Orthostochastic(4)(theta) / 2)
    assert Whole(4).stages() == gomhc.Orthostochastic(4).stages()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backend": "reference"}, "as asked for"),
        ({"stages": None}, "no compiled form"),
        ({"stages": [Stage(FREE, 4)]}, "nothing to compute"),
        ({"dtype": torch.float64}, "wider"),
        ({"stages": [Stage(CAYLEY, 17, 2)]}, "larger than 32"),
        ({"tokens": 3}, "fewer than"),
        ({"device": "mps"}, "no kernels for mps"),
    ],
)
def test_it_says_why_not(change, reason):
    case = {
        "backend": "auto",
        "stages": CASES["go-mhc d=4 s=2"],
        "tokens": 10**4,
        "dtype": torch.float32,
        "device": "cpu",
    }
    assert choose(**case) == ("fused", "numba")
    choice = choose(**(case | change))
    assert choice.path == "reference"
    assert reason in choice.reason
    if "backend" not in change and "tokens" not in change:
        with pytest.raises(RuntimeError, match="expected a case that the fused path can run"):
            choose(**(case | change | {"backend": "fused"}))


def test_without_a_compiler_pytorch_does_it(monkeypatch):
    monkeypatch.setitem(gomhc.fused.COMPILERS, "cpu", (False, "numba is not installed: install it"))
    mixer, theta = make_mixer("go-mhc", 4), torch.randn(FEWEST_TOKENS, 28)
    assert torch.equal(mixer(theta), make_mixer("go-mhc", 4, backend="reference")(theta))
    assert "cpu: reference (numba is not installed: install it)" in backend_report()
    monkeypatch.setitem(gomhc.fused.COMPILERS, "cuda", (False, "triton is not installed"))
    with pytest.raises(RuntimeError, match="numba is not installed"):
        make_mixer("go-mhc", 4, backend="fused")


@pytest.mark.parametrize(
    ("name", "d", "options", "message"),
    [
        ("hc", 4, {}, "there is nothing to compute"),
        ("identity", 4, {}, "the mixer has no compiled form"),
        ("go-mhc", 20, {}, "a matrix of order 40 is larger than 32"),
        ("mhc-lite", 8, {}, "8! permutations are more than 7!"),
    ],
)
def test_what_can_never_run_is_refused_when_it_is_made(name, d, options, message):
    with pytest.raises(RuntimeError, match=message):
        make_mixer(name, d, backend="fused", **options)


def said_with(code, **environment):
    """What a Python of its own prints under further environment variables."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    ).stdout


def test_a_compiler_that_cannot_be_imported_is_none(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs an older NumPy')")
    code = "import gomhc, torch; print(gomhc.make_mixer('mhc', 4)(torch.zeros(999, 16))[0, 0, 0])"
    code += "; print(gomhc.backend_report())"
    answer = said_with(code, PYTHONPATH=str(tmp_path))
    assert answer.startswith("tensor(0.2500)")
    assert "cpu: reference (numba cannot be imported: Numba needs an older NumPy)" in answer


def test_a_compiler_that_is_switched_off_is_none():
    answer = said_with("import gomhc; print(gomhc.backend_report())", NUMBA_DISABLE_JIT="1")
    assert answer.startswith("cpu: reference (NUMBA_DISABLE_JIT is set)")


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_any_batch_shape_where_it_is_asked_for(shape):
    theta = torch.randn(*shape, 28)
    matrices = make_mixer("go-mhc", 4, backend="fused")(theta)
    expected = make_mixer("go-mhc", 4, backend="reference")(theta)
    torch.testing.assert_close(matrices, expected, rtol=1e-5, atol=1e-6)


def test_the_report_names_the_path():
    assert "cpu: fused (numba)" in backend_report()


def test_there_is_no_other_backend(unchecked):
    with pytest.raises(ValueError, match="auto, reference, fused; got 'fast'"):
        make_mixer("go-mhc", 4, backend="fast")


def test_a_backend_set_by_hand_is_checked(unchecked):
    mixer = make_mixer("go-mhc", 4)
    mixer.backend = "fast"
    with pytest.raises(ValueError, match="auto, reference, fused; got 'fast'"):
        mixer(torch.zeros(2, 28))


@pytest.mark.parametrize(
    ("own", "factors", "expected"),
    [
        ("auto", ("auto", "auto"), "auto"),
        ("auto", ("reference", "auto"), "reference"),
        ("auto", ("reference", "reference"), "reference"),
        ("auto", ("auto", "fused"), "fused"),
        ("fused", ("reference", "auto"), "fused"),
        ("reference", ("fused", "fused"), "reference"),
        ("reference", ("fused", "reference"), "reference"),
    ],
)
def test_a_product_asks_its_factors(own, factors, expected, taken):
    parts = [make_mixer("mhc", 2, backend=backend) for backend in factors]
    if len({*factors} - {"auto"}) > 1:  # set later
        parts[0].backend = "auto"
    product = gomhc.Kronecker(parts)
    parts[0].backend, product.backend = factors[0], own
    assert product.backend == expected
    for tokens, by_itself in ((3, False), (FEWEST_TOKENS, True)):
        product(torch.randn(tokens, 8))
        assert taken == [1] * (by_itself if expected == "auto" else expected == "fused")
        taken.clear()
    assert gomhc.Kronecker([product, make_mixer("hc", 2)]).backend == expected


def test_factors_that_contradict_each_other(unchecked):
    parts = [make_mixer("mhc", 2, backend=backend) for backend in ("fused", "reference")]
    with pytest.raises(ValueError, match="factors of one backend, got fused, reference"):
        gomhc.Kronecker(parts)


# Threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def both(tokens=3000):
    """Matrices and gradients of enough tokens for three threads, with a hard one among them."""
    stages = CASES["go-mhc d=4 s=2"]
    theta, slope = draw(stages, tokens=tokens)
    theta[7] *= 5e4
    return torch.cat(
        [mix(theta, flat(stages)).flatten(1), mix_backward(slope, theta, flat(stages))], 1
    )


@pytest.mark.parametrize("own", [True, False])
def test_threads_change_nothing(own, monkeypatch):
    """PyTorch's, and those of Python where PyTorch's cannot be reached."""
    assert threads.pool() != threads.NONE or sys.platform != "linux"
    assert "threads of compiled code: PyTorch's own" in backend_report()
    if not own:
        monkeypatch.setattr(threads, "pool", lambda: threads.NONE)
        assert "threads of compiled code: Python's, which compete" in backend_report()
    before = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(both())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in itertools.pairwise(runs))


@pytest.mark.skipif(threads.pool() == threads.NONE, reason="PyTorch's threads cannot be reached")
def test_all_shares_are_done_where_the_runtime_gives_fewer_threads():
    code = (
        "import torch; from gomhc.fused.ops import mix; torch.set_num_threads(4)\n"
        "theta = torch.randn(5000, 28); found = mix(theta, [0, 4, 2])\n"
        "torch.set_num_threads(1); print(torch.equal(found, mix(theta, [0, 4, 2])))"
    )
    assert said_with(code, OMP_THREAD_LIMIT="2") == "True\n"


@intrinsic
def _owner(typingctx, array):
    """Address of what counts the references to an array."""

    def generate(context, builder, signature, arguments):
        owner = context.make_array(signature.args[0])(context, builder, arguments[0]).meminfo
        return builder.ptrtoint(owner, context.get_value_type(types.intp))

    return types.intp(array), generate


@numba.njit
def _share(share, shares, out, pair):
    out[share, 0] = 1 + _owner(out) + _owner(out[share]) + _owner(pair[0]) + _owner(pair[1][0])


@numba.njit
def _owners(pool, first, shares, arguments):
    threads.run(pool, first, shares, _share, arguments)


def test_shares_count_no_references_and_write_to_lines_of_their_own(two_threads):
    """Two threads once took the counts from each other, and were slower than one."""
    out = threads.rooms(2, 3, np.int64)
    assert out.strides[0] >= 3 * 8 + threads.APART
    threads.spread(_owners, 2, out, (out, (out,)))
    assert out[:, 0].tolist() == [1, 1]


def test_many_threads_of_python_may_call_at_once(two_threads):
    expected = both()
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(other, expected) for other in pool.map(both, [3000] * 16))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_it_alone():
    """As the workers of a DataLoader are: OpenMP would wait for threads that are not there."""
    code = (
        "import os, sys, torch; from gomhc.fused.ops import mix; torch.set_num_threads(2)\n"
        "theta = torch.randn(3000, 28); expected = mix(theta, [0, 4, 2])\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(not (mix(theta, [0, 4, 2]).numpy() == expected.numpy()).all())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert said_with(code) == "0\n"
    # And where compiled code is first called in the child.
    code = (
        "import os, torch, gomhc; torch.set_num_threads(2)\n"
        "theta = torch.randn(3000, 28); torch.randn(999, 999) @ torch.randn(999, 999)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    from gomhc.fused.ops import mix\n"
        "    os._exit(not (mix(theta, [0, 4, 2]).numpy().sum(1) < 1.001).all())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert said_with(code) == "0\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda theta: mix(theta, [CAYLEY, 4, 1]),
        lambda theta: mix_backward(torch.ones(TOKENS, 5, 5), theta, [CAYLEY, 4, 2]),
        lambda theta: mix_backward(torch.ones(3, 4, 4), theta, [CAYLEY, 4, 2]),
    ],
)
def test_operators_read_no_further_than_their_arrays(call):
    with pytest.raises(ValueError, match="expected stages|expected a slope"):
        call(torch.zeros(TOKENS, 28))


@pytest.mark.parametrize(
    ("name", "attribute", "value", "message"),
    [
        ("go-mhc", "s", 1, "was the mixer changed"),
        ("go-mhc", "s", 0, "s >= 1"),
        ("mhc", "iterations", 0, "iterations >= 1"),
    ],
)
def test_a_mixer_that_was_changed(name, attribute, value, message):
    mixer = gomhc.make_mixer(name, 4)
    setattr(mixer, attribute, value)
    with pytest.raises(ValueError, match=message):
        mixer(torch.zeros(TOKENS, mixer.num_parameters))

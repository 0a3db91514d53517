"""The layer's passes in Triton: on a GPU where there is one, else in Triton's interpreter.

Without a GPU the whole connection runs here by the passes for one, on tensors of the CPU.
"""

import copy
import functools

import pytest
import torch
from ptx import names_compiled
from test_layer import DIM, Branch, errors, results, streams

from gomhc import HyperConnection, make_mixer
from gomhc.fused import backend_report, choose
from gomhc.fused import layer as operators
from gomhc.fused.stages import CAYLEY, FREE, Stage

pytest.importorskip("triton")  # which conftest has put into its interpreter
from gomhc.fused import gpu_streams  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS = 7  # the interpreter takes milliseconds for each
MIXERS = {
    "identity": ("identity", 4, {}),
    "hc": ("hc", 4, {}),
    "mhc": ("mhc", 4, {}),
    "mhc-lite": ("mhc-lite", 4, {}),
    "mhc-lite d=3": ("mhc-lite", 3, {}),
    "kromhc": ("kromhc", 4, {}),
    "go-mhc s=1": ("go-mhc", 4, {"s": 1}),
    "go-mhc s=2": ("go-mhc", 4, {"s": 2}),
    "go-mhc s=3": ("go-mhc", 4, {"s": 3}),
    "go-mhc d=1": ("go-mhc", 1, {"s": 1}),
    "go-mhc d=5": ("go-mhc", 5, {"s": 2}),
    "identity d=3": ("identity", 3, {}),
    "kron-go d=6": ("kron-go", 6, {}),
}


def on_gpu(name):
    """What PyTorch calls for tensors of a GPU."""
    return functools.partial(operators._on_gpu, name)


class Read(torch.autograd.Function):
    """The operator as autograd has it, with the passes for a GPU."""

    forward = staticmethod(on_gpu("read_streams"))
    setup_context = staticmethod(operators._keep_read)
    backward = staticmethod(operators._read_back)


class Write(torch.autograd.Function):
    forward = staticmethod(on_gpu("write_streams"))
    setup_context = staticmethod(operators._keep_written)
    backward = staticmethod(operators._write_back)


@pytest.fixture(autouse=True)
def passes(monkeypatch):
    """Without a GPU: the passes for one in the place of those for a CPU."""
    if DEVICE == "cpu":
        monkeypatch.setattr("gomhc.hyper_connections.read_streams", Read.apply)
        monkeypatch.setattr("gomhc.hyper_connections.write_streams", Write.apply)
        for name in ("read_streams_backward", "write_streams_backward"):
            monkeypatch.setattr(operators, name, on_gpu(name))
    # Blocks of which a row is no multiple, and more than one of them.
    monkeypatch.setattr(gpu_streams, "COLUMNS", 32)
    monkeypatch.setattr(gpu_streams, "PRODUCTS", 512)


def connection(label="go-mhc s=2", dtype=torch.float32, **options):
    """A layer away from its start, so that every part of the formula counts."""
    name, d, sizes = MIXERS[label]
    generator = torch.Generator().manual_seed(0)
    mixer = make_mixer(name, d, **sizes)
    module = HyperConnection(DIM, Branch(), mixer, generator=generator, backend="fused", **options)
    with torch.no_grad():
        for weight, spread in ((module.weight, 0.1), (module.bias, 0.5), (module.alpha, 0.3)):
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return module.to(DEVICE, dtype)


def draw(d=4, tokens=TOKENS, dtype=torch.float32):
    return [x.to(DEVICE, dtype) for x in streams(d, tokens)]


@pytest.mark.parametrize("inputs", ["all", "mean"])
@pytest.mark.parametrize("label", MIXERS)
def test_values_and_gradients_are_those_of_float64(label, inputs):
    """To 2e-6, as on a CPU; but α's three numbers are sums over a few tokens that may cancel: those
    to 2e-6 of what the tokens' own shares would make without their signs."""
    module = connection(label, inputs=inputs)
    X, slope = draw(module.mixer.d)
    ours = errors(module, X, slope)
    exact = copy.deepcopy(module).double()
    exact.backend = "reference"
    shares = [results(exact, *(x[t : t + 1].double() for x in (X, slope))) for t in range(len(X))]
    shares = torch.stack([share["alpha"] for share in shares])
    ours["alpha"] *= (shares.sum(0).norm() / shares.abs().sum(0).norm()).item()
    assert max(ours.values()) < 2e-6, ours


@pytest.mark.parametrize("inputs", ["all", "mean"])
@pytest.mark.parametrize("label", ["identity", "go-mhc s=2"])
def test_narrow_streams_are_as_exact_as_pytorch_has_them(label, inputs):
    """But for one more rounding: interpreters of some versions of Triton cut bfloat16 off."""
    dtype = torch.bfloat16
    module = connection(label, dtype, inputs=inputs)
    X, slope = draw(dtype=dtype)
    ours = errors(module, X, slope)
    module.backend = "reference"
    theirs = errors(module, X, slope)
    for name, error in ours.items():
        assert error < 1.5 * theirs[name] + torch.finfo(dtype).eps, (name, error, theirs[name])


def test_rows_that_one_block_holds_and_rows_of_many():
    """Sums in another order: the same to rounding, and what is no sum along a row to the bit."""
    module = connection()
    X, slope = draw()
    many = results(module, X, slope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_streams, "COLUMNS", 1024)
        patch.setattr(gpu_streams, "PRODUCTS", 4096)
        one = results(module, X, slope)
    for name, value in many.items():
        assert (value - one[name]).norm() < 1e-6 * one[name].norm(), name


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_autocast_narrows_the_product_alone(stored):
    """Of streams in bfloat16 too, beside weights in float32."""
    module = connection()
    X, slope = draw(dtype=stored)
    with torch.autocast(DEVICE, torch.bfloat16):
        ours = results(module, X, slope)
        module.backend = "reference"
        expected = results(module, X, slope)
    assert ours["out"].dtype == stored
    for name, value in ours.items():
        difference = (value - expected[name]).norm() / expected[name].norm()
        assert difference < 2e-2, (name, difference)


def test_it_is_the_same_from_run_to_run():
    module = connection()
    X, slope = draw()
    once, again = (results(module, X, slope) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in once.items())


def test_no_tokens():
    module = connection()
    X = torch.zeros(2, 0, 4, DIM, device=DEVICE, requires_grad=True)
    gradients = torch.autograd.grad(module(X).sum(), [X, *module.parameters()])
    assert [x.shape for x in gradients] == [X.shape, *(p.shape for p in module.parameters())]
    assert not any(x.any() for x in gradients[1:])


def test_streams_in_any_order_of_memory():
    module = connection()
    X, slope = draw()
    turned = X.transpose(0, 1).contiguous().transpose(0, 1)
    turned_over = results(module, turned, slope.mT.contiguous().mT)
    for name, value in results(module, X, slope).items():
        assert torch.equal(value, turned_over[name]), name


def test_second_derivatives():
    """Through PyTorch, on from the first ones of the kernels."""
    module = connection()
    X, _ = draw(tokens=3)
    exact = copy.deepcopy(module).double()
    exact.backend = "reference"
    twice = []
    for layer in (module, exact):
        Y = X.to(layer.weight.dtype).requires_grad_()
        (once,) = torch.autograd.grad(layer(Y).square().sum(), Y, create_graph=True)
        twice.append(torch.autograd.grad(once.square().sum(), [Y, *layer.parameters()]))
    for ours, theirs in zip(*twice, strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("only", [0, 1, 2])
def test_one_who_uses_a_part_of_it(only):
    """What the branch reads, the mixed streams and H_post, each without the other two."""
    module = connection()
    X = draw()[0].requires_grad_()
    tensors = [X, module.weight, module.bias, module.alpha]
    read = operators.read_streams if DEVICE == "cuda" else Read.apply
    both = []
    for call in (read, operators._read_reference):
        out = call(*tensors, torch.float32, [0, 4, 2])[only]
        both.append(torch.autograd.grad(out.square().sum(), tensors, allow_unused=True))
    for ours, theirs in zip(*both, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def hard_token(label):
    """Results where token 5 alone is one that the kernels are not exact enough for."""
    module = connection(label)
    g = module.mixer.num_parameters
    X, slope = draw()
    with torch.no_grad():
        module.weight[0] = 0.0
        module.weight[0, 0] = 1e7
        X[:, 0, 0] = 0.0
        X[5] = 0.0
        X[5, 0, 0] = 1.0  # so that x' = √(dC) there
    return results(module, X, slope), g


@pytest.mark.parametrize("label", ["go-mhc s=2", "mhc"])
def test_what_they_cannot_do_is_nan_in_its_own_token(label):
    """And in the parts of H_res, which sum over tokens: as where a mixer stands alone."""
    outcome, g = hard_token(label)
    others = torch.arange(TOKENS, device=DEVICE) != 5
    for name in ("out", "X"):
        wrong = outcome[name].isnan().flatten(1)
        assert wrong[5].all(), name
        assert not wrong[others].any(), name
    for name in ("weight", "bias"):
        wrong = outcome[name].isnan().reshape(len(outcome[name]), -1)
        assert wrong[:g].all(), name
        assert not wrong[g:].any(), name
    assert outcome["alpha"].isnan().tolist() == [True, False, False]


def test_streams_with_a_nan_are_nan_in_their_own_token():
    module = connection()
    X, slope = draw()
    X[3, 1, 3] = float("nan")
    outcome = results(module, X, slope)
    others = torch.arange(TOKENS, device=DEVICE) != 3
    for name in ("out", "X"):
        assert outcome[name][3].isnan().all()
        assert not outcome[name][others].isnan().any()


@pytest.mark.parametrize("tokens", [1, 10_000])
@pytest.mark.parametrize("stages", [[], [Stage(FREE, 4)], [Stage(CAYLEY, 4, 2)]])
def test_a_gpu_has_them_for_any_number_of_tokens(tokens, stages):
    choice = choose("auto", stages, tokens, torch.bfloat16, "cuda", layer=True)
    assert choice == ("fused", "triton")


@pytest.mark.parametrize(
    ("stages", "dtype", "why"),
    [
        (None, torch.float32, "no compiled form"),
        ([], torch.float64, "wider than what the kernels store"),
        ([Stage(CAYLEY, 11, 3)], torch.float32, "order 33 is larger than 32"),
    ],
)
def test_what_a_gpu_has_no_passes_for(stages, dtype, why):
    choice = choose("auto", stages, 1000, dtype, "cuda", layer=True)
    assert choice.path == "reference"
    assert why in choice.reason


def test_the_report_names_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "HyperConnection on cuda: fused (triton)" in backend_report()


COMPILE = """
import sys
import sys, torch
from gomhc.fused import gpu, gpu_streams
sys.path.insert(0, "tests")
from ptx import build

done = set()

def launch(kernel, tokens, blocks, *arguments, **sizes):
    done.add(build(kernel, arguments, sizes))

gpu_streams._launch = launch
gpu._launch = lambda *arguments, **sizes: None
for stages in ([0, 4, 2], []):
    for dtype in (torch.float32, torch.bfloat16):
        size = 36 if stages else 8
        X = torch.randn(3, 4, 4096).to(dtype)
        weight = torch.randn(size, 4 * 4096).to(dtype)
        weights = weight, torch.randn(size), torch.rand(3)
        read, mixed, post, *kept = gpu_streams.read_streams(X, *weights, dtype, stages)
        back = read, mixed, post, X, *weights, *kept, dtype, stages
        gpu_streams.read_streams_backward(*back)
        gpu_streams.write_streams(mixed, read, post)
        gpu_streams.write_streams_backward(mixed, read, post)
print(*sorted(done))
"""


def test_they_compile_for_gpus_without_one(tmp_path):
    kernels = {"_norm", "_read", "_read_slopes", "_read_back", "_write", "_write_back"}
    assert set(names_compiled(COMPILE, tmp_path)) == kernels


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_on_a_gpu_nothing_waits_for_it():
    """The host may go on while the GPU works: no number is asked back."""
    module = connection("go-mhc s=2")
    X, slope = draw()
    results(module, X, slope)
    torch.cuda.set_sync_debug_mode("error")
    try:
        results(module, X, slope)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("stages", [[0, 4, 2], []])
def test_on_a_gpu_operators_keep_the_rules_of_pytorch(stages):
    module = connection("go-mhc s=2" if stages else "identity")
    X = draw(tokens=5)[0].requires_grad_()
    tensors = X, module.weight, module.bias, module.alpha
    torch.library.opcheck(operators.read_streams, (*tensors, torch.float32, stages))
    read, mixed, post, *_ = operators.read_streams(*tensors, torch.float32, stages)
    written = [x.detach().requires_grad_() for x in (mixed, read, post)]
    torch.library.opcheck(operators.write_streams, tuple(written))

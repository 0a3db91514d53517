"""The layer's passes over its streams give what the reference gives in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from gomhc import MIXERS, HyperConnection, make_mixer

pytest.importorskip("numba")
from gomhc.fused import layer as operators  # noqa: E402

DIM = 40  # no multiple of what vectors hold
TOKENS = 1203  # nor of a block


class Branch(nn.Module):
    """An answer that no two streams give."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(DIM, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return (x * self.weight.to(x)).tanh()


def connection(name="go-mhc", d=4, seed=0, **options):
    """A layer away from its start, so that every part of the formula counts."""
    generator = torch.Generator().manual_seed(seed)
    module = HyperConnection(DIM, Branch(), make_mixer(name, d), generator=generator, **options)
    with torch.no_grad():
        for weight, spread in ((module.weight, 0.1), (module.bias, 0.5), (module.alpha, 0.3)):
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return module


def streams(d=4, tokens=TOKENS):
    """Streams and a derivative, which has to do with them: so sums over tokens do not cancel."""
    source = torch.Generator().manual_seed(tokens)
    X, slope = (torch.randn(tokens, d, DIM, generator=source) for _ in range(2))
    return X, slope + X


def results(module, X, slope):
    """The streams after it, and derivatives by X and every parameter."""
    X = X.detach().clone().requires_grad_()
    out = module(X)
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(out, [X, *parameters.values()], slope.to(out.dtype))
    return {
        "out": out.detach(),
        "X": gradients[0],
        **dict(zip(parameters, gradients[1:], strict=True)),
    }


def errors(module, X, slope, exactly=None):
    exact = copy.deepcopy(module if exactly is None else exactly).double()
    exact.backend = "reference"
    exact = results(exact, X.double(), slope.double())
    return {
        name: ((value - exact[name]).norm() / exact[name].norm().clamp_min(1e-30)).item()
        for name, value in results(module, X, slope).items()
    }


@pytest.mark.parametrize("inputs", ["all", "mean"])
@pytest.mark.parametrize(
    ("name", "d"), [*((name, 4) for name in MIXERS), ("go-mhc", 1), ("go-mhc", 5), ("mhc-lite", 3)]
)
def test_values_and_gradients_are_those_of_float64(name, d, inputs):
    module = connection(name, d, inputs=inputs, backend="fused")
    deviations = errors(module, *streams(d))
    assert max(deviations.values()) < 2e-6, deviations


@pytest.mark.parametrize("inputs", ["all", "mean"])
def test_narrow_streams_are_as_exact_as_pytorch_has_them(inputs):
    dtype = torch.bfloat16
    module = connection(inputs=inputs, backend="fused").to(dtype)
    X, slope = (x.to(dtype) for x in streams())
    ours = errors(module, X, slope)
    module.backend = "reference"
    theirs = errors(module, X, slope)
    for name, error in ours.items():
        assert error < 1.5 * theirs[name] + torch.finfo(dtype).eps / 2, (name, error, theirs[name])


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_autocast_narrows_the_product_alone(stored):
    """Of streams in bfloat16 too, beside weights in float32."""
    module = connection(backend="fused")
    X, slope = streams()
    X = X.to(stored)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(module, X, slope)
        module.backend = "reference"
        expected = results(module, X, slope)
    assert ours["out"].dtype == stored
    for name, value in ours.items():
        difference = (value - expected[name]).norm() / expected[name].norm()
        assert difference < 2e-2, (name, difference)


@pytest.mark.parametrize("name", ["go-mhc", "mhc"])
def test_hard_tokens_go_through_the_reference(name):
    """Angles and logits for which the compiled code is not made, and streams with a NaN."""
    module = connection(name, backend="fused")
    X, slope = streams(tokens=70)
    with torch.no_grad():
        module.bias[0] += 5e3
    ours = errors(module, X, slope)
    module.backend = "reference"
    expected = errors(module, X, slope)  # float32 has few digits there
    assert all(error <= 2 * expected[key] + 2e-6 for key, error in ours.items()), ours
    module.backend = "fused"
    X[9, 1, 3] = float("nan")
    out = module(X).isnan().flatten(1)
    assert out[9].all()
    assert not out[torch.arange(70) != 9].any()


def test_it_is_the_same_from_run_to_run_and_for_any_number_of_threads():
    module = connection(backend="fused")
    X, slope = streams(tokens=2000)
    before, runs = torch.get_num_threads(), []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            X = X.detach().requires_grad_()
            read, mixed, post, products, scales = operators.read_streams(
                X, module.weight, module.bias, module.alpha, torch.float32, [0, 4, 2]
            )
            out = operators.write_streams(mixed, read, post)
            # BLAS may add up otherwise for another number of threads; our passes may not.
            rest = products.fill_(0.1), scales, torch.float32, [0, 4, 2]
            weights = module.weight, module.bias, module.alpha
            back = operators.read_streams_backward(read, slope, post, X.detach(), *weights, *rest)
            runs.append([read, mixed, post, scales, out, back[2], back[3]])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        torch.testing.assert_close(other, runs[0], rtol=1e-6, atol=1e-6)
    for other in runs[1:]:
        assert torch.equal(other[3], runs[0][3])
        assert all(torch.equal(a, b) for a, b in zip(other[5:], runs[0][5:], strict=True))


def test_nothing_is_kept_but_streams_answer_and_small_matrices():
    module = connection(backend="fused")
    X = streams()[0].requires_grad_()
    kept = {}

    def note(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    def bytes_kept(backend):
        kept.clear()
        module.backend = backend
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            module(X)
        weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        return sum(size for place, size in kept.items() if place not in weights)

    module.branch = nn.Identity()  # keeps nothing, and its answer is what it read
    streams_and_answer = 4 * TOKENS * (4 * DIM + DIM)
    small = 4 * TOKENS * (len(module.bias) + 1 + 4)  # x'W, the norm, H_post
    assert bytes_kept("fused") <= 1.1 * streams_and_answer + small
    assert bytes_kept("reference") > 2 * streams_and_answer


@pytest.mark.parametrize("stages", [[0, 3, 2], []])
@pytest.mark.parametrize("width", [3 * DIM, DIM])
def test_operators_keep_the_rules_of_pytorch(stages, width):
    X, _ = streams(3, tokens=5)
    size = 6 + (15 if stages else 0)
    weight, bias, alpha = torch.randn(size, width), torch.randn(size), torch.rand(3)
    tensors = [x.requires_grad_() for x in (X, weight, bias, alpha)]
    checks = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    )
    opcheck(operators.read_streams, (*tensors, torch.float32, stages), test_utils=checks)
    read, mixed, post, *_ = operators.read_streams(*tensors, torch.float32, stages)
    written = [x.detach().requires_grad_() for x in (mixed, read, post)]
    opcheck(operators.write_streams, tuple(written), test_utils=checks)


def test_second_derivatives():
    module = connection(backend="fused")
    exact = copy.deepcopy(module).double()
    exact.backend = "reference"
    gradients = []
    for layer in (module, exact):
        X = streams(tokens=5)[0].to(layer.weight.dtype).requires_grad_()
        (once,) = torch.autograd.grad(layer(X).square().sum(), X, create_graph=True)
        gradients.append(torch.autograd.grad(once.square().sum(), [X, *layer.parameters()]))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_checkpointing_changes_nothing():
    module = connection(backend="fused")
    gradients = []
    for call in (module, lambda X: checkpoint(module, X, use_reentrant=False)):
        X = streams()[0].requires_grad_()
        gradients.append(torch.autograd.grad(call(X).square().sum(), [X, *module.parameters()]))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
def test_transforms_and_forward_mode_go_through_pytorch():
    module, plain = connection(), connection(backend="reference")
    X, change = streams()
    torch.testing.assert_close(torch.func.vmap(module)(X[:, None]), plain(X[:, None]))
    ours, theirs = (torch.func.jvp(m, (X,), (change,)) for m in (module, plain))
    torch.testing.assert_close(ours, theirs)
    weights = dict(module.branch.named_parameters())  # the branch alone is differentiated

    def loss(module, weights):
        named = {f"branch.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(module, named, (X,)).square().sum()

    ours, theirs = (torch.func.grad(lambda w, m=m: loss(m, w))(weights) for m in (module, plain))
    torch.testing.assert_close(ours, theirs)


def test_which_path_it_takes(monkeypatch):
    calls = []
    path = "gomhc.hyper_connections.read_streams"
    monkeypatch.setattr(path, lambda *a: calls.append(1) or operators.read_streams(*a))
    X, _ = streams()

    def taken(module, X=X):
        calls.clear()
        module(X)
        return bool(calls)

    assert all(taken(connection(name)) for name in MIXERS)
    assert not taken(connection(), X[:3])
    assert taken(connection(backend="fused"), X[:3])
    assert not taken(connection(backend="reference"))
    assert not taken(connection().double(), X.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert taken(connection(), X.bfloat16())
    with torch.autocast("cpu", torch.float16):  # where x'W may overflow before its norm
        assert not taken(connection())
    assert not taken(connection().half(), X.half())
    insisting = connection()
    insisting.mixer.backend = "fused"
    assert taken(insisting)
    assert not taken(insisting.half(), X.half())
    asked = connection()
    asked.mixer.backend = "reference"
    assert not taken(asked)
    asked.backend = "fused"
    assert taken(asked)
    with pytest.raises(RuntimeError, match="expected a case that the fused path can run"):
        connection(backend="fused").double()(X.double())


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_of_the_mixer_run(kind):
    module, seen = connection(), []
    X, _ = streams()
    register = getattr(module.mixer, f"register_{kind}_hook")
    handle = register(lambda *arguments: seen.append(kind))
    module(X.requires_grad_()).sum().backward()
    assert seen == [kind]
    module.backend = "fused"
    with pytest.raises(RuntimeError, match="can run: the mixer has hooks"):
        module(X)
    handle.remove()
    module(X)


@pytest.mark.parametrize("name", ["identity", "hc", "go-mhc"])
@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
def test_its_matrices_can_be_looked_at_whatever_the_backend(name, backend):
    module = connection(name, backend=backend)
    X, _ = streams()
    H_res, H_pre, H_post = module.matrices(X)
    expected = (
        H_res @ X + H_post[..., None] * module.branch((H_pre[:, None] @ X).squeeze(1))[:, None]
    )
    torch.testing.assert_close(module(X), expected, rtol=1e-4, atol=1e-5)


def test_shapes_alone():
    """On the device "meta", with autocast or without."""
    module = connection().to("meta")
    X = torch.empty(TOKENS, 4, DIM, device="meta")
    assert module(X).shape == X.shape


def test_there_is_no_other_backend(unchecked):
    with pytest.raises(ValueError, match="auto, reference, fused; got 'fast'"):
        connection(backend="fast")


def test_no_tokens():
    module = connection(backend="fused")
    X = torch.zeros(2, 0, 4, DIM, requires_grad=True)
    gradients = torch.autograd.grad(module(X).sum(), [X, *module.parameters()])
    assert [x.shape for x in gradients] == [X.shape, *(p.shape for p in module.parameters())]
    assert not any(x.any() for x in gradients[1:])


def test_one_who_uses_half_of_it():
    """Streams that nobody reads on, and a branch whose answer comes to nothing."""
    module = connection(backend="fused")
    X = streams()[0].requires_grad_()
    weights = module.weight, module.bias, module.alpha
    for k in range(3):
        outs = [
            call(X, *weights, torch.float32, [0, 4, 2])[k]
            for call in (operators.read_streams, operators._read_reference)
        ]
        gradients = [
            torch.autograd.grad(out.square().sum(), [X, *weights], allow_unused=True)
            for out in outs
        ]
        for ours, theirs in zip(*gradients, strict=True):
            theirs = torch.zeros_like(ours) if theirs is None else theirs
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weights_in_any_order_of_memory():
    """What torch.compile expects of a derivative's strides is what it gets."""
    module = connection(backend="fused")
    module.weight = nn.Parameter(module.weight.detach().mT.contiguous().mT)
    X, slope = streams()
    weights = [x.detach() for x in (module.weight, module.bias, module.alpha)]
    back = torch.ops.gomhc.read_streams_backward
    read, mixed, post, *kept = operators.read_streams(X, *weights, torch.float32, [0, 4, 2])
    with torch.no_grad():
        real = back(read, slope, post, X, *weights, *kept, torch.float32, [0, 4, 2])
    with torch._subclasses.FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in (read, slope, post, X, *weights, *kept)]
        shown = back(*fake, torch.float32, [0, 4, 2])
    assert [x.stride() for x in real] == [x.stride() for x in shown]


# What PyTorch's flop counter sees


def counted(module, X):
    with FlopCounterMode(display=False) as counter:
        module(X).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["identity", "hc", "mhc", "mhc-lite", "kromhc", "transport"])
def test_flops_are_those_of_the_reference(name):
    """Where no linear system is solved, for which PyTorch has no price."""
    X = torch.randn(300, 4, DIM, requires_grad=True)
    fused, plain = (
        HyperConnection(DIM, nn.Linear(DIM, DIM), make_mixer(name, 4), backend=backend)
        for backend in ("fused", "reference")
    )
    saved = 2 * 2 * 300 * 4 * 4 * DIM * (name == "identity")  # products with I, which it has not
    assert counted(fused, X) == counted(plain, X) - saved


def test_flops_of_a_solve():
    """(I + A)⁻¹ of order 8 by elimination, twice, and two products on the way back."""
    mixer, theta = make_mixer("go-mhc", 4, s=2), torch.randn(300, 28, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        mixer(theta).sum().backward()
    assert counter.get_total_flops() == 300 * (2 * (8 * 8**3 // 3) + 2 * 2 * 8**3)


def test_a_batch_of_second_derivatives():
    module = connection()
    X, _ = streams(tokens=300)

    def few(bias):
        out = torch.func.functional_call(module, {"bias": bias}, (X,))
        return out.square().sum((1, 2))[:3]

    derivative = torch.autograd.functional.jacobian(
        few, module.bias.detach(), vectorize=True, create_graph=True
    )
    by_row = torch.autograd.functional.jacobian(few, module.bias.detach())
    torch.testing.assert_close(derivative.detach(), by_row, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mix", "forward"])
def test_a_mixer_that_was_given_another_map(name):
    module = connection()
    X, _ = streams(tokens=300)
    before, mixer = module(X), module.mixer
    setattr(mixer, name, lambda theta, backend=None: torch.eye(4).expand(*theta.shape[:-1], 4, 4))
    few = torch.cat([module(part) for part in X.split(100)])
    torch.testing.assert_close(module(X), few, rtol=1e-4, atol=1e-4)
    assert (few - before).abs().max() > 0.1
    delattr(mixer, name)
    torch.testing.assert_close(module(X), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda X, W, b, a: operators.read_streams(X, W, b[:-1], a, X.dtype, [0, 4, 2]),
        lambda X, W, b, a: operators.read_streams(X, W, b, a[:1], X.dtype, [0, 4, 2]),
        lambda X, W, b, a: operators.read_streams(X, W, b, a, X.dtype, [0, 4, 3]),
        lambda X, W, b, a: operators.read_streams(X[:, :3], W, b, a, X.dtype, [0, 4, 2]),
        lambda X, W, b, a: operators.write_streams(X, X[:10, 0], X[..., 0]),
        lambda X, W, b, a: operators.write_streams(X, X[:, 0], X[..., :2, 0]),
    ],
)
def test_operators_read_no_further_than_their_arrays(call):
    module, (X, _) = connection(), streams(tokens=300)
    with pytest.raises(ValueError, match="that agree|expected stages"):
        call(X, *(x.detach() for x in module.weights()))

"""The layer: its formula, its start, its precision, and the tools it has to go through."""

import copy
import functools
import io
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gomhc import (
    MIXERS,
    HyperConnection,
    expand_streams,
    make_mixer,
    parameter_groups,
    reduce_streams,
)
from gomhc.fused import FEWEST_TOKENS

DIM = 8
NAMES = [name for name in MIXERS if name != "identity"]


def layer(name="go-mhc", d=4, branch=None, **options):
    branch = nn.Linear(DIM, DIM) if branch is None else branch
    return HyperConnection(DIM, branch, make_mixer(name, d), **options)


def streams(d=4, batch=(2, 5), seed=0, dtype=None):
    return torch.randn(*batch, d, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype)


def shaken(module, seed=0):
    """The same layer away from its start, so that every part of the formula counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (module.weight, module.bias, module.alpha):
            weight.add_(torch.randn(weight.shape, generator=generator))
    return module


# The formula


@pytest.mark.parametrize("inputs", ["all", "mean"])
@pytest.mark.parametrize("name", MIXERS)
def test_token_by_token_it_is_the_published_formula(name, inputs):
    module = shaken(layer(name, inputs=inputs)).double()
    X = streams(dtype=torch.float64)
    d, g = 4, module.mixer.num_parameters
    W_res, W_pre, W_post = module.weight.split([g, d, d])
    b_res, b_pre, b_post = module.bias.split([g, d, d])
    a_res, a_pre, a_post = module.alpha
    for x, output in zip(X.flatten(0, 1), module(X).flatten(0, 1), strict=True):
        flat = x.flatten() if inputs == "all" else x.mean(0)
        normed = flat / (flat.square().mean() + torch.finfo(flat.dtype).eps).sqrt()
        H_res = module.mixer(a_res * W_res @ normed + b_res)
        H_pre = torch.sigmoid(a_pre * W_pre @ normed + b_pre)
        H_post = 2 * torch.sigmoid(a_post * W_post @ normed + b_post)
        expected = H_res @ x + torch.outer(H_post, module.branch(H_pre @ x))
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("d", [2, 4])
def test_number_of_parameters(name, d):
    if name == "kron-go" and d == 2:
        pytest.skip("no product")
    module = layer(name, d)
    g = module.mixer.num_parameters
    own = sum(w.numel() for n, w in module.named_parameters() if not n.startswith("branch"))
    assert own == (d * DIM + 1) * g + 2 * d**2 * DIM + 2 * d + 3


def test_one_stream_read_and_written_whole_is_the_plain_residual_to_the_bit():
    module = layer("identity", d=1)
    with torch.no_grad():
        module.bias.copy_(torch.tensor([20.0, 0.0]))  # σ(20) rounds to 1, 2σ(0) is 1
    X = streams(d=1)
    assert torch.equal(module(X), X + module.branch(X))


def test_the_layers_prefer_one_stream_after_the_other():
    for number in range(6):
        _, pre, post = layer(layer=number).matrices(streams())
        assert (pre.argmax(-1) == number % 4).all()
        assert (post.argmax(-1) == number % 4).all()


# Streams


def test_expand_and_reduce():
    x = streams(batch=(3,))[:, 0]
    X = expand_streams(x, 4)
    assert X.shape == (3, 4, DIM)
    torch.testing.assert_close(reduce_streams(X), x)
    torch.testing.assert_close(reduce_streams(X, "sum"), 4 * x)
    offsets = torch.randn(4, DIM)
    torch.testing.assert_close(expand_streams(x, 4, offsets) - X, offsets.expand(3, 4, DIM))


# Starts


@pytest.mark.parametrize("name", NAMES)
def test_after_one_step_every_mixer_has_moved(name):
    modules = nn.Sequential(*(layer(name, layer=k) for k in range(3)))
    optimizer = torch.optim.SGD(modules.parameters(), lr=1.0)
    before = [module.matrices(streams())[0].detach() for module in modules]
    modules(streams()).square().mean().backward()
    optimizer.step()
    for module, old in zip(modules, before, strict=True):
        assert (module.matrices(streams())[0] - old).abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_copies_give_the_first_mixer_no_gradient(name):
    if name in ("hc", "orthogonal"):
        pytest.skip("its rows need not sum to 1")
    module = layer(name).double()
    X = expand_streams(streams(dtype=torch.float64)[..., 0, :], 4)
    module(X).square().mean().backward()
    g = module.mixer.num_parameters
    assert module.bias.grad[:g].abs().max() < 1e-14
    assert module.bias.grad[g:].abs().max() > 1e-4


def kept(name, dtype):
    """A plain residual network, and the same branches with streams that keep its function."""
    torch.manual_seed(1)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # gates that are made in float32 are off by its rounding
    try:
        branches = [nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, DIM)) for _ in range(6)]
        modules = (
            layer(name, branch=b, layer=k, keep_function=True) for k, b in enumerate(branches)
        )
        return branches, nn.Sequential(*modules)
    finally:
        torch.set_default_dtype(usual)


def difference(branches, modules, dtype):
    x = streams(dtype=dtype)[..., 0, :]
    plain = x
    for branch in branches:
        plain = plain + branch(plain)
    return (reduce_streams(modules(expand_streams(x, 4))) - plain).abs().max().item()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", MIXERS)
def test_a_start_that_keeps_the_function(name, dtype, most):
    branches, modules = kept(name, dtype)
    assert difference(branches, modules, dtype) < most


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", NAMES)
def test_a_doubly_stochastic_mixer_keeps_the_function_whatever_theta_is(name, dtype, most):
    branches, modules = kept(name, dtype)
    with torch.no_grad():
        for module in modules:
            g = module.mixer.num_parameters
            generator = torch.Generator().manual_seed(2)
            module.bias[:g] = 3 * torch.randn(g, generator=generator).to(dtype)
            module.weight[:g] = torch.randn(module.weight[:g].shape, generator=generator).to(dtype)
    apart = difference(branches, modules, dtype)
    if modules[0].mixer.exact:
        assert apart < most
    else:  # mhc's columns are off by its iteration, the others' by anything
        assert apart > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_after_three_steps_from_the_kept_function_everything_has_moved(name):
    _, modules = kept(name, torch.float64)
    offsets = nn.Parameter(torch.zeros(4, DIM, dtype=torch.float64))
    optimizer = torch.optim.Adam([*modules.parameters(), offsets], lr=1e-2)
    before = [copy.deepcopy(module) for module in modules]
    x = streams(dtype=torch.float64)[..., 0, :]
    for _ in range(3):
        optimizer.zero_grad()
        reduce_streams(modules(expand_streams(x, 4, offsets))).square().mean().backward()
        optimizer.step()
    g = modules[0].mixer.num_parameters
    parts = (slice(g), slice(g, g + 4), slice(g + 4, None))  # θ, b_pre, b_post
    for layer_, (old, new) in enumerate(zip(before, modules, strict=True)):
        # The last θ of doubly stochastic mixers has no part in the mean. Rounding alone moves
        # Adam by 1e-10.
        for part in parts if layer_ < 5 else parts[1:]:
            assert (new.bias[part] - old.bias[part]).abs().max() > 1e-7
            assert (new.weight[part] - old.weight[part]).abs().max() > 1e-7


def unpickled(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [None, copy.deepcopy, unpickled])
def test_frozen_mixing_is_one_matrix_for_all_tokens_and_stays_it(copied):
    modules = nn.Sequential(*(shaken(layer(layer=k)) for k in range(3)))
    for module in modules:
        module.freeze_mixing()
    if copied:
        modules = copied(modules)
    assert "frozen" in repr(modules) and "frozen" not in repr(layer())
    before = [module.matrices(streams()) for module in modules]
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        modules(streams()).square().mean().backward()
        optimizer.step()
    for module, (H_res, H_pre, _) in zip(modules, before, strict=True):
        after, read, _ = module.matrices(streams(seed=5))
        # Decay moves what has no gradient, too: the optimizer's choice, and W is 0 there.
        g = module.mixer.num_parameters
        assert torch.equal(module.weight[:g], torch.zeros_like(module.weight[:g]))
        assert (H_res - H_res[0, 0]).abs().max() < 1e-6
        assert (read - H_pre).abs().max() > 1e-3
        assert (after - H_res).abs().max() < 1e-2


def test_frozen_mixing_has_no_gradient_by_any_way():
    module = shaken(layer())
    module.freeze_mixing()
    weights, g = dict(module.named_parameters()), module.mixer.num_parameters

    def loss(weights):
        return torch.func.functional_call(module, weights, streams()).square().sum()

    gradients = torch.func.grad(loss)(weights)
    assert all(not gradients[name][:g].any() for name in ("weight", "bias"))
    assert gradients["bias"][g:].any() and not gradients["alpha"][0]
    module = layer()
    module.freeze_mixing()
    usual = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(usual)
    module(streams(dtype=torch.float64)).square().sum().backward()
    assert not module.bias.grad[:g].any() and module.bias.grad[g:].any()


@pytest.mark.parametrize("tokens", [3, 300])
def test_frozen_mixing_takes_no_w_from_a_state_dict(tokens):
    frozen, other = layer(), shaken(layer())
    frozen.freeze_mixing()
    frozen.load_state_dict(other.state_dict())
    X, g = streams(batch=(tokens,)), other.mixer.num_parameters
    assert (other.matrices(X)[0] - frozen.matrices(X)[0]).abs().max() > 1e-3
    with torch.no_grad():
        other.weight[:g] = 0
    torch.testing.assert_close(frozen(X), other(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, unpickled])
def test_a_frozen_layer_without_gradients_can_be_copied(copied):
    module = layer()
    module.freeze_mixing()
    module.requires_grad_(False)
    assert copied(module).frozen
    still = layer().requires_grad_(False)
    still.freeze_mixing()
    assert torch.equal(still(streams()), copied(still)(streams()))


@pytest.mark.parametrize("d", [2, 3, 4, 8])
def test_gates_that_keep_the_function_are_precise_whatever_the_default_dtype(d):
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        module = layer("identity", d, branch=nn.Identity(), keep_function=True)
    finally:
        torch.set_default_dtype(usual)
    b_pre, b_post = module.bias.double().split([d, d])
    torch.testing.assert_close(b_pre.sigmoid().sum().item(), 1.0, rtol=0, atol=1e-6)
    torch.testing.assert_close(2 * b_post.sigmoid().mean().item(), 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("connections", [False, True])
def test_connections_do_not_decay_unless_asked_to(connections):
    model = nn.Sequential(nn.Linear(DIM, DIM), layer(), nn.LayerNorm(DIM))
    model[2].bias.requires_grad_(False)
    decays, others = parameter_groups(model, 0.1, connections=connections)
    assert (decays["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {weight: name for name, weight in model.named_parameters()}
    expected = {"0.weight", "1.branch.weight"} | ({"1.weight"} if connections else set())
    assert {names[weight] for weight in decays["params"]} == expected
    together = [names[weight] for weight in [*decays["params"], *others["params"]]]
    assert sorted(together) == sorted(set(names.values()) - {"2.bias"})
    torch.optim.AdamW([decays, others], 1e-3)


def test_groups_are_those_of_a_module(unchecked):
    with pytest.raises(TypeError, match="expected a module, got generator"):
        parameter_groups(layer().parameters(), 0.1)
    with pytest.raises(ValueError, match="expected weight_decay >= 0 and finite, got -1"):
        parameter_groups(layer(), -1)
    with pytest.raises(TypeError, match="expected weight_decay as a number, got 'a'"):
        parameter_groups(layer(), "a")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tokens", [3, 300])
def test_streams_of_another_dtype_than_the_weights(dtype, tokens):
    X = torch.randn(tokens, 4, DIM).to(dtype)
    message = f"expected streams in torch.float32.*got {dtype}"
    with pytest.raises(TypeError, match=message):
        layer()(X)
    with torch.autocast("cpu", torch.bfloat16):
        if dtype == torch.bfloat16:
            assert layer()(X).dtype == dtype
        else:
            with pytest.raises(TypeError, match=message):
                layer()(X)


SHARED = nn.Linear(DIM, DIM)


def test_a_copy_has_weights_of_its_own():
    linear = nn.Linear(DIM, DIM)
    copied = copy.deepcopy(layer(branch=linear))
    assert copied.branch.weight is not linear.weight
    plain = copy.deepcopy(layer(branch=lambda x: F.gelu(x)))
    assert plain(streams()).shape == streams().shape
    bound = layer(branch=linear.forward)
    assert copy.deepcopy(bound).branch.__self__ is not linear
    partial = copy.deepcopy(layer(branch=functools.partial(linear.forward)))
    assert partial.branch.func.__self__ is not linear


def held():
    """Functions that reach a module or a tensor, each by another way."""
    linear, names = nn.Linear(DIM, DIM), types.SimpleNamespace()
    nets, weight, inner = [linear], linear.weight.detach(), lambda x: linear(x)
    names.deep = {"net": linear}
    yield "linear", lambda x: linear(x)
    yield "SHARED", lambda x: SHARED(x)
    yield "net", lambda x, net=linear: net(x)
    yield "net", lambda x, *, net=linear: net(x)
    yield "nets", lambda x: nets[0](x)
    yield "names", lambda x: names.deep["net"](x)
    yield "inner", lambda x: inner(x)
    yield "SHARED", lambda x: [SHARED(y) for y in (lambda: [SHARED(x)])()][0]
    yield "weight", lambda x: x @ weight
    yield "bound", lambda x, bound=linear.forward: bound(x)
    yield "linear", functools.partial(lambda x, y: linear(x), y=1)
    yield "net", functools.wraps(F.gelu)(lambda x, net=linear: net(F.gelu(x)))

    def own(x):
        return own.net(x)

    own.net = linear
    yield "net", own
    yield "own", lambda x: own(x)


@pytest.mark.parametrize("name, branch", list(held()))
def test_a_function_that_would_share_its_weights_is_not_copied(name, branch):
    with pytest.raises(TypeError, match=f"a function around {name}, whose weights"):
        copy.deepcopy(nn.Sequential(layer(branch=branch)))


# Precision


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("hc", "orthogonal")])
def test_rows_sum_to_one_under_autocast(name):
    module = shaken(layer(name))
    with torch.autocast("cpu", torch.bfloat16):
        H_res, _, _ = module.matrices(streams())
        out = module(streams())
    assert H_res.dtype == torch.float32
    assert (H_res.sum(-1) - 1).abs().max() < 1e-5
    assert out.dtype == torch.float32


def test_the_product_with_the_streams_is_not_narrowed():
    # With equal streams and no branch nothing may change, however the mixer turns.
    module = shaken(layer(branch=nn.Linear(DIM, DIM, bias=False)))
    nn.init.zeros_(module.branch.weight)
    X = expand_streams(streams()[..., 0, :], 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(X), X.clone(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_streams_come_out_as_they_went_in(dtype):
    module = layer().to(dtype)
    assert module(streams(dtype=dtype)).dtype == dtype


def test_gates_and_biases_move_in_a_narrow_layer():
    """A step of 1e-3 is lost in the rounding of a bfloat16 near 1."""
    module = layer().to(torch.bfloat16)
    before = {name: getattr(module, name).detach().clone() for name in ("bias", "alpha")}
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0)
    for _ in range(3):
        optimizer.zero_grad()
        module(streams(dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()
    assert module.weight.dtype == torch.bfloat16
    moves = [(getattr(module, name) - value).abs() for name, value in before.items()]
    assert moves[0].min() > 1e-3 and moves[1].max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_not_narrowed_keeps_its_digits(dtype):
    module = shaken(layer())
    module(streams()).sum().backward()
    wide = copy.deepcopy(module)
    for way in (module.to(dtype), copy.deepcopy(wide).double().to("cpu", dtype)):
        assert torch.equal(way.bias, wide.bias) and torch.equal(way.alpha, wide.alpha)
        assert {x.dtype for x in (way.bias, way.alpha)} == {torch.float32}
        assert {x.dtype for x in (way.weight, way.branch.weight)} == {dtype}
    assert (module.bias.grad.dtype, module.weight.grad.dtype) == (torch.float32, dtype)
    assert module.to("meta").bias.device.type == "meta"
    assert copy.deepcopy(wide).double().bias.dtype == torch.float64
    torch.set_default_dtype(dtype)
    try:
        assert (layer().bias.dtype, layer().weight.dtype) == (torch.float32, dtype)
    finally:
        torch.set_default_dtype(torch.float32)


# Epsilons


EPSILONS = {"norm_eps": 0.5, "read_eps": 0.25}


def test_epsilons_are_added_where_they_say():
    X, plain = streams(dtype=torch.float64), shaken(layer("mhc")).double()
    module = layer("mhc", **EPSILONS).double()
    module.load_state_dict(plain.state_dict())
    H_res, pre, post = module.matrices(X)
    flat = X.flatten(-2)
    shrunk = (flat.square().mean(-1) / (flat.square().mean(-1) + 0.5)).sqrt()[..., None]
    with torch.no_grad():
        linear = shrunk * F.linear(F.rms_norm(flat, flat.shape[-1:], eps=0.0), plain.weight)
        factors = plain.alpha.repeat_interleave(torch.tensor([16, 4, 4]))
    theta, before, after = (factors * linear + plain.bias).split([16, 4, 4], -1)
    torch.testing.assert_close(H_res, plain.mixer(theta))
    torch.testing.assert_close(pre, before.sigmoid() + 0.25)
    torch.testing.assert_close(post, 2 * after.sigmoid())


@pytest.mark.parametrize("tokens", [3, 600])
def test_with_epsilons_it_goes_through_pytorch(tokens):
    """Whatever the number of tokens, and in every tool."""
    module = shaken(layer("mhc", **EPSILONS))
    module.mixer = make_mixer("mhc", 4, eps=0.1)
    X = streams(batch=(tokens,))
    expected = module(X)
    same = copy.deepcopy(module)
    same.backend = "reference"
    assert torch.equal(same(X), expected)
    assert "norm_eps=0.5, read_eps=0.25" in repr(module) and "eps=0.1" in repr(module.mixer)
    held = io.BytesIO()
    torch.save(module, held)
    held.seek(0)
    assert torch.equal(torch.load(held, weights_only=False)(X), expected)
    exported = torch.export.export(module, (X,), strict=False).module()
    torch.testing.assert_close(exported(X), expected)
    assert copy.deepcopy(module).to("meta")(X.to("meta")).shape == X.shape


def test_matrices_of_a_subclass_are_taken_for_many_tokens_too():
    class Silent(HyperConnection):
        def matrices(self, X):
            H_res, H_pre, H_post = super().matrices(X)
            return H_res, H_pre, torch.zeros_like(H_post)

    X = torch.randn(FEWEST_TOKENS, 4, 8)
    made = {"dim": 8, "branch": nn.Identity(), "mixer": make_mixer("go-mhc", 4)}
    module = Silent(**made)
    torch.testing.assert_close(module(X), module.matrices(X)[0] @ X)
    with pytest.raises(RuntimeError, match="got matrices of a subclass"):
        Silent(**made, backend="fused")


def test_compiled_passes_have_no_epsilons():
    for options in ({"norm_eps": 1e-6}, {"read_eps": 1e-6}):
        with pytest.raises(RuntimeError, match="passes over the streams have no norm_eps"):
            layer(backend="fused", **options)
        later = layer(**options)
        later.backend = "fused"
        with pytest.raises(RuntimeError, match="passes over the streams have no norm_eps"):
            later(streams())
    with pytest.raises(RuntimeError, match="no compiled form, nor has mhc with an eps"):
        make_mixer("mhc", 4, eps=1e-6, backend="fused")


@pytest.mark.parametrize("name", ["norm_eps", "read_eps"])
def test_epsilons_are_numbers(name, unchecked):
    with pytest.raises(ValueError, match=f"expected {name} >= 0 and finite, got -1"):
        layer(**{name: -1})
    with pytest.raises(TypeError, match=f"expected {name} as a number, got 'small'"):
        layer(**{name: "small"})


# Tools


@pytest.mark.parametrize("name", ["go-mhc", "mhc-lite"])
def test_gradients_are_those_of_finite_differences(name):
    module = shaken(layer(name, d=2)).double()
    X = streams(d=2, batch=(2,), dtype=torch.float64).requires_grad_()
    parameters = dict(module.named_parameters())

    def run(X, *weights):
        return torch.func.functional_call(module, dict(zip(parameters, weights, strict=True)), X)

    assert torch.autograd.gradcheck(run, (X, *parameters.values()))


def test_activation_checkpointing_changes_nothing():
    module, other = shaken(layer()), None
    other = copy.deepcopy(module)
    X, Y = streams().requires_grad_(), streams().requires_grad_()
    module(X).square().sum().backward()
    checkpoint(other, Y, use_reentrant=False).square().sum().backward()
    assert torch.equal(X.grad, Y.grad)
    for weight, same in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight.grad, same.grad)


def test_it_goes_around_a_plain_block():
    # The conversion that use-it.md shows.
    attention = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, DIM))
    module = HyperConnection(DIM, attention, make_mixer("go-mhc", d=4))
    x = torch.randn(2, 7, DIM)
    assert reduce_streams(module(expand_streams(x, 4))).shape == x.shape
    assert F.mse_loss(module(expand_streams(x, 4)), expand_streams(x, 4)) > 0


def test_a_mixer_inside_the_package_hyper_connections():
    # The example of use-it.md: their d×d logits give θ; their identity start would be a dead one.
    from hyper_connections import mHC

    mixer = make_mixer("go-mhc", d=4, s=1)
    live = mixer.initial_theta(torch.Generator().manual_seed(0))
    row, column = torch.triu_indices(4, 4, offset=1)

    def constraint(logits):
        return mixer(logits[..., row, column] - logits[..., column, row] + live).mT

    module = mHC(4, dim=DIM, branch=nn.Linear(DIM, DIM), residual_mix_constraint_fn=constraint)
    nn.init.zeros_(module.branch.weight)
    nn.init.zeros_(module.branch.bias)
    x = torch.randn(8, 5, DIM)  # four streams of two sequences, in the batch dimension
    streams = x.unflatten(0, (2, 4)).transpose(1, 2)
    mixed = module(x).unflatten(0, (2, 4)).transpose(1, 2)
    torch.testing.assert_close(mixed, mixer(live) @ streams)
    module(x).square().sum().backward()
    assert module.static_alpha.grad[:, 1:].abs().max() > 1e-3


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: layer()(torch.randn(2, 3, DIM)),
            r"expected streams \(..., 4, 8\), got \(2, 3, 8\); expand_streams\(x, 4\) makes them",
        ),
        (
            lambda: layer()(torch.randn(2, 4, 5)),
            r"expected streams \(..., 4, 8\), got \(2, 4, 5\)$",
        ),
        (lambda: layer(layer=-1), "layer >= 0"),
        (lambda: HyperConnection(0, nn.Identity(), make_mixer("mhc", 2)), "dim >= 1"),
        (lambda: expand_streams(torch.randn(3, DIM), 0), "d >= 1"),
        (lambda: expand_streams(torch.randn(3, DIM), 4, torch.randn(3, DIM)), "expected offsets"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HyperConnection(6.0, nn.Identity(), make_mixer("mhc", 2)), "dim as an integer"),
        (lambda: expand_streams(torch.randn(3, DIM), 4.0), "d as an integer"),
    ],
)
def test_sizes_are_integers(call, message, unchecked):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_class_is_no_branch():
    with pytest.raises(TypeError, match="expected a branch"):
        HyperConnection(DIM, nn.LayerNorm, make_mixer("mhc", 2))


def test_a_number_is_no_stream(unchecked):
    with pytest.raises(ValueError, match=r"expected a stream \(\.\.\., C\), got \(\)"):
        expand_streams(torch.tensor(1.0), 4)


def test_a_vector_is_no_streams(unchecked):
    with pytest.raises(ValueError, match=r"expected streams \(\.\.\., d, C\), got \(16,\)"):
        reduce_streams(torch.randn(16))


@pytest.mark.parametrize("tokens", [3, 300])  # 300 go through compiled code, which trusts them
def test_weights_that_are_not_the_mixers(tokens):
    X = torch.randn(tokens, 4, DIM)
    message = "for another mixer make another connection"
    for name, options in (("go-mhc", {"s": 1}), ("hc", {}), ("identity", {})):
        module = layer()
        module.mixer = make_mixer(name, 4, **options)
        with pytest.raises(ValueError, match=message):
            module(X)
    module = layer()
    for own in ("weight", "bias", "alpha"):
        short = {own: module.get_parameter(own).detach()[:-1]}
        with pytest.raises(ValueError, match=message):
            torch.func.functional_call(module, short, (X,))
    module.mixer.s = 1
    with pytest.raises(ValueError, match="was the mixer changed|mix to give"):
        module(X)


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (nn.Linear(6, 1), r"got \(2, 3, 1\)"),  # would be broadcast
        (nn.Linear(6, 5), r"got \(2, 3, 5\)"),
        (nn.LSTM(6, 6), "got tuple"),
        (lambda x: None, "got NoneType"),
    ],
)
def test_a_branch_that_returns_something_else(branch, message):
    layer = HyperConnection(6, branch, make_mixer("go-mhc", 4))
    with pytest.raises(ValueError, match=r"return one tensor of shape \(2, 3, 6\), " + message):
        layer(torch.randn(2, 3, 4, 6))


def test_the_branch_gets_what_else_it_needs():
    def branch(x, mask, *, scale):
        return scale * x * mask

    layer = HyperConnection(6, branch, make_mixer("identity", 4))
    X, mask = torch.randn(2, 3, 4, 6), torch.zeros(2, 3, 1)
    torch.testing.assert_close(layer(X, mask, scale=2.0), X)

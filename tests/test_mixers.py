"""One contract over every mixer, then what is particular to a family."""

import math
import typing

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parametrize

import gomhc
from gomhc import MIXERS, make_mixer
from gomhc.fused import FEWEST_TOKENS
from gomhc.mixers import Identity, MixerName

# Every family at sizes it allows, the smallest first.
CASES = [
    *[("identity", d, {}) for d in (1, 2, 5, 16)],
    *[("hc", d, {}) for d in (1, 2, 5, 16)],
    *[("mhc", d, {}) for d in (1, 2, 5, 16)],
    *[("mhc-lite", d, {}) for d in (1, 2, 3, 5, 7, 8)],
    *[("kromhc", d, {}) for d in (1, 2, 4, 16)],
    ("kromhc", 6, {"factors": (3, 2)}),
    *[("go-mhc", d, {"s": s}) for d in (1, 2, 3, 5, 16) for s in (1, 2, 3, 4)],
    *[("kron-go", d, {"s": s}) for d in (1, 4, 6, 16) for s in (1, 2)],
    ("kron-go", 8, {"factors": (2, 2, 2), "s": 3}),
    *[("orthogonal", d, {}) for d in (1, 2, 3, 5, 16)],
    *[("transport", d, {}) for d in (1, 2, 3, 5, 16)],
]
SMALL = [case for case in CASES if 1 < case[1] <= 4]


def build(case):
    name, d, options = case
    return make_mixer(name, d, **options)


EXACT = [case for case in CASES if build(case).exact]
DRIVEN = [case for case in CASES if build(case).num_parameters]  # by a generator that can vary


def ids(case):
    name, d, options = case
    return "-".join([name, str(d), *[f"{k}{v}" for k, v in options.items()]]).replace(" ", "")


@pytest.fixture(params=CASES, ids=ids)
def mixer(request):
    return build(request.param)


@pytest.fixture(params=SMALL, ids=ids)
def small_mixer(request):
    return build(request.param)


@pytest.fixture(params=[case for case in SMALL if case in DRIVEN], ids=ids)
def small_driven_mixer(request):
    return build(request.param)


def draw(mixer, *batch, generator, dtype=torch.float64, scale=1.0):
    shape = (*batch, mixer.num_parameters)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def test_every_name_is_tested():
    assert {name for name, _, _ in CASES} == set(MIXERS)


def test_the_contract_of_attributes(mixer):
    assert list(mixer.parameters()) == []
    assert mixer.state_dict() == {}
    assert isinstance(mixer.exact, bool)
    assert mixer.initial_theta().shape == (mixer.num_parameters,)


def test_generator_sizes_as_published():
    sizes = {"identity": 0, "hc": 16, "mhc": 16, "mhc-lite": 24, "kromhc": 4, "kron-go": 12}
    assert {name: make_mixer(name, 4).num_parameters for name in sizes} == sizes
    assert [make_mixer("go-mhc", 4, s=s).num_parameters for s in (1, 2)] == [6, 28]
    assert make_mixer("go-mhc", 5, s=2).num_parameters == 45
    assert make_mixer("mhc-lite", 5).num_parameters == 120


@pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 0, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_batch_shape(mixer, batch, dtype, generator):
    theta = draw(mixer, *batch, generator=generator, dtype=dtype)
    B = mixer(theta)
    assert B.shape == (*batch, mixer.d, mixer.d)
    assert B.dtype == dtype
    if B.numel():
        flat = theta.reshape(math.prod(batch), mixer.num_parameters)
        one_by_one = torch.stack([mixer(t) for t in flat])
        torch.testing.assert_close(B.reshape(one_by_one.shape), one_by_one)


# Just below and above what compiled code takes on a CPU: |θ| of 1e3, logits 600 apart.
@pytest.mark.parametrize("scale", [1.0, 299.0, 301.0, 999.0, 1001.0, 2e4, 3e6])
@pytest.mark.parametrize("case", DRIVEN, ids=ids)
def test_the_number_of_tokens_changes_nothing(case, scale, generator):
    """One fewer than compiled code is taken for, and as many."""
    mixer = build(case)
    theta = scale * (2 * torch.rand(FEWEST_TOKENS, mixer.num_parameters, generator=generator) - 1)
    theta[::3] = scale * theta[::3].sign()
    rounding = 1e-5 if scale == 1 else 2e-4  # of float32, which PyTorch's path computes in
    many, fewer = mixer(theta)[:-1], mixer(theta[:-1])
    torch.testing.assert_close(many, fewer, rtol=1e-5, atol=rounding, equal_nan=True)


@pytest.mark.parametrize("case", EXACT, ids=ids)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e2, 1e4])
def test_the_numerical_promise(case, dtype, tolerance, scale, generator):
    mixer = build(case)
    g = mixer.num_parameters
    uniform = 2 * torch.rand(50, g, generator=generator, dtype=dtype) - 1
    sparse = uniform * (torch.rand(50, g, generator=generator) < 0.1)
    theta = scale * torch.cat([uniform, uniform.sign(), sparse, torch.ones(1, g, dtype=dtype)])
    B = mixer(theta)
    assert gomhc.marginal_error(B).max() <= tolerance
    assert B.min() >= 0


@pytest.mark.parametrize("d", range(1, 6))
@pytest.mark.parametrize("name", ["mhc-lite", "kromhc", "go-mhc"])
def test_the_start_is_exact_too(name, d, generator):
    # One weight is near 1 there and thousands are tiny: the worst case for adding them up.
    mixer = make_mixer(name, d, **({"factors": [d]} if name == "kromhc" else {}))
    assert mixer.marginal_error(mixer.initial_theta(generator)) < 1e-6


@settings(max_examples=40)
@given(
    d=st.integers(1, 6),
    s=st.integers(1, 4),
    entries=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
)
def test_the_promise_for_go_mhc_on_hostile_generators(d, s, entries):
    mixer = make_mixer("go-mhc", d, s=s)
    theta = torch.tensor(entries).repeat(mixer.num_parameters)[: mixer.num_parameters]
    assert mixer.marginal_error(theta) <= 1e-5
    assert mixer.marginal_error(theta.double()) <= 1e-12
    assert mixer(theta).min() >= 0


@pytest.mark.parametrize("case", DRIVEN, ids=ids)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_generator_spoils_its_own_element_only(case, bad, generator):
    mixer = build(case)
    theta = draw(mixer, 3, generator=generator, dtype=torch.float32)
    clean = mixer(theta)
    theta[1, -1] = bad
    B = mixer(theta)
    assert B[1].isnan().all()
    torch.testing.assert_close(B[[0, 2]], clean[[0, 2]], rtol=0, atol=0)


def test_gradients_by_finite_differences(small_driven_mixer, generator):
    theta = draw(small_driven_mixer, 2, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(small_driven_mixer, theta)
    assert torch.autograd.gradgradcheck(small_driven_mixer, theta)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own use of it
def test_forward_mode_and_second_derivatives_by_finite_differences(small_driven_mixer, generator):
    mixer = small_driven_mixer
    theta, change = torch.randn(2, mixer.num_parameters, dtype=torch.float64, generator=generator)
    weight = torch.randn(mixer.d, mixer.d, dtype=torch.float64, generator=generator)

    def difference(f, step=1e-5):
        return (f(theta + step * change) - f(theta - step * change)) / (2 * step)

    def loss(x):
        return (weight * mixer(x)).sum()

    along = torch.func.jvp(mixer, (theta,), (change,))[1]
    torch.testing.assert_close(along, difference(mixer), rtol=1e-7, atol=1e-8)
    curvature = torch.func.hessian(loss)(theta) @ change
    slope = difference(torch.func.grad(loss))
    torch.testing.assert_close(curvature, slope, rtol=1e-7, atol=1e-8)


def test_the_start_is_near_the_identity_with_the_mass_asked_for(small_mixer, generator):
    for mass in (0.01, 0.03):
        B = torch.stack(
            [small_mixer(small_mixer.initial_theta(generator, mass)) for _ in range(400)]
        )
        off = 1 - B.double().diagonal(dim1=-2, dim2=-1).mean(-1)
        if isinstance(small_mixer, gomhc.Identity | gomhc.Orthogonal):  # at I itself
            assert off.max() == 0
        else:
            # Random starts keep it on average: five standard errors, and 3 % for the expansion.
            random = off.std() > 1e-6
            slack = 5 * off.std() / math.sqrt(len(off)) + 0.03 * mass if random else 1e-6
            assert abs(off.mean() - mass) <= slack


def test_the_start_is_live(small_driven_mixer, generator):
    theta = small_driven_mixer.initial_theta(generator).requires_grad_()
    B = small_driven_mixer(theta)
    (gradient,) = torch.autograd.grad((torch.randn(B.shape, generator=generator) * B).sum(), theta)
    assert gradient.abs().max() > 1e-4


def test_the_start_repeats_with_its_seed():
    mixer = make_mixer("go-mhc", 4)
    one, two = (mixer.initial_theta(torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)


def test_vmap_is_batching(mixer, generator):
    theta = draw(mixer, 2, 3, generator=generator)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(mixer))(theta), mixer(theta))


def test_autocast_does_not_lower_the_precision(small_mixer, generator):
    theta = draw(small_mixer, 9, generator=generator, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        B = small_mixer(theta)
    assert B.dtype == torch.float32
    torch.testing.assert_close(B, small_mixer(theta.float()), rtol=0, atol=0)


def test_parametrizes_a_weight(small_mixer, unchecked):
    d = small_mixer.d
    layer = torch.nn.Linear(d, d, bias=False)
    parametrize.register_parametrization(layer, "weight", small_mixer)
    theta = layer.parametrizations.weight.original
    torch.testing.assert_close(layer.weight, small_mixer(theta))
    if small_mixer.num_parameters:
        layer(torch.ones(1, d)).square().sum().backward()
        assert theta.grad.shape == (small_mixer.num_parameters,)
    with pytest.raises(ValueError, match=f"expected a {d}x{d} weight"):
        small_mixer.right_inverse(torch.zeros(d, d + 1))


# What a user may get wrong: the message names what was expected and what came.


def test_wrong_generator(mixer, unchecked):
    g = mixer.num_parameters
    with pytest.raises(ValueError, match=rf"\(\.\.\., {g}\).*got \(2, {g + 1}\)"):
        mixer(torch.zeros(2, g + 1))
    with pytest.raises(ValueError, match="got \\(\\)"):
        mixer(torch.tensor(0.0))
    with pytest.raises(TypeError, match="tensor of a real floating dtype, got list"):
        mixer([0.0] * g)
    for dtype in (torch.int64, torch.complex64, torch.bool):
        with pytest.raises(TypeError, match=f"real floating dtype, got {dtype}"):
            mixer(torch.zeros(g, dtype=dtype))


def test_a_mix_of_another_shape_is_named(unchecked):
    class Flat(Identity):
        def mix(self, theta):
            return super().mix(theta).flatten(-2)

    with pytest.raises(ValueError, match=r"Flat\.mix to give \(5, 3, 3\), got \(5, 9\)"):
        Flat(3)(torch.zeros(5, 0))


@pytest.mark.parametrize(
    ("name", "d", "options", "message"),
    [
        ("gomhc", 4, {}, "kromhc, go-mhc, kron-go, orthogonal, transport; got 'gomhc'"),
        ("mhc-lite", 9, {}, "d <= 8.*d = 9.*362,880 permutations"),
        ("kromhc", 6, {}, "power of two.*d = 6"),
        ("kromhc", 8, {"factors": (2, 2)}, r"product d = 8, got \(2, 2\) with product 4"),
        ("kromhc", 9, {"factors": (9,)}, "362,880"),
        ("kron-go", 7, {}, "prime d = 7"),
        ("kron-go", 8, {"factors": (2, 3)}, "product d = 8.*product 6"),
        ("kron-go", 4, {"factors": (-2, -2)}, "kron-go factor >= 1, got -2"),
        ("kron-go", 4, {"factors": 4}, "sequence of sizes, got 4"),
        ("kron-go", 4, {"s": 0}, "s >= 1, got 0"),
        ("go-mhc", 4, {"s": 0}, "s >= 1, got 0"),
        ("mhc", 4, {"iterations": 0}, "iterations >= 1, got 0"),
        *[(name, 0, {}, "d >= 1, got 0") for name in MIXERS],
    ],
)
def test_wrong_options(name, d, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make_mixer(name, d, **options)


@pytest.mark.parametrize(
    ("name", "d", "options", "message"),
    [
        ("go-mhc", 4, {"s": 1.5}, r"block size s as an integer, got 1\.5"),
        ("mhc", 4, {"iterations": 2.5}, r"number of iterations as an integer, got 2\.5"),
        ("kromhc", 4, {"factors": (2.0, 2)}, r"kromhc factor as an integer, got 2\.0"),
        *[(name, 4.0, {}, r"number of streams d as an integer, got 4\.0") for name in MIXERS],
    ],
)
def test_sizes_are_integers(name, d, options, message, unchecked):
    with pytest.raises(TypeError, match=message):
        make_mixer(name, d, **options)


@pytest.mark.parametrize(
    ("name", "near"),
    [("go_mhc", "go-mhc"), ("KromHC", "kromhc"), ("mhc_lite", "mhc-lite"), ("orthgonal", "orth")],
)
def test_a_name_that_is_nearly_one(name, near):
    with pytest.raises(ValueError, match=f"got {name!r}; did you mean {near}"):
        make_mixer(name, 4)


@pytest.mark.parametrize("name", ["sinkhorn", "", 4])
def test_a_name_that_is_none(name, unchecked):
    with pytest.raises(ValueError, match=f"got {name!r}$"):
        make_mixer(name, 4)


def test_the_names_have_a_type():
    assert typing.get_args(MixerName) == tuple(MIXERS)


def test_an_option_the_family_does_not_have():
    with pytest.raises(TypeError, match="for go-mhc the options s, factors; got iterations"):
        make_mixer("go-mhc", 4, iterations=20)
    with pytest.raises(TypeError, match="for hc the options factors; got s"):
        make_mixer("hc", 4, s=2)


@pytest.mark.parametrize("name", MIXERS)
def test_any_family_has_products(name, generator):
    product = make_mixer(name, 6, factors=(2, 3))
    factors = [make_mixer(PARTS.get(name, name), size) for size in (2, 3)]
    assert (product.d, product.exact) == (6, all(factor.exact for factor in factors))
    theta = draw(product, 5, generator=generator)
    parts = theta.split([factor.num_parameters for factor in factors], -1)
    expected = gomhc.kronecker([f(part) for f, part in zip(factors, parts, strict=True)])
    torch.testing.assert_close(product(theta), expected)


PARTS = {"kromhc": "mhc-lite", "kron-go": "go-mhc"}


def test_options_of_a_product_are_those_of_its_factors(unchecked):
    product = make_mixer("mhc", 6, factors=(3, 2), iterations=7, backend="reference")
    assert [factor.iterations for factor in product.factors] == [7, 7]
    assert product.backend == "reference"
    with pytest.raises(ValueError, match=r"transport: expected factors with product d = 8, got"):
        make_mixer("transport", 8, factors=(2, 2))
    with pytest.raises(TypeError, match=r"transport factor as an integer, got 2\.0"):
        make_mixer("transport", 4, factors=(2.0, 2))


def test_sizes_may_be_integers_of_numpy(unchecked):
    assert make_mixer("go-mhc", np.int64(4), s=np.int32(2)).num_parameters == 28
    assert make_mixer("kromhc", 6, factors=iter((2, 3))).num_parameters == 8


@pytest.mark.parametrize("mass", [0.0, 1.0, -0.1])
def test_wrong_mass(small_mixer, mass):
    with pytest.raises(ValueError, match="off_diagonal_mass"):
        small_mixer.initial_theta(off_diagonal_mass=mass)


def test_a_seed_is_no_generator(mixer, unchecked):
    """Also where a start is not random, so that a seed does nothing."""
    with pytest.raises(TypeError, match=r"torch\.Generator\(\)\.manual_seed.*got generator=3"):
        mixer.initial_theta(3)
    with pytest.raises(TypeError, match="off_diagonal_mass as a number, got 'small'"):
        mixer.initial_theta(off_diagonal_mass="small")


def test_the_factors_of_a_product(unchecked):
    assert gomhc.Kronecker(make_mixer("mhc", 2) for _ in range(2)).num_parameters == 8
    with pytest.raises(TypeError, match="expected a mixer, such as .*; got str"):
        gomhc.Kronecker(["mhc", "mhc"])


def test_an_empty_product(unchecked):
    with pytest.raises(ValueError, match="at least one factor"):
        gomhc.Kronecker([])


# Families against independent references.


def test_mhc_is_sinkhorn_of_pot(generator):
    mixer = make_mixer("mhc", 5, iterations=2000)
    theta = draw(mixer, generator=generator)
    uniform = np.full(5, 1 / 5)
    plan = ot.sinkhorn(uniform, uniform, -theta.reshape(5, 5).numpy(), reg=1.0, stopThr=1e-14)
    np.testing.assert_allclose(mixer(theta).numpy(), 5 * plan, atol=1e-10)


def test_mhc_says_how_inexact_it_is(generator):
    theta = draw(make_mixer("mhc", 4), 100, generator=generator, scale=5.0)
    errors = [
        make_mixer("mhc", 4, iterations=k).marginal_error(theta).mean() for k in (1, 5, 20, 80)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] > 1e-3
    rows = make_mixer("mhc", 4)(theta).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_mhc_lite_is_the_convex_combination(generator):
    mixer = make_mixer("mhc-lite", 3)
    theta = draw(mixer, generator=generator)
    weights = np.exp(theta.numpy()) / np.exp(theta.numpy()).sum()
    permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    expected = sum(w * np.eye(3)[p] for w, p in zip(weights, permutations, strict=True))
    np.testing.assert_allclose(mixer(theta).numpy(), expected, atol=1e-15)


def test_the_authors_start_of_mhc_lite():
    """Logits 0 and −8 put 0.006 of a row off the diagonal at d = 4, as the docstring says."""
    theta = torch.full((24,), -8.0)
    theta[0] = 0
    off = 1 - make_mixer("mhc-lite", 4)(theta).diagonal().mean()
    assert round(off.item(), 3) == 0.006


def test_kromhc_and_kron_go_are_np_kron(generator):
    for mixer in (make_mixer("kromhc", 8), make_mixer("kron-go", 6, factors=(2, 3), s=2)):
        theta = draw(mixer, generator=generator)
        parts = theta.split([factor.num_parameters for factor in mixer.factors])
        expected = np.ones((1, 1))
        for factor, part in zip(mixer.factors, parts, strict=True):
            expected = np.kron(expected, factor(part).numpy())
        np.testing.assert_allclose(mixer(theta).numpy(), expected, atol=1e-15)


def test_published_factors():
    assert [factor.d for factor in make_mixer("kromhc", 8).factors] == [2, 2, 2]
    assert [factor.d for factor in make_mixer("kron-go", 8).factors] == [2, 4]
    assert [factor.d for factor in make_mixer("kron-go", 64).factors] == [8, 8]


def test_a_table_without_numbers_gets_them_where_it_goes():
    theta = torch.randn(3, 24)
    family = make_mixer("mhc-lite", 4)
    expected = family(theta)
    assert torch.equal(family.to("meta").to("cpu")(theta), expected)


@pytest.mark.parametrize("mass", [1e-46, 1e-16, 1 - 1e-9])
@pytest.mark.parametrize("name", ["mhc", "kromhc"])
def test_extreme_masses_at_the_start(name, mass, generator):
    mixer = make_mixer(name, 4)
    if (name, mass) == ("kromhc", 1 - 1e-9):
        return  # its factors of order 2 are near the swap there
    theta = mixer.initial_theta(generator, mass)
    assert theta.isfinite().all()
    assert mixer(theta).isfinite().all()

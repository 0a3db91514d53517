"""Costs against hand counts and closed forms; reach against targets known to be reached."""

import inspect
import json
import math
from types import SimpleNamespace

import pytest
import torch

from gomhc import make_mixer, marginal_error
from gomhc.companion.claims.cost import recovered
from gomhc.companion.studies import cost
from gomhc.companion.studies.base import Unit, mixer
from gomhc.companion.studies.cost import front, sweeps
from gomhc.hyper_connections import HyperConnection
from gomhc.mixers.base import Mixer


class Square(Mixer):
    """A mixer that applies a function to a matrix of generators: something to count by hand."""

    exact = False

    def __init__(self, d, function):
        super().__init__(d, d * d)
        self.function = function

    def mix(self, theta):
        return self.function(theta.unflatten(-1, (self.d, self.d)))

    def initial_theta(self, generator=None, off_diagonal_mass=0.01):
        return torch.zeros(self.num_parameters)


GENERATORS = {
    "identity": lambda d: 0,
    "hc": lambda d: d**2,
    "mhc": lambda d: d**2,
    "mhc-lite": math.factorial,
    "kromhc": lambda d: 2 * int(math.log2(d)),
    "go-mhc s=1": lambda d: d * (d - 1) // 2,
    "go-mhc s=3": lambda d: 3 * d * (3 * d - 1) // 2,
    "kron-go s=2": lambda d: 2 * 6,
}


def test_parameters_are_those_of_the_formula():
    metrics = cost.parameters(list(GENERATORS), [2, 4], width=6).metrics
    for label, generators in GENERATORS.items():
        for d in (2, 4):
            g = metrics["generator"][label][str(d)]
            if label.startswith("kron-go") and d == 2:
                assert g is None  # prime
                continue
            assert g == generators(d)
            assert metrics["layer"][label][str(d)] == (6 * d + 1) * g + 12 * d**2 + 2 * d + 3
    assert metrics["formula"] == metrics["layer"]


CHECK = 5  # abs, two comparisons, their product and all: Mixer looks whether each θ is finite


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda M: M, lambda n: 0),
        (lambda M: M @ M, lambda n: 2 * n**3),
        (lambda M: M.exp(), lambda n: n**2),
        (lambda M: M / M.sum(-1, keepdim=True), lambda n: 2 * n**2),
        (lambda M: M - M.logsumexp(-1, keepdim=True), lambda n: 5 * n**2 + 2 * n),
        (lambda M: torch.linalg.solve_ex(M, M)[0], lambda n: 8 / 3 * n**3),
        # a constant of all tokens is made once, whatever their number
        (lambda M: M + torch.eye(M.shape[-1]).exp(), lambda n: n**2),
    ],
)
def test_flops_by_hand(n, function, count):
    total = sum(cost.count_flops(Square(n, function)).values())
    assert total == pytest.approx(count(n) + CHECK * n**2, abs=0.5)


def test_flops_of_sinkhorn_and_of_the_cayley_transform():
    d, n = 8, 64
    by_hand = 40 * (4 * d**2 + 2 * d + d**2) + d**2 + CHECK * d**2
    assert sum(cost.count_flops(make_mixer("mhc", d)).values()) == by_hand
    # One solve and three Newton–Schulz steps of two products; the rest is of order n².
    counts = cost.count_flops(make_mixer("go-mhc", n // 2, s=2))
    assert counts["aten.bmm"] == 3 * 2 * 2 * n**3
    assert counts["aten._linalg_solve_ex"] == round(8 / 3 * n**3)
    both = cost.count_flops(make_mixer("go-mhc", n // 2, s=2), backward=True)
    assert both["aten.bmm"] - counts["aten.bmm"] == 2 * 2 * n**3
    assert 0 < sum(counts.values()) / n**3 - (12 + 8 / 3) < 25 / n


def test_flops_of_a_hyper_connection():
    """The products: three projections of dC numbers, H_res X, H_pre X; at least those."""
    d, width = 4, 16
    family = make_mixer("go-mhc", d)
    inner = cost.count_flops(family)
    outer = cost.count_flops(family, width)
    products = 2 * d * width * (family.num_parameters + 2 * d) + 2 * d * d * width + 2 * d * width
    seen = sum(outer[name] for name in ("aten.mm", "aten.bmm")) - inner["aten.bmm"]
    assert seen == products
    with pytest.raises(ValueError, match="width=None"):
        cost.count_flops(family, width, backward=True)


def test_flops_of_the_layer_are_those_of_its_class(monkeypatch):
    """What is counted is `HyperConnection` itself: a change of it is seen."""
    before = sum(cost.count_flops(make_mixer("mhc", 4), 16).values())
    forward = HyperConnection.forward
    monkeypatch.setattr(HyperConnection, "forward", lambda self, X: forward(self, X) + X)
    assert sum(cost.count_flops(make_mixer("mhc", 4), 16).values()) == before + 4 * 16


def test_torch_alone_does_not_see_sinkhorn():
    metrics = cost.flops(["mhc", "kromhc", "mhc-lite"], [3, 4]).metrics
    assert metrics["torch"]["mhc"]["4"] == 0
    assert metrics["mixer"]["kromhc"]["3"] is None
    assert metrics["published"] == {
        "mhc": {"3": 20 * 9, "4": 20 * 16},
        "kromhc": {"3": None, "4": 16 + 2 * 4 * 2},
        "mhc-lite": {"3": 9 * 6, "4": 16 * 24},
    }


def test_an_operation_without_a_price_is_refused():
    with pytest.raises(NotImplementedError, match="aten.erf"):
        cost.count_flops(Square(2, torch.erf))


def test_bytes_by_hand():
    """exp keeps its result; on top come the matrix itself and one byte to say that θ is finite."""
    counts = sweeps._bytes(Square(5, lambda M: M.exp().exp()))
    assert counts[0] == 3 * 4 * 25 + 1
    assert counts[1] > counts[0]


def test_every_sweep_is_strict_json(monkeypatch):
    def timed(family, *arguments):
        nonlocal now
        step(family, *arguments)
        now += family.d * (1 + family.num_parameters)

    now, step = 0.0, sweeps.step
    monkeypatch.setattr(sweeps, "step", timed)
    monkeypatch.setattr(sweeps, "time", SimpleNamespace(process_time=lambda: now))
    sweep = {"labels": ["identity", "kromhc", "go-mhc s=1"], "sizes": [2, 3, 4], "start": 2}
    blocks = {"block_sizes": [1, 2, 4], "block_d": 2, "block_start": 1}
    for run, options in [
        (cost.flops, {}),
        (cost.memory, {}),
        (cost.timing, {"repeats": 2, "most_tokens": 4}),
    ]:
        outcome = run(**sweep, **blocks, **options)
        json.dumps(outcome, allow_nan=False)
        assert set(outcome.metrics["exponent"]["s"]) == {"value", "stderr", "last"}
    # d (1 + d (d − 1) / 2), over four tokens
    assert outcome.metrics["seconds"]["go-mhc s=1"] == {"2": 1.0, "3": 3.0, "4": 7.0}


def test_exponents_of_exact_powers():
    table = {"a": {str(d): 5.0 * d**3 for d in (2, 4, 8, 16)}, "b": {"4": 1.0, "8": None}}
    slopes = sweeps._exponents(table, 4, 1, 8)["d"]
    assert set(slopes) == {"a"}
    assert slopes["a"] == pytest.approx({"value": 3, "stderr": 0, "last": 3}, abs=1e-6)


def test_where_a_method_stops():
    table = {"a": {"2": 1, "4": 3, "8": 9}, "b": {"2": 1, "4": None}, "c": {"2": 7}}
    assert cost.feasible(table, 4) == {
        "a": {"largest": 4, "next": 8},
        "b": {"largest": 2, "next": 4},
        "c": {"largest": None, "next": 2},
    }


def test_targets_are_close_to_uniform_where_chains_are_too_long():
    chains, scaled = (cost.targets(5, 300, chains_to=longest) for longest in (8, 0))
    for T in (chains, scaled):
        assert marginal_error(T).max() < 1e-9
        assert T.min() >= 0
    spread = [(T - 1 / 5).norm(dim=(-2, -1)).median().item() for T in (chains, scaled)]
    assert spread[1] == pytest.approx(spread[0], rel=0.06)


@pytest.mark.parametrize("jacobian", [0, 10_000])
def test_a_mixer_reaches_what_it_made(jacobian, monkeypatch, generator):
    """By L-BFGS and by least squares."""
    monkeypatch.setattr(front, "LARGEST_JACOBIAN", jacobian)
    family = make_mixer("go-mhc", 3, s=2)
    theta = torch.randn(2, family.num_parameters, generator=generator, dtype=torch.float64)
    assert max(front._distances(family, family(theta), 3, 300)) < 1e-6


def test_both_searches_agree(monkeypatch):
    T = cost.targets(4, 3)
    distances = []
    for jacobian in (0, 10_000):
        monkeypatch.setattr(front, "LARGEST_JACOBIAN", jacobian)
        distances.append(front._distances(mixer("kromhc", 4), T, 4, 300))
    assert distances[0] == pytest.approx(distances[1], abs=1e-5)


def test_pareto():
    labels = ["identity", "kromhc", "go-mhc s=2", "kron-go s=2"]
    small = {"count": 2, "vertices": 1, "starts": 2, "iterations": 40}
    small |= {"problems": 2, "samples": 30, "learning_rates": [0.1], "steps": 150}
    outcome = cost.pareto(d=4, labels=[*labels, "kromhc factors=3x3"], **small)
    json.dumps(outcome, allow_nan=False)
    rows = outcome.metrics
    assert "product d = 4" in rows["kromhc factors=3x3"]["impossible"]
    assert rows["go-mhc s=2"]["reach_high"] < 1e-6 < 0.1 < rows["kromhc"]["reach_low"]
    assert rows["go-mhc s=2"]["loss_over_floor_median"] == pytest.approx(1, abs=0.01)
    # All products of two doubly stochastic 2×2 matrices, whatever makes the factors.
    assert outcome.series["reach"]["kron-go s=2"] == pytest.approx(
        outcome.series["reach"]["kromhc"], abs=1e-4
    )
    T = cost.targets(4, 2)
    assert outcome.series["reach"]["identity"] == pytest.approx(
        [(t - torch.eye(4)).norm().item() for t in T]
    )
    with pytest.raises(ValueError, match="problems <= count = 2"):
        cost.pareto(d=4, labels=labels, **(small | {"problems": 3}))


def test_what_composition_recovers():
    rows = {
        "kromhc": {"flops": 10, "reach_median": 1.0},
        "kromhc factors=4x4": {"flops": 15, "reach_median": 0.8},
        "kromhc factors=2x8": {"flops": 1000, "reach_median": 0.1},
        "go-mhc s=2": {"flops": 90, "reach_median": 0.2},
        "mhc-lite": {"impossible": "too many"},
        "kron-go s=2": {"flops": 20, "reach_median": 0.5},
        "kron-go s=3": {"flops": 40, "reach_median": 0.4},
    }
    gaps = recovered(rows)
    assert gaps["kron-go s=2"] == pytest.approx(
        {"rival": "kromhc factors=4x4", "below": 0.3 / 0.8, "closed": 0.3 / 0.6}
    )
    assert gaps["kron-go s=3"] == {}


def test_where_there_is_no_gap_none_is_closed():
    rows = {
        "kromhc": {"flops": 10, "reach_median": 0.0},
        "go-mhc s=2": {"flops": 90, "reach_median": 0.0},
        "kron-go s=2": {"flops": 10, "reach_median": 0.0},
    }
    assert recovered(rows)["kron-go s=2"] == {"rival": "kromhc", "below": 0.0, "closed": 0.0}


def test_a_product_below_go_mhc_closes_the_whole_gap_and_no_more():
    """What the claim of chapter 8 says; the table of chapter 6 said 120 %."""
    rows = {
        "kromhc": {"flops": 10, "reach_median": 1.0},
        "go-mhc s=2": {"flops": 90, "reach_median": 0.5},
        "kron-go s=2": {"flops": 10, "reach_median": 0.4},
    }
    assert recovered(rows)["kron-go s=2"]["closed"] == 1.0


@pytest.mark.parametrize("unit", cost.UNITS, ids=lambda unit: unit.name)
def test_units_can_run(unit):
    assert isinstance(unit, Unit)
    assert json.loads(json.dumps(unit.config)) == unit.config
    inspect.signature(unit.run).bind(**unit.config)

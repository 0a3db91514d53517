"""Weights are all that a model is: made without numbers and filled from a state_dict, it is whole.

A large model is made on the device "meta" and gets its numbers from a file. A tensor that the file
does not hold, and that nothing rebuilds, would then be whatever the memory was left with.
"""

import pytest
import torch
from test_mixers import CASES, build, ids
from torch import nn

from gomhc import MIXERS, HyperConnection, make_mixer
from gomhc.fused import FEWEST_TOKENS
from gomhc.lm.model import GPT, RESIDUAL, preset

DIM = 8


@pytest.fixture
def nan_memory():
    """New memory is full of NaN, not of what happens to be right."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def without_numbers(make, how):
    """A module of `make` as it is before it is filled, and how `load_state_dict` has to fill it."""
    with torch.device("meta"):
        module = make()
    if how == "to_empty":
        return module.to_empty(device="cpu"), {}
    return module, {"assign": True}


@pytest.mark.parametrize("how", ["to_empty", "assign"])
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_mixer_has_all_it_needs(case, how, nan_memory, generator):
    mixer, _ = without_numbers(lambda: build(case), how)
    for tokens in (2, FEWEST_TOKENS):
        theta = torch.randn(tokens, mixer.num_parameters, generator=generator)
        assert torch.equal(mixer(theta), build(case)(theta))


@pytest.mark.parametrize("how", ["to_empty", "assign"])
@pytest.mark.parametrize("name", MIXERS)
def test_a_layer_is_its_weights(name, how, nan_memory, generator):
    def make():
        return HyperConnection(DIM, nn.Linear(DIM, DIM), make_mixer(name, 4))

    module = make()
    state = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    other, options = without_numbers(make, how)
    other.load_state_dict(state, **options)
    for tokens in (2, FEWEST_TOKENS):
        X = torch.randn(tokens, 4, DIM, generator=generator)
        assert torch.equal(other(X), module(X))


@pytest.mark.parametrize("how", ["to_empty", "assign"])
@pytest.mark.parametrize("name", [RESIDUAL, *MIXERS])
def test_a_model_is_its_weights(name, how, nan_memory, generator):
    def make():
        return GPT(preset("nano", mixer=name))

    model = make()
    other, options = without_numbers(make, how)
    other.load_state_dict(model.state_dict(), **options)
    tokens = torch.randint(460, (2, 7), generator=generator)
    assert torch.equal(other(tokens)[0], model(tokens)[0])
    assert other.generate([1, 2], 3) == model.generate([1, 2], 3)


@pytest.mark.parametrize("name", MIXERS)
def test_shapes_are_known_without_numbers(name):
    """As where the memory and the arithmetic of a model are counted before it is made."""
    with torch.device("meta"):
        model = GPT(preset("nano", mixer=name))
        logits, loss = model(torch.zeros(2, 64, dtype=int), torch.zeros(2, 64, dtype=int))
    assert logits.shape == (2, 64, 460) and logits.is_meta
    loss.backward()
    assert all(weight.grad.shape == weight.shape for weight in model.parameters())


def test_moving_leaves_the_permutations_whole():
    mixer = make_mixer("mhc-lite", 4)
    ones = mixer.permutations.sum()
    assert mixer.double().permutations.dtype == torch.float64
    assert mixer.permutations.sum() == ones
    assert mixer.to("meta").to_empty(device="cpu").permutations.sum() == ones
    with torch.inference_mode():
        inside = make_mixer("mhc-lite", 4)
    theta = torch.zeros(3, 24, requires_grad=True)
    inside.double()(theta).sum().backward()


def test_gradients_keep_their_size_when_a_connection_is_narrowed():
    module = HyperConnection(8, torch.nn.Identity(), make_mixer("go-mhc", 4))
    module.bias.grad = torch.full_like(module.bias, 1e5)  # more than float16 holds
    module.half()
    assert module.bias.grad.dtype == torch.float32
    assert (module.bias.grad == 1e5).all()

"""The GPT: its sizes, its causality, its start, and what the report says of its streams."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gomhc import MIXERS
from gomhc.lm import data
from gomhc.lm.model import GPT, PRESETS, RESIDUAL, evaluating, preset
from gomhc.lm.report import stream_report
from gomhc.maps import marginal_error

ARMS = [RESIDUAL, *MIXERS]


@pytest.fixture(scope="module")
def corpus():
    return data.stories(block=64, train=5000, windows=4)


def nano(mixer, seed=0, **changes):
    return GPT(preset("nano", mixer=mixer, **changes), seed)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("mixer", ARMS)
def test_parameters_by_the_formula(name, mixer):
    config = preset(name, mixer=mixer)
    C, d = config.width, config.d
    with torch.device("meta"):
        parameters = GPT(config).num_parameters()
    plain = (config.vocabulary + config.block) * C + config.layers * (12 * C * C + 2 * C) + C
    module = config.make_mixer()
    if module is None:
        assert parameters == plain
    else:
        g = module.num_parameters
        each = (d * C + 1) * g + 2 * d * d * C + 2 * d + 3
        assert parameters == plain + 2 * config.layers * each + d * C + d


@pytest.mark.parametrize("mixer", ARMS)
def test_no_token_sees_the_ones_after_it(mixer, corpus):
    model = nano(mixer).eval()
    tokens = corpus.windows[:2, :40]
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 460
    before, after = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20], after[:, 20])


def test_arms_of_one_seed_start_from_the_same_weights():
    plain = dict(nano(RESIDUAL).named_parameters())
    streams = nano("identity")
    for mixer in MIXERS:
        model = nano(mixer)
        weights = dict(model.named_parameters())
        for name, weight in plain.items():
            assert torch.equal(weights[name], weight), (mixer, name)
        assert torch.equal(model.offsets, streams.offsets)
        assert torch.equal(model.read, streams.read)
        for one, other in zip(model.connections, streams.connections, strict=True):
            assert torch.equal(one.bias[one.mixer.num_parameters :], other.bias)  # the gates
    assert not torch.equal(
        dict(nano(RESIDUAL, 1).named_parameters())["tokens.weight"], plain["tokens.weight"]
    )


@pytest.mark.parametrize("mixer", ARMS)
def test_a_fresh_model_knows_nothing(mixer, corpus):
    windows = corpus.windows
    _, loss = nano(mixer)(windows[:, :-1], windows[:, 1:])
    assert loss.item() == pytest.approx(math.log(460), abs=0.1)


@pytest.mark.parametrize("mixer", [name for name in MIXERS if name != "identity"])
def test_every_mixer_moves_in_the_first_step(mixer, corpus):
    model = nano(mixer).double()  # in float32 Adam would enlarge mere rounding
    before = stream_report(model, corpus.windows).mixing
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    model(corpus.windows[:, :-1], corpus.windows[:, 1:])[1].backward()
    optimizer.step()
    after = stream_report(model, corpus.windows).mixing
    assert ((after - before).abs().amax((1, 2)) > 5e-5).all()


@pytest.mark.parametrize("mixer", ["mhc-lite", "go-mhc", "kromhc"])
def test_behind_a_mean_the_last_mixer_does_nothing(mixer, corpus):
    # 1ᵀH = 1ᵀ: in real arithmetic its gradient is zero.
    for reduce, dead in (("mean", True), ("sum", True), ("read", False)):
        model = nano(mixer, reduce=reduce).double()
        model(corpus.windows[:, :-1], corpus.windows[:, 1:])[1].backward()
        *_, last = model.connections
        slope = last.bias.grad[: last.mixer.num_parameters].abs().max()
        assert slope < 1e-14 if dead else slope > 1e-7


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_model_that_keeps_the_function_is_the_plain_residual_at_first(mixer, corpus):
    plain = nano(RESIDUAL, layers=4)
    model = nano(mixer, layers=4, keep_function=True, offsets=0.0, reduce="mean")
    tokens = corpus.windows[:2, :40]
    assert (model(tokens)[0] - plain(tokens)[0]).abs().max() < 1e-5


def test_frozen_mixing_is_not_trained(corpus):
    model = nano("go-mhc", frozen=True)
    tokens, targets = corpus.batch(0, 4)
    model(tokens, targets)[1].backward()
    for connection in model.connections:
        g = connection.mixer.num_parameters
        assert connection.weight.grad[:g].abs().max() == 0 == connection.bias.grad[:g].abs().max()
        assert connection.weight.grad[g:].abs().max() > 0 == connection.alpha.grad[0]


def test_draws_by_temperature_and_of_the_most_probable(corpus):
    model, start = nano(RESIDUAL), [1, 2, 3]
    first = model(torch.tensor([start]))[0][0, -1]
    assert model.generate(start, 1, temperature=0)[3] == first.argmax()
    assert model.generate(start, 5, temperature=1e-6) == model.generate(start, 5, temperature=0)
    best = set(first.topk(3).indices.tolist())
    drawn = {model.generate(start, 1, top_k=3, seed=seed)[3] for seed in range(60)}
    assert drawn == best
    free = {model.generate(start, 1, seed=seed)[3] for seed in range(60)}
    assert len(free) > 20
    assert model.generate(start, 4, top_k=10**6, seed=3) == model.generate(start, 4, seed=3)
    for least in (1e-40, 1e-46, 5e-324):
        assert model.generate(start, 5, temperature=least) == model.generate(
            start, 5, temperature=0
        )
    with torch.no_grad():
        model.tokens.weight.zero_()  # all logits are 0
    drawn = {model.generate(start, 1, top_k=1, seed=seed)[3] for seed in range(9)}
    assert len(drawn) == 1
    for wrong in (
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_k": 0},
        {"vocabulary": 0},
    ):
        with pytest.raises(ValueError, match=f"expected {next(iter(wrong))} >= "):
            model.generate(start, 1, **wrong)


def test_evaluating_leaves_every_module_as_it_was():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_only_known_tokens_are_gone_on_from(unchecked):
    model = nano(RESIDUAL)
    with pytest.raises(ValueError, match=f"tokens below {model.config.vocabulary}, got 999"):
        model.generate([1, 999], 1)
    with pytest.raises(TypeError, match="tokens as an integer, got 'T'"):
        model.generate("To be", 1)


def test_the_width_of_the_mlp():
    plain, wide = nano(RESIDUAL), nano(RESIDUAL, mlp=300)
    more = wide.num_parameters() - plain.num_parameters()
    assert more == 2 * plain.config.layers * plain.config.width * (300 - 4 * plain.config.width)


def test_a_dead_start_stays_dead(corpus):
    model = nano("go-mhc", dead_start=True)
    model(corpus.windows[:, :-1], corpus.windows[:, 1:])[1].backward()
    for connection in model.connections:
        g = connection.mixer.num_parameters
        assert connection.weight.grad[:g].abs().max() == 0
        assert connection.bias.grad[:g].abs().max() == 0
        assert connection.bias.grad[g:].abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": 8, "reduce": "mean"}, "expected a mixer for d, reduce, got residual"),
        ({"dead_start": True}, "expected a mixer for dead_start, got residual"),
        ({"frozen": True}, "expected a mixer for frozen, got residual"),
        ({"mlp": 0}, "expected mlp >= 1, got 0"),
        (
            {"mixer": "hc", "keep_function": True, "offsets": 0.0},
            "reduce='mean' and offsets=0 with keep_function, got 'read' and 0.0",
        ),
        (
            {"mixer": "hc", "keep_function": True, "reduce": "mean"},
            "reduce='mean' and offsets=0 with keep_function, got 'mean' and 0.02",
        ),
        (
            {
                **{"mixer": "hc", "keep_function": True, "reduce": "mean", "offsets": 0.0},
                "norm_streams": True,
            },
            "keep_function without norm_streams",
        ),
        (
            {"mixer": "go-mhc", "dead_start": True, "off_diagonal_mass": 0.1},
            "dead_start or off_diagonal_mass, got both: 0.1",
        ),
        ({"mixer": "go-mhc", "off_diagonal_mass": 2.0}, r"off_diagonal_mass in \(0, 1\), got 2"),
        ({"mixer": "kromhd"}, "expected a mixer out of residual, .*; got 'kromhd'"),
        ({"heads": 3}, "heads to divide width 64, got 3"),
        ({"dropout": 1.0}, "dropout in"),
        ({"layers": 0}, "layers >= 1, got 0"),
        ({"mixer": "hc", "offsets": math.nan}, "offsets >= 0 and finite, got nan"),
        ({"mixer": "hc", "offsets": -0.1}, "offsets >= 0 and finite, got -0.1"),
        ({"reduce": "max"}, "reduce as read, mean or sum; got 'max'"),
    ],
)
def test_bad_configurations(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        preset("nano", **changes)


def test_sizes_are_integers(unchecked):
    with pytest.raises(TypeError, match=r"expected layers as an integer, got 2\.0"):
        preset("nano", layers=2.0)


def test_bad_presets_and_texts():
    with pytest.raises(ValueError, match="one of nano, small, paper-30m; got 'huge'"):
        preset("huge")
    with pytest.raises(ValueError, match="up to 64 tokens, got 65"):
        nano(RESIDUAL)(torch.zeros(1, 65, dtype=torch.long))


# The report


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_report_of_a_model(mixer, corpus):
    model = nano(mixer)
    connections = list(model.connections)
    report = stream_report(model, corpus.windows)
    assert report.mixing.shape == (4, 4, 4)
    assert list(model.connections) == connections
    assert all(c.mixer is connections[0].mixer for c in connections)
    exact = connections[0].mixer.exact
    if exact:
        assert (marginal_error(report.mixing) < 1e-5).all()
        torch.testing.assert_close(report.gain_forward, torch.ones(4))
        torch.testing.assert_close(report.gain_backward, torch.ones(4))
    assert (report.effective >= 1 - 1e-5).all() and (report.effective <= 4 + 1e-5).all()
    assert (report.dominance >= 0.25 - 1e-5).all() and (report.dominance <= 1).all()
    _, loss = model(corpus.windows[:, :-1], corpus.windows[:, 1:])
    assert report.loss == pytest.approx(loss.item())
    if mixer == "identity":
        assert report.distance.max() == 0 and report.change["all as I"] == 0
        assert report.difference == pytest.approx([1.0] * 4)


def test_the_report_of_matrices_known_by_hand(corpus):
    model = nano("go-mhc")
    with torch.no_grad():
        for connection in model.connections:
            connection.bias[: connection.mixer.num_parameters] = 0.1
    report = stream_report(model, corpus.windows)
    H = model.connections[0].mixer(torch.full((28,), 0.1, dtype=torch.float64)).numpy()
    centre = np.eye(4) - 1 / 4
    for k in range(4):
        C = np.linalg.matrix_power(H, k + 1)
        assert report.mixing[k].numpy() == pytest.approx(H, abs=1e-6)
        assert report.distance[k].item() == pytest.approx(np.linalg.norm(H - np.eye(4)), abs=1e-5)
        assert report.smallest[k].item() == pytest.approx(np.linalg.svd(C)[1][-1], abs=1e-5)
        kept = np.linalg.norm(C @ centre) ** 2 / 3
        assert report.difference[k].item() == pytest.approx(kept, abs=1e-5)
    assert report.change["all as mean"] == pytest.approx(0, abs=1e-5)  # no token has its own matrix
    tokens = corpus.windows[:, :-1]
    x = model.tokens(tokens) + model.positions.weight[: tokens.shape[1]]
    X = (x[..., None, :] + model.offsets).flatten(0, 1).detach().double().numpy()
    size = np.linalg.svd(X)[1] ** 2  # eigenvalues of the Gram matrices
    effective = (size.sum(-1) ** 2 / (size**2).sum(-1)).mean()
    assert report.effective[0].item() == pytest.approx(effective, rel=1e-4)
    length = (X**2).sum(-1)
    assert report.dominance[0].item() == pytest.approx((length.max(-1) / length.sum(-1)).mean())


def test_lengths_of_streams_are_those_in_float32(corpus):
    model = nano("go-mhc")
    with torch.no_grad():
        model.tokens.weight.mul_(3000)  # squared lengths of 60² · 64, more than float16 holds
    wide = stream_report(model, corpus.windows)
    narrow = stream_report(model.half(), corpus.windows)
    assert torch.allclose(narrow.effective, wide.effective, rtol=1e-4)
    assert torch.allclose(narrow.dominance, wide.dominance, rtol=1e-4)


@pytest.mark.parametrize("reduce", ["read", "mean", "sum"])
def test_a_norm_of_every_stream(corpus, reduce):
    config = preset("nano", mixer="go-mhc", norm_streams=True, reduce=reduce)
    model = GPT(config)
    seen = []
    model.norm.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    logits, _ = model(corpus.windows[:, :-1])
    ((streams, normed),) = seen
    assert streams.shape[-2:] == (4, 64)
    weights = {"read": model.read, "mean": torch.full((4,), 0.25), "sum": torch.ones(4)}[reduce]
    weights = weights.sigmoid() if reduce == "read" else weights
    expected = torch.einsum("d,btdc->btc", weights, normed) @ model.tokens.weight.T
    torch.testing.assert_close(logits, expected)


def test_replacing_by_the_identity_gives_the_loss_of_the_identity_arm(corpus):
    model, twin = nano("go-mhc"), nano("identity")
    with torch.no_grad():
        for one, other in zip(model.connections, twin.connections, strict=True):
            one.bias[: one.mixer.num_parameters] = 0.3
            other.bias.copy_(one.bias[one.mixer.num_parameters :])
    report = stream_report(model, corpus.windows)
    _, loss = twin(corpus.windows[:, :-1], corpus.windows[:, 1:])
    assert report.loss + report.change["all as I"] == pytest.approx(loss.item(), abs=1e-6)
    assert abs(report.change["all as I"]) > 1e-6


def test_the_plain_residual_has_no_streams(corpus):
    with pytest.raises(ValueError, match="got one with a plain residual"):
        stream_report(nano(RESIDUAL), corpus.windows)

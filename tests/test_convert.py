"""Streams in stacks that are not ours: what passes through, what is kept, what is refused."""

import collections
import copy
import functools
import inspect
import pickle
import random
import threading

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from gomhc import MIXERS, HyperConnection, make_mixer, reduce_streams
from gomhc.convert import add_streams, remove_streams

C = 16
SHARDED = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this PyTorch shards on GPUs alone"
)
MOVED = 1e-8  # more than Adam makes of rounding in float64


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).movedim(-3, 0).transpose(-2, -3)
        answer = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(answer.transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """Of nanoGPT's shape."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(C), Attention()
        self.ln_2 = nn.LayerNorm(C)
        self.mlp = nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Scaled(Block):
    def forward(self, x):
        x = x + 0.5 * self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Parallel(Block):
    def forward(self, x):
        return x + self.attn(self.ln_1(x)) + self.mlp(self.ln_2(x))


class Gated(Block):
    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = x + self.gate * self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Dropping(Block):
    def forward(self, x):
        x = x + F.dropout(self.attn(self.ln_1(x)), 0.3, self.training)
        return x + self.mlp(self.ln_2(x))


class Shifting(Block):
    """Mixes a token with the one before it."""

    def forward(self, x):
        x = (x + F.pad(x, (0, 0, 1, -1))) / 2 if x.shape[1] > 1 else x
        return super().forward(x)


class Rolling(Block):
    def forward(self, x):
        return super().forward(x.roll(1, 1))


class Sized(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x)) / x.shape[1]
        return x + self.mlp(self.ln_2(x))


class Skipping(Block):
    """Leaves out a block at random, once in a million times, with one source or another."""

    draw = staticmethod(random.random)

    def forward(self, x):
        return x if self.training and self.draw() < 1e-6 else super().forward(x)


class SkippingWithNumpy(Skipping):
    draw = staticmethod(np.random.rand)


class SkippingWithTorch(Skipping):
    draw = staticmethod(lambda: torch.rand(()))


class Detached(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x.detach()))
        return x + self.mlp(self.ln_2(x))


class Rerunning(Block):
    reentrant = False

    def forward(self, x):
        x = x + checkpoint(self.attn, self.ln_1(x), use_reentrant=self.reentrant)
        return x + self.mlp(self.ln_2(x))


class RerunningByItself(Rerunning):
    reentrant = True


class Defaulted(Block):
    def forward(self, x, mask=None):
        mask = "causal" if mask is None else mask
        x = x + self.attn(self.ln_1(x), mask=mask)
        return x + self.mlp(self.ln_2(x))


class Masked(Attention):
    def forward(self, x, mask=None):
        return super().forward(x)


class Cached(nn.Module):
    """A block with a keyword and a second output."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, hidden, shift=None, *, scale=1.0):
        inside = self.linear(self.norm(hidden)) * scale
        inside = inside if shift is None else inside + shift
        return hidden + inside.tanh(), inside


class Residual(nn.Linear):
    """A block with weights of its own."""

    def __init__(self):
        super().__init__(C, C)

    def forward(self, x):
        return x + super().forward(x)


class Network(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.inside, self.blocks = nn.Linear(C, C), nn.ModuleList(blocks)
        self.head = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 5))

    def forward(self, x, **options):
        x, others = self.inside(x), []
        for block in self.blocks:
            x = block(x, **options)
            if isinstance(x, tuple):
                x, other = x
                others.append(other)
        return (self.head(x), others) if others else self.head(x)


class Leaving(Network):
    """May begin after the first block, or stop before the last."""

    least, most = 0, 3

    def forward(self, x):
        x = self.inside(x)
        for block in self.blocks[self.least : self.most]:
            x = block(x)
        return x.mean(1)


def network(kind=Block, count=3):
    return Network(*(kind() for _ in range(count)))


def tokens(batch=(2, 6)):
    return torch.randn(*batch, C)


def whole(model, mixer="go-mhc", **options):
    return add_streams(model, mixer, stack="blocks", whole_blocks=True, dim=C, **options)


def connections(model):
    return [module for module in model.modules() if isinstance(module, HyperConnection)]


def snapshot(model):
    return [
        (name, type(module), set(vars(module)), set(module._modules))
        for name, module in model.named_modules()
    ]


def train(model, x, steps=4, seed=0):
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    target, losses = torch.randn(*x.shape[:-1], 5), []
    for _ in range(steps):
        answer = model(x)
        loss = F.mse_loss(answer[0] if isinstance(answer, tuple) else answer, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# The start


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_a_converted_model_computes_what_it_did(convert, name, dtype):
    model, x = network().to(dtype), tokens().to(dtype)
    before = model(x)
    convert(model, name)
    within = 2e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(model(x), before, rtol=0, atol=within)


def dtypes(model):
    """Of b and α of the connections by name, and of all other weights together."""
    return {
        key
        if ".hyper_connections." in name and (key := name.split(".")[-1]) != "weight"
        else "": weight.dtype
        for name, weight in model.named_parameters()
    }


def test_in_bfloat16_the_start_is_kept_to_its_precision():
    model, x = network().bfloat16(), tokens().bfloat16()
    before = model(x)
    add_streams(model, "go-mhc")
    assert dtypes(model) == {"bias": torch.float32, "alpha": torch.float32, "": torch.bfloat16}
    torch.testing.assert_close(model(x), before, rtol=0, atol=0.05)


class WideNorm(nn.LayerNorm):
    """In float32, whatever the rest is in."""

    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_streams_have_the_dtype_of_the_matrices_of_a_block(convert):
    model, x = network().bfloat16(), tokens().bfloat16()
    for block in model.blocks:
        block.ln_1, block.ln_2 = WideNorm(C), WideNorm(C)
    before = model(x)
    convert(model, "go-mhc")
    assert {connection.weight.dtype for connection in connections(model)} == {torch.bfloat16}
    torch.testing.assert_close(model(x), before, rtol=0, atol=0.05)


def test_the_report_says_what_was_done():
    model = network()
    had = sum(weight.numel() for weight in model.parameters())
    report = add_streams(model, "go-mhc", d=4, s=2)
    added = sum(weight.numel() for weight in model.parameters()) - had
    assert report.parameters == added == 6 * ((4 * C + 1) * 28 + 2 * 16 * C + 2 * 4 + 3)
    assert report.places[:3] == ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn")
    assert str(report) == f"6 connections in blocks (go-mhc, 4 streams), {added:,} parameters"
    assert len(connections(model)) == 6
    assert [c.mixer.d for c in connections(model)] == [4] * 6


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_the_report_does_not_count_what_is_frozen(convert):
    model, x = network(), tokens()
    report = convert(model, "go-mhc", frozen=True)
    new = [weight for c in connections(model) for weight in c.parameters()]
    with torch.no_grad():  # a gradient in every place but those of the frozen
        for weight in new:
            weight.add_(0.1 * torch.randn_like(weight))
    model.double()(x.double()).square().sum().backward()
    assert report.parameters == sum(int(weight.grad.count_nonzero()) for weight in new)


@pytest.mark.parametrize("options", [{}, {"whole_blocks": True, "dim": C}])
def test_the_report_names_blocks_as_their_stack_does(options):
    blocks = collections.OrderedDict((f"layer_{index}", Block()) for index in range(2))
    model = nn.ModuleDict({"blocks": nn.Sequential(blocks)})
    report = add_streams(model, "go-mhc", stack="blocks", **options)
    assert report.places[0] == ("blocks.layer_0" if options else "blocks.layer_0.attn")
    for place in report.places:
        model.get_submodule(place)
    blocks = nn.Sequential(collections.OrderedDict(first=Block(), last=Scaled()))
    with pytest.raises(ValueError, match=r"last \(Scaled\) does not add"):
        add_streams(blocks, "go-mhc", stack="")


def test_old_weights_keep_their_names_and_stay_the_same_tensors():
    model = network()
    old = dict(model.named_parameters())
    add_streams(model, "mhc")
    new = dict(model.named_parameters())
    assert old.items() <= new.items()
    assert all(".hyper_connections." in name for name in new.keys() - old.keys())


@pytest.mark.parametrize("training", [True, False])
def test_new_modules_are_in_the_mode_of_the_old(training):
    model = network().train(training)
    add_streams(model, "mhc")
    assert {module.training for module in model.modules()} == {training}


def test_connections_prefer_streams_by_turns():
    model = network()
    add_streams(model, "identity", d=4)
    assert [int(c.bias[4:].argmax()) for c in connections(model)] == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
@pytest.mark.parametrize("name", MIXERS)
def test_training_moves_every_part_and_lowers_the_loss(convert, name):
    model, x = network().double(), tokens().double()
    convert(model, name)
    starts = copy.deepcopy([(c.weight, c.bias) for c in connections(model)])
    losses = train(model, x)
    assert losses[-1] < losses[0]
    # θ of the first meets copies, and that of the last moves only what the mean forgets.
    for index, (connection, (weight, bias)) in enumerate(
        zip(connections(model), starts, strict=True)
    ):
        g = connection.mixer.num_parameters
        rows, entries = (connection.weight - weight).abs().amax(1), (connection.bias - bias).abs()
        normed = 4 * (index == 0)  # b_pre of the first scales copies before a norm
        assert rows[g:].min() > MOVED
        assert entries[g + normed :].min() > MOVED
        if 0 < index < len(starts) - 1:
            every = torch.any if name == "transport" else torch.all  # it has flat places
            assert every(rows[:g] > MOVED)
            assert every(entries[:g] > MOVED)


# What passes through


def test_arguments_and_other_outputs_of_whole_blocks_pass_through():
    model, x, shift = network(Cached), tokens(), torch.randn(C)
    before, others = model(x, shift=shift, scale=2.0)
    whole(model)
    after, same = model(x, shift=shift, scale=2.0)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-6)
    assert len(same) == 3
    torch.testing.assert_close(same, others, rtol=0, atol=2e-6)
    by_name = model.blocks[0](hidden=x, shift=shift)
    by_place = model.blocks[0](x, shift)
    torch.testing.assert_close(by_name, by_place)
    with pytest.raises(TypeError, match="unexpected keyword"):
        model(x, colour=3)


def test_a_sequential_and_a_stack_of_one_and_the_model_itself():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(C, C), nn.Tanh()) for _ in range(3)))
    x = tokens()
    before = net(x)
    report = add_streams(net, "transport", d=3, stack=net, whole_blocks=True, dim=C)
    assert report.places == ("0", "1", "2")
    torch.testing.assert_close(net(x), before, rtol=0, atol=2e-6)
    one = network(count=1)
    before = one(x)
    add_streams(one, "go-mhc")
    torch.testing.assert_close(one(x), before, rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_s_own_encoder(norm_first):
    layer = nn.TransformerEncoderLayer(C, 2, 32, 0.0, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    x, padded = tokens(), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    before = model(x, src_key_padding_mask=padded)
    add_streams(model, "go-mhc", stack=model.layers, whole_blocks=True, dim=C)
    after = model(x, src_key_padding_mask=padded)
    torch.testing.assert_close(after, before, rtol=0, atol=5e-6)
    assert not torch.allclose(model(x), after)


class Overwriting(nn.Module):
    """Writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(C, C)

    def forward(self, x):
        return x + self.linear(torch.relu_(x))


class Adding(Overwriting):
    def forward(self, x):
        x += self.linear(x)
        return x


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", [Overwriting, Adding])
def test_blocks_may_write_into_their_input(kind, mode):
    model, x = network(kind), tokens()
    with torch.no_grad():
        before = model(x)
    whole(model)
    with mode():
        torch.testing.assert_close(model(x), before, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_an_encoder_of_nested_tensors_says_what_to_do():
    layer = nn.TransformerEncoderLayer(C, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3).eval()
    options = {"stack": "layers", "whole_blocks": True, "dim": C}
    with pytest.raises(ValueError, match="no nested tensors.*use_nested_tensor to False"):
        add_streams(encoder, "go-mhc", **options)
    x, padded = tokens(), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    encoder.use_nested_tensor = False
    with torch.no_grad():
        before = encoder(x, src_key_padding_mask=padded)
        add_streams(encoder, "go-mhc", **options)
        after = encoder(x, src_key_padding_mask=padded)
        torch.testing.assert_close(after, before, rtol=0, atol=5e-6)
        encoder.use_nested_tensor = True
        with pytest.raises(ValueError, match="a dense stream .*got a nested tensor"):
            encoder(x, src_key_padding_mask=padded)


def test_a_sequential_block_has_the_length_and_the_parts_that_it_had():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(C, C), nn.Tanh()) for _ in range(3)))
    parts, x = list(net[0]), tokens()
    add_streams(net, "go-mhc", stack="", whole_blocks=True, dim=C)
    block = net[0]
    assert (len(block), list(block), block[-1], block[0]) == (2, parts, parts[1], parts[0])
    assert list(block[1:]) == parts[1:]
    for each in net:
        each.append(nn.Linear(C, C))
        assert len(each) == 3 and list(each.state_dict())[-1] == "2.bias"
    expected = x
    for each in net:
        expected = each[:](expected)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)


class Listed(nn.ModuleList):
    """A block that runs over itself."""

    def __init__(self, children=None):
        super().__init__(children or [nn.LayerNorm(C), nn.Linear(C, C)])

    def forward(self, x):
        inside = x
        for child in self:
            inside = child(inside)
        return x + (inside + self[-1](x) + self[1:][0](x)) / len(self)


class Named(nn.Module):
    """With names that we might want too."""

    def __init__(self):
        super().__init__()
        self.plain, self.known = nn.Linear(C, C), nn.LayerNorm(C)

    def forward(self, x):
        return x + self.plain(self.known(x))


@pytest.mark.parametrize("kind", [Listed, Named])
def test_a_block_keeps_its_children_to_itself(kind):
    model, x = network(kind), tokens()
    before = model(x)
    whole(model)
    for each in (model, copy.deepcopy(model)):
        torch.testing.assert_close(each(x), before, rtol=0, atol=2e-6)
    remove_streams(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=2e-6)


def test_a_block_that_runs_over_all_its_children():
    class Running(Block):
        def forward(self, x):
            for child in self.children():
                x = child(x)
            return x

    model = network(Running)
    whole(model)
    with pytest.raises(ValueError, match="it runs all that it has, and its hyper_connections"):
        model(tokens())


Answer = collections.namedtuple("Answer", "hidden other")


def test_a_named_tuple_stays_one():
    class Tupled(Block):
        def forward(self, x):
            return Answer(super().forward(x), x.sum())

    class Reading(Network):
        def forward(self, x):
            for block in self.blocks:
                answer = block(x)
                x = answer.hidden
            return x, answer

    model, x = Reading(*(Tupled() for _ in range(3))), tokens()
    before, _ = model(x)
    whole(model)
    after, answer = model(x)
    assert type(answer) is Answer
    torch.testing.assert_close(after, before, rtol=0, atol=2e-6)


class Sequence(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(C, C), nn.Tanh())


@pytest.mark.parametrize("kind", [Block, Sequence])
def test_a_model_with_streams_can_be_exported(kind):
    model, x = network(kind), tokens()
    whole(model)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_a_call_that_leaves_out_the_last_block_is_seen(convert):
    model, x = Leaving(*(Block() for _ in range(3))), tokens()
    convert(model, "go-mhc")
    assert model(x).shape == (2, C)
    for model.most in (1, 2):
        for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            with pytest.raises(
                ValueError, match="Leaving to run its stack .* it left out the last"
            ):
                each(x)
    model.most = 0  # the stack is not used at all
    assert model(x).shape == (2, C)
    model.blocks[0](model.inside(x))  # a block by itself
    assert model(x).shape == (2, C)
    model.most = 3
    remove_streams(model)
    model.most = 1
    assert model(x).shape == (2, C)
    assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_a_call_that_leaves_out_the_first_block_is_seen(convert):
    model, x = Leaving(*(Block() for _ in range(3))), tokens((2, 4))  # as many as streams
    convert(model, "go-mhc", d=4)
    for model.least in (1, 2):
        with pytest.raises(ValueError, match="Leaving to run its stack .* it left out the first"):
            model(x)
    model.least = 3  # the stack is not used at all
    assert model(x).shape == (2, C)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_a_model_with_streams_compiles_without_a_graph_break(convert, unchecked):
    model, x = network(), tokens()
    convert(model, "go-mhc")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    answers = [compiled(x), compiled(x)]
    for answer in answers:
        torch.testing.assert_close(answer, model(x))


def test_two_threads_may_share_a_model():
    model, x = network(), tokens()
    whole(model)
    expected = model(x)
    inside, done = threading.Event(), threading.Event()

    def pause(block, arguments):
        if threading.current_thread() is second:
            inside.set()
            done.wait(60)

    def begin_second(block, arguments, answer):
        if threading.current_thread() is not second:
            second.start()
            assert inside.wait(60)

    answers = []
    second = threading.Thread(target=lambda: answers.append(model(x)))
    model.blocks[1].register_forward_pre_hook(pause)
    model.blocks[-1].register_forward_hook(begin_second)
    try:
        answers.append(model(x))
    finally:
        done.set()
        second.join()
    for answer in answers:
        torch.testing.assert_close(answer, expected)
    assert len(answers) == 2


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_frozen_streams_start_the_same_and_keep_their_mixing(convert):
    model, x = network(), tokens()
    before = model(x)
    convert(model, "go-mhc", frozen=True)
    assert all(connection.frozen for connection in connections(model))
    torch.testing.assert_close(model(x), before, rtol=0, atol=2e-6)
    starts = [c.bias.detach().clone() for c in connections(model)]
    train(model, x)
    for connection, start in zip(connections(model), starts, strict=True):
        g = connection.mixer.num_parameters
        assert torch.equal(connection.bias[:g], start[:g])
        assert not torch.equal(connection.bias[g:], start[g:])


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_hooks_go_on_working(convert):
    model, x = network(), tokens()
    seen = {"block": [], "mlp": []}
    model.blocks[1].register_forward_hook(lambda m, a, out: seen["block"].append(out))
    model.blocks[1].mlp.register_forward_hook(lambda m, a, out: seen["mlp"].append(out))
    model(x)
    convert(model, "go-mhc")
    model(x)
    (plain, streams), (old, new) = seen["block"], seen["mlp"]
    assert streams.shape == (2, 6, 4, C)
    torch.testing.assert_close(reduce_streams(streams), plain, rtol=0, atol=2e-6)
    torch.testing.assert_close(new, old, rtol=0, atol=2e-6)


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_activation_checkpointing(convert):
    model, x = network(), tokens()
    convert(model, "go-mhc")
    calls = []
    model.blocks[1].mlp.register_forward_hook(lambda m, a, out: calls.append(1))
    model(x).square().mean().backward()
    plain = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    assert len(calls) == 1
    stream = model.inside(x)
    for block in model.blocks:
        stream = checkpoint(block, stream, use_reentrant=False)
    model.head(stream).square().mean().backward()
    assert len(calls) == 3
    torch.testing.assert_close([weight.grad for weight in model.parameters()], plain)


@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_copies_have_weights_of_their_own(convert):
    model, x = network(), tokens()
    convert(model, "mhc-lite")
    ema, twin, again = AveragedModel(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    before = model(x)
    assert type(twin.blocks[0]) is type(model.blocks[0])
    train(model, x)
    for other in (ema, twin, again):
        torch.testing.assert_close(other(x), before)
    assert not torch.allclose(model(x), before)
    ema.update_parameters(model)
    ema.update_parameters(model)
    assert not torch.allclose(ema(x), before)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_copies_of_compiled_blocks_have_weights_of_their_own(convert, unchecked):
    model, x = network(), tokens()
    convert(model, "go-mhc")
    for block in model.blocks:
        block.compile(backend="eager")
    before = model(x)
    others = AveragedModel(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    train(model, x)
    for other in others:
        torch.testing.assert_close(other(x), before)


class Locked(Block):
    """Cannot be copied but by its own means."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __getstate__(self):
        return {**super().__getstate__(), "lock": None}


def test_copies_are_made_of_a_block_s_own_state():
    model, x = network(Locked), tokens()
    add_streams(model, "go-mhc")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.blocks[0].lock is None
        torch.testing.assert_close(other(x), model(x))


def test_a_state_dict_goes_from_one_converted_model_to_another():
    model, other, x = network(), network(), tokens()
    for each in (model, other):
        add_streams(each, "kromhc")
    train(model, x)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(x), model(x))


# Out again


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_streams_come_out_where_the_gates_are_as_they_were(convert, name):
    model, x = network(), tokens()
    plain = snapshot(model)
    convert(model, name)
    with torch.no_grad():  # what the blocks learn does not matter
        for weight in model.blocks[1].mlp.parameters():
            weight.add_(0.1)
    after = model(x)
    remove_streams(model)
    assert snapshot(model) == plain
    torch.testing.assert_close(model(x), after, rtol=0, atol=2e-6)
    convert(model, name)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in ("identity",)])
def test_theta_alone_may_have_moved_for_what_is_doubly_stochastic(name):
    model, x = network(), tokens()
    add_streams(model, name)
    exact = connections(model)[0].mixer.exact
    with torch.no_grad():
        for connection in connections(model):
            g = connection.mixer.num_parameters
            connection.bias[:g] += 0.3 * torch.randn(g)
            connection.weight[:g] = torch.randn_like(connection.weight[:g])
    before, plain = model(x), snapshot(model)
    if exact:
        remove_streams(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=5e-6)
    else:
        with pytest.raises(ValueError, match="blocks.0.hyper_connections.0 mixes the streams"):
            remove_streams(model)
        assert snapshot(model) == plain
        torch.testing.assert_close(model(x), before, rtol=0, atol=0)


def test_a_matrix_that_a_token_chooses_does_not_come_out():
    model = network()
    add_streams(model, "hc")
    with torch.no_grad():
        connections(model)[3].weight[0] = 0.1
    with pytest.raises(ValueError, match="blocks.1.hyper_connections.1 mixes the streams"):
        remove_streams(model)


@pytest.mark.parametrize(
    "part, words",
    [("W_pre", "reads"), ("b_pre", "reads"), ("W_post", "writes"), ("b_post", "writes")],
)
def test_streams_stay_where_the_gates_have_moved(part, words):
    model = network()
    add_streams(model, "go-mhc")
    moved = connections(model)[3]
    tensor = moved.weight if part[0] == "W" else moved.bias
    d, g = 4, moved.mixer.num_parameters
    first = g if part.endswith("pre") else g + d
    with torch.no_grad():
        tensor[first : first + d] -= 0.01
    plain = snapshot(model)
    with pytest.raises(ValueError, match=f"blocks.1.hyper_connections.1 {words}.*something else"):
        remove_streams(model)
    assert snapshot(model) == plain


@pytest.mark.parametrize("part", ["weight", "bias", "alpha"])
@pytest.mark.parametrize("index", [0, -1])
@pytest.mark.parametrize("mixer", ["go-mhc", "hc"])
def test_what_is_not_finite_is_no_plain_residual(mixer, part, index):
    model = network()
    add_streams(model, mixer)
    with torch.no_grad():
        getattr(connections(model)[3], part)[index] = torch.nan
    with pytest.raises(ValueError, match="blocks.1.hyper_connections.1 has weights that are not"):
        remove_streams(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own modules
def test_a_connection_with_something_around_it():
    model = network()
    add_streams(model, "go-mhc")
    own = model.blocks[1].hyper_connections
    own[0] = torch.compile(own[0], backend="eager")
    plain = snapshot(model)
    with pytest.raises(ValueError, match="as blocks.1.hyper_connections.0, got OptimizedModule"):
        remove_streams(model)
    assert snapshot(model) == plain


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("d", range(2, 9))
def test_streams_come_out_in_double_precision_for_any_d(d, late):
    model, x = network(), tokens().double()
    model = model if late else model.double()
    add_streams(model, "go-mhc", d=d)
    before = model.double()(x)
    remove_streams(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)


def test_a_part_of_a_stack_does_not_come_out_alone():
    model, x = network(), tokens()
    add_streams(model, "go-mhc")
    before, plain = model(x), snapshot(model)
    for part in (*model.blocks, model.blocks[:2]):
        with pytest.raises(ValueError, match="all 3 blocks of the stack 'blocks', got some"):
            remove_streams(part)
    assert snapshot(model) == plain
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    remove_streams(model.blocks)


def hooked(block):
    block.forward = functools.partial(type(block).forward, block)  # as accelerate does


def parametrized(block):
    block.scale = nn.Parameter(torch.ones(2, 2))
    weight_norm(block, "scale")


@pytest.mark.parametrize("change", [hooked, parametrized])
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_blocks_that_were_changed_since_keep_their_streams(convert, change):
    model, x = network(), tokens()
    convert(model, "go-mhc")
    change(model.blocks[1])
    before, plain = model(x), snapshot(model)
    with pytest.raises(ValueError, match="blocks.1 got another forward or class since"):
        remove_streams(model)
    assert snapshot(model) == plain
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


def test_two_models_side_by_side_lose_their_streams_together():
    both, x = nn.ModuleList([network(), network()]), tokens()
    for model in both:
        add_streams(model, "go-mhc")
    before = [model(x) for model in both]
    remove_streams(both)
    torch.testing.assert_close([model(x) for model in both], before, rtol=0, atol=5e-6)


def test_training_moves_the_gates():
    model = network()
    add_streams(model, "go-mhc")
    train(model, tokens())
    with pytest.raises(ValueError, match="plain residuals"):
        remove_streams(model)


# What is refused, with nothing changed


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(C, C // 2)

    def forward(self, x):
        return self.linear(x)


def twice():
    block = Block()
    return Network(block, block)


def patched():
    model = network()
    model.blocks[2].forward = model.blocks[2].forward
    return model


def normed():
    model = Network(*(Residual() for _ in range(3)))
    weight_norm(model.blocks[1])
    return model


def converted():
    model = network()
    add_streams(model, "go-mhc")
    return model


def defaulted():
    model = network(Defaulted)
    for block in model.blocks:
        block.attn = Masked()
    return model


def mixed():
    return Network(Block(), Scaled())


BRANCHES = {"stack": "blocks"}
BLOCKS = {"stack": "blocks", "whole_blocks": True, "dim": C}


@pytest.mark.parametrize(
    "model, options, words",
    [
        (network, {"mixer": "go_mhc"}, "did you mean go-mhc"),
        (network, {"d": 0}, "number of streams d >= 2, got 0"),
        (network, {"d": 1}, "d >= 2"),
        (network, {"mixer": "kron-go", "d": 3}, "kron-go"),
        (network, {"s": 0}, ">= 1"),
        (network, {"stack": "layers"}, "a stack of Network, which has no 'layers'"),
        (network, {"dim": C}, "dim, the C"),
        (network, {"stack": "blocks", "whole_blocks": True}, "dim, the C"),
        (network, {**BLOCKS, "dim": 0}, "dim >= 1"),
        (mixed, BRANCHES, r"blocks.1 \(Scaled\) does not add its branches"),
        (lambda: network(Parallel), {}, r"blocks.0 \(Parallel\) does not add its branches"),
        (lambda: network(Gated), {}, r"blocks.0 \(Gated\) has weights beside those, gate"),
        (lambda: network(Dropping).eval(), {}, r"\(Dropping\) draws random numbers"),
        (lambda: network(Shifting), {}, r"\(Shifting\) does not add its branches"),
        (lambda: network(Rolling), {}, r"\(Rolling\) does not add its branches"),
        (lambda: network(Sized), {}, r"\(Sized\) does not add its branches"),
        (lambda: network(Skipping), {}, r"\(Skipping\) draws random numbers"),
        (lambda: network(SkippingWithNumpy), {}, r"\(SkippingWithNumpy\) draws random numbers"),
        (lambda: network(SkippingWithTorch), {}, r"\(SkippingWithTorch\) draws random numbers"),
        (lambda: network(Detached), {}, r"\(Detached\) does not pass on the gradient"),
        (lambda: network(Rerunning), {}, r"\(Rerunning\) runs its branches again"),
        (lambda: network(RerunningByItself), {}, "runs its branches again"),
        (defaulted, {}, r"\(Defaulted\) hands its attention or MLP other arguments"),
        (lambda: network(Defaulted), {}, r"forward that cannot be followed \(TypeError: .*mask"),
        (lambda: network(Cached), {}, "ln_1, attn, ln_2, mlp .*; Network has none.*whole_blocks"),
        (lambda: network(Cached), BRANCHES, r"blocks.0 \(Cached\) has linear, norm. whole_blocks"),
        (lambda: Network(Block(), Narrow()), BLOCKS, r"blocks.1 \(Narrow\) returned \(2, 3, 8\)"),
        (lambda: network(count=0), BRANCHES, "blocks in the stack 'blocks', got none"),
        (twice, BRANCHES, "each block of 'blocks' once"),
        (patched, BRANCHES, r"blocks.2 \(Block\) with the forward of its class"),
        (normed, BLOCKS, r"blocks.1 \(ParametrizedResidual\) without parametrizations"),
        (converted, {}, "it already has some"),
        (converted, BRANCHES, "blocks.0 already has some"),
        (converted, BLOCKS, "blocks.0 already has some"),
        (lambda: nn.ModuleList([network(), network()]), {}, "several: 0.blocks, 1.blocks"),
    ],
)
def test_what_cannot_be_converted_is_named_and_left_as_it_is(model, options, words):
    model = model()
    before, names = snapshot(model), list(model.state_dict())
    with pytest.raises(ValueError, match=words):
        add_streams(model, **{"mixer": "go-mhc", **options})
    assert snapshot(model) == before
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    "model, options, words",
    [
        (network, {"stack": "head.0"}, "ModuleList or Sequential as the stack, got LayerNorm"),
        (network, {"d": 2.0}, "number of streams d as an integer"),
        (network, {"iterations": 3}, "options s, factors; got iterations"),
        (network, {"s": 2, "iterations": 3}, "options s, factors; got iterations$"),
        (network, {"s": 2, "whole_block": True}, "no option whole_block; did you mean whole_bl"),
        (network, {"off_diagonal": 0.1}, "did you mean off_diagonal_mass"),
    ],
)
def test_wrong_kinds_are_named(model, options, words):
    model = model()
    before = snapshot(model)
    with pytest.raises(TypeError, match=words):
        add_streams(model, **{"mixer": "go-mhc", **options})
    assert snapshot(model) == before


@pytest.fixture
def process():
    """The only one of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def in_ddp():
    return DistributedDataParallel(network())


def around_ddp():
    return nn.Sequential(in_ddp(), nn.Linear(5, 5))


def in_fsdp():
    model = network()
    for block in model.blocks:
        fully_shard(block, mesh=init_device_mesh("cpu", (1,)))
    return model


def in_parts():
    """Without FSDP, as tensor parallelism has it."""
    model, mesh = network(), init_device_mesh("cpu", (1,))
    for block in model.blocks:
        block.mlp[0].weight = nn.Parameter(distribute_tensor(block.mlp[0].weight.detach(), mesh))
    return model


@pytest.mark.parametrize(
    "model, words",
    [
        (in_ddp, "but it is a DistributedDataParallel; add streams first"),
        (around_ddp, "but 0 is a DistributedDataParallel"),
        pytest.param(in_fsdp, "but blocks.0 is a FSDPModule", marks=SHARDED),
        (in_parts, "but blocks.0.mlp.0 is sharded"),
    ],
)
@pytest.mark.parametrize("convert", [add_streams, whole], ids=["branches", "blocks"])
def test_a_model_that_processes_share_already(convert, model, words, process):
    model = model()
    before, stack = snapshot(model), next(m for m in model.modules() if type(m) is nn.ModuleList)
    options = {"whole_blocks": True, "dim": C} if convert is whole else {}
    with pytest.raises(ValueError, match=words):
        add_streams(model, "go-mhc", stack=stack, **options)
    assert snapshot(model) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_blocks_are_proven_where_gradients_are_off(mode):
    with mode():
        add_streams(network(), "go-mhc")
        with pytest.raises(ValueError, match="does not pass on the gradient"):
            add_streams(network(Detached), "go-mhc")


def test_a_stream_that_dim_does_not_fit():
    net = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    add_streams(net, "go-mhc", stack="", whole_blocks=True, dim=C)
    with pytest.raises(ValueError, match=r"a stream \(..., 16\), as dim says, got \(2, 6, 32\)"):
        net(torch.randn(2, 6, 32))


def test_a_block_called_without_a_stream_that_is_known_by_name():
    class Open(Overwriting):
        def forward(self, *arguments, **options):
            return self.linear(*arguments)

    model = network(Open)
    whole(model)
    with pytest.raises(TypeError, match="the stream as the first argument of Open, got none"):
        model.blocks[0](hidden=tokens())


def test_a_mixer_in_the_place_of_its_name(unchecked):
    with pytest.raises(TypeError, match="the name of a mixer, got Orthostochastic"):
        add_streams(network(), make_mixer("go-mhc", 4))


@pytest.mark.parametrize("flag", ["frozen", "whole_blocks"])
def test_a_flag_that_is_none(flag, unchecked):
    with pytest.raises(TypeError, match=f"{flag} as True or False, got 'no'"):
        add_streams(network(), "go-mhc", **{flag: "no"})


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_options_of_a_mixer_are_not_taken_for_misspelt_ones(mixer):
    own = {*inspect.signature(MIXERS[mixer]).parameters, "factors"} - {"d"}
    values = {"iterations": 5, "eps": 0.0, "s": 1, "factors": (2, 2)}
    add_streams(network(), mixer, **{option: values[option] for option in own})


def test_what_is_no_model(unchecked):
    with pytest.raises(TypeError, match="a model to convert, got list"):
        add_streams([], "go-mhc")
    with pytest.raises(TypeError, match="a model with streams, got str"):
        remove_streams("model")
    with pytest.raises(ValueError, match="one that it has not"):
        add_streams(network(), "go-mhc", stack=network().blocks)
    with pytest.raises(ValueError, match="got Network without any"):
        remove_streams(network())


def test_a_block_whose_shape_only_the_call_tells():
    class Late(Narrow):
        def forward(self, x, sign):
            return super().forward(x) if x.sum().item() else x

    model = network(Late)
    whole(model)
    with pytest.raises(ValueError, match=r"Late to return a stream \(2, 6, 16\), got \(2, 6, 8\)"):
        model(tokens(), sign=1)


def test_looking_at_blocks_changes_neither_them_nor_the_random_numbers():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.calls = nn.Dropout(), 0

        def forward(self, x):
            self.calls += 1
            return self.drop(x)

    model, seen = network(Counting), []
    model.blocks[0].drop.register_forward_hook(lambda m, a, out: seen.append(out))
    state = torch.get_rng_state()
    whole(model, "mhc")
    assert torch.equal(torch.get_rng_state(), state)
    assert [block.calls for block in model.blocks] == [0, 0, 0]
    assert seen == []

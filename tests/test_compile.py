"""torch.compile, in a process of its own: it cannot trace the shape checks of the other tests."""

import subprocess
import sys

import pytest
import torch

from gomhc import MIXERS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

CASES = [
    *[(name, "aot_eager") for name in ("identity", "hc", "mhc", "mhc-lite", "kromhc", "kron-go")],
    ("go-mhc", "inductor"),
]
SCRIPT = """
import sys, torch, gomhc
device, *cases = sys.argv[1:]
for case in cases:
    name, backend = case.split(":")
    mixer = gomhc.make_mixer(name, 4)
    theta = torch.randn(5, 3, mixer.num_parameters, generator=torch.Generator().manual_seed(1))
    theta = theta.to(device).requires_grad_()
    compiled = torch.compile(mixer, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(theta), mixer(theta))
    dynamic = torch.compile(mixer, fullgraph=True, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(dynamic(theta), mixer(theta))
    assert gomhc.marginal_error(compiled(theta)).max() < 1e-5 or not mixer.exact
    if mixer.num_parameters:
        (expected,) = torch.autograd.grad(mixer(theta).square().sum(), theta)
        (found,) = torch.autograd.grad(compiled(theta).square().sum(), theta)
        torch.testing.assert_close(found, expected)
    torch._dynamo.reset()
    print(name)
"""


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_a_graph_break(device):
    command = [sys.executable, "-c", SCRIPT, device, *map(":".join, CASES)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.split() == [name for name, _ in CASES], result.stderr[-3000:]


TRANSFORMS = """
import torch, gomhc
for name in ("go-mhc", "mhc", "mhc-lite", "kron-go"):
    for backend in ("auto", "reference"):
        mixer = gomhc.make_mixer(name, 4, backend=backend)
        theta, change = (torch.randn(300, mixer.num_parameters) for _ in range(2))
        calls = {
            "jvp": lambda x: torch.func.jvp(mixer, (x,), (change,))[1],
            "vmap": torch.func.vmap(mixer),
            "grad": torch.func.grad(lambda x: mixer(x).square().sum()),
        }
        for kind, call in calls.items():
            torch._dynamo.reset()
            try:
                values = torch.compile(call, backend="eager")(theta)
            except RuntimeError as error:
                assert kind == "grad" and "autograd.Function with f" in str(error), (name, kind)
            else:
                torch.testing.assert_close(values, call(theta))
print("the same")
"""


def test_transforms_of_torch_func_are_right_or_refused():
    """PyTorch refuses operators of one's own below `torch.func.grad`; the rest must be right."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRANSFORMS], capture_output=True, text=True
    )
    assert result.stdout == "the same\n", result.stderr[-3000:]


MODEL = """
import sys, torch
from gomhc import MIXERS
from gomhc.lm.model import GPT, preset
tokens = torch.randint(460, (2, 8), generator=torch.Generator().manual_seed(1)).to(sys.argv[1])
for mixer in ["residual", *MIXERS]:
    model = GPT(preset("nano", mixer=mixer, layers=1)).to(sys.argv[1])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss, expected = compiled(tokens, tokens)[1], model(tokens, tokens)[1]
    torch.testing.assert_close(loss, expected)
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, weights)
    for gradient, other in zip(found, torch.autograd.grad(expected, weights)):
        torch.testing.assert_close(gradient, other)
    torch._dynamo.reset()
print("compiled")
"""


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_compiles_without_a_graph_break(device):
    command = [sys.executable, "-c", MODEL, device]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "compiled\n", result.stderr


LAYER = """
import sys, torch
from gomhc import HyperConnection, make_mixer
device, backend = sys.argv[1:]
draw = torch.Generator().manual_seed(1)
X, slope = (torch.randn(4096, 4, 16, generator=draw).to(device) for _ in range(2))
X.requires_grad_()
for name in ("identity", "mhc", "go-mhc"):
    module = HyperConnection(16, torch.nn.Tanh(), make_mixer(name, 4), generator=draw)
    with torch.no_grad():
        module.weight.normal_(std=0.1, generator=draw)
    module.to(device)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    trained = [X, *module.parameters()]
    ours, theirs = (
        [out, *torch.autograd.grad(out, trained, slope)] for out in (compiled(X), module(X))
    )
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
    print(name)
"""


@pytest.mark.parametrize("device", DEVICES)
def test_a_layer_of_many_tokens_compiles_without_a_graph_break(device):
    command = [sys.executable, "-c", LAYER, device, "inductor" if device == "cuda" else "aot_eager"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.split() == ["identity", "mhc", "go-mhc"], result.stderr[-3000:]


GRAPHS = """
import sys, torch, gomhc
from torch import nn
from gomhc.lm.model import GPT, preset

graphs = []
TOKENS = [1, 2, 3, 5, 8, 13, 30, 77, 150, 255, 256, 257, 300, 500, 900, 1500, 1999, 2000]

def count(module, inputs):
    graphs.clear()
    torch._dynamo.reset()
    backend = lambda graph, inputs: graphs.append(graph) or graph
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for x in inputs:
        compiled(x)
    return len(graphs)

for name in gomhc.MIXERS:
    mixer = gomhc.make_mixer(name, 4)
    print(name, count(mixer, [torch.randn(k, mixer.num_parameters) for k in TOKENS]))
    layer = gomhc.HyperConnection(8, nn.Linear(8, 8), mixer)
    print("layer", count(layer, [torch.randn(k, 4, 8) for k in TOKENS]))
model = GPT(preset("nano", mixer="go-mhc", layers=1, block=2000))
print("GPT", count(model, [torch.randint(460, (1, k)) for k in TOKENS]))
nodes = []
for iterations in (2, 20):
    mixer = gomhc.make_mixer("mhc", 4, iterations=iterations, backend="reference")
    count(mixer, [torch.randn(3, 16)])
    nodes.append(len(graphs[0].graph.nodes))
print("nodes", nodes[1] - nodes[0])
"""


def test_one_graph_does_for_any_number_of_tokens():
    """And one for a single token, as torch.compile has it. Sinkhorn's steps are not unrolled."""
    result = subprocess.run(
        [sys.executable, "-c", GRAPHS], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == 2 * len(MIXERS) + 2
    assert all(int(graphs) <= 2 for _, graphs in lines[:-1]), lines
    assert lines[-1] == ["nodes", "0"]

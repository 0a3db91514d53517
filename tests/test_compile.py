"""torch.compile, in a process of its own: it cannot trace the shape checks of the other tests."""

import subprocess
import sys

CASES = [
    *[(name, "aot_eager") for name in ("identity", "hc", "mhc", "mhc-lite", "kromhc", "kron-go")],
    ("go-mhc", "inductor"),
]
SCRIPT = """
import sys, torch, gomhc
for case in sys.argv[1:]:
    name, backend = case.split(":")
    mixer = gomhc.make_mixer(name, 4)
    theta = torch.randn(5, 3, mixer.num_parameters, generator=torch.Generator().manual_seed(1))
    theta.requires_grad_()
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


def test_compiles_without_a_graph_break():
    command = [sys.executable, "-c", SCRIPT, *map(":".join, CASES)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.split() == [name for name, _ in CASES], result.stderr[-3000:]


MODEL = """
import torch
from gomhc import MIXERS
from gomhc.lm.model import GPT, preset
tokens = torch.randint(460, (2, 8), generator=torch.Generator().manual_seed(1))
for mixer in ["residual", *MIXERS]:
    model = GPT(preset("nano", mixer=mixer, layers=1))
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


def test_a_model_compiles_without_a_graph_break():
    command = [sys.executable, "-c", MODEL]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "compiled\n", result.stderr

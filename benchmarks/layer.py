"""What streams cost a network: the layer, the GPT around it, what autograd keeps, and other layers.

Ways take turns in every round, so that a ratio compares what ran side by side; of each the fastest
round and the median are given, as seconds of one forward and one backward pass. On a machine with
other work the fastest says more.

The bound of an arm is what its multiplications alone, without those of the mixer, would leave of
the residual's speed, if all of them ran as fast as the model's own. The floor of a layer is the
time in which the machine copies the bytes that must move: X, F and the derivative by the result in;
the result and what is read out, and the derivatives by X and F.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gomhc
from benchmarks.machine import processor, timed_in_new_processes
from benchmarks.mixers import SEED, bandwidth, both_ways, methods, run, seconds
from gomhc.companion import probes
from gomhc.companion.studies.base import Outcome, Probe, mixer
from gomhc.companion.studies.language_models import ARMS
from gomhc.fused.layer import (
    read_streams,
    read_streams_backward,
    write_streams,
    write_streams_backward,
)
from gomhc.hyper_connections import HyperConnection
from gomhc.lm.model import GPT, RESIDUAL, GPTConfig, preset

D = 4
BATCHES = {"nano": 16, "small": 16, "paper-30m": 2}  # sequences a step
COPY = "copy of the streams"
LARGE = [32768, 4096]  # tokens and C for which other implementations have published times
LABELS = tuple(arm for arm in ARMS if arm != RESIDUAL)
Call = Callable[[], Any]


def turns(calls: dict[str, Call], device: str, rounds: int) -> dict[str, dict[str, float]]:
    """The fastest and the median seconds of calls that take turns."""
    for call in calls.values():
        call()  # compiles
        call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            spent[name].append(seconds(call, device))
    return summary(spent)


def summary(spent: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The fastest and the median of every list."""
    return {
        name: {"fastest": min(own), "median": statistics.median(own)} for name, own in spent.items()
    }


# Without clocks


def without_clocks(presets: Sequence[str], width: int, tokens: int) -> Outcome:
    """What the layers give on the CPU, what they keep, and the bounds and floors.

    Args:
        presets: of the GPT.
        width: C.
        tokens: number of them.

    Returns:
        metrics: layers[label]: `kept` bytes, norms of the streams and of all derivatives;
        bounds[preset][arm]; bytes of the floor, a token.
    """
    metrics: dict[str, Any] = {"layers": {}, "bounds": {}, "floor": floor_bytes(width)}
    for label in LABELS:
        source = torch.Generator().manual_seed(SEED)
        X, slope = (torch.randn(tokens, D, width, generator=source) for _ in range(2))
        module = HyperConnection(
            width, nn.Identity(), mixer(label, D), backend="fused", generator=source
        )
        with torch.no_grad():
            module.weight.normal_(std=0.1, generator=source)
        trained = [X.requires_grad_(), *module.parameters()]
        out = module(X)
        gradients = torch.autograd.grad(out, trained, slope)
        metrics["layers"][label] = {
            "kept": saved(functools.partial(_both_ways, module, trained, slope)),
            "streams": out.norm().item(),
            "gradients": [gradient.norm().item() for gradient in gradients],
        }
    for name in presets:
        metrics["bounds"][name] = {arm: bound(preset(name, **own)) for arm, own in ARMS.items()}
    return Outcome(metrics, {})


PROBE = Probe(
    "benchmarks/layer",
    without_clocks,
    {"presets": ["nano", "small", "paper-30m"], "width": 24, "tokens": 300},
    ("benchmarks/layer-cpu", "benchmarks/layer-gpu"),
    relative=1e-5,  # norms of many float32 numbers
    absolute=2e-6,  # the rounding of one
)


def first_calls(device: str) -> dict[str, float]:
    """Seconds of the first pass in a new process: see `benchmarks.mixers.first_calls`."""
    code = (
        "import sys, time, torch; from gomhc import HyperConnection, make_mixer\n"
        "layer = HyperConnection(64, torch.nn.Identity(), make_mixer('go-mhc', 4))\n"
        "X = torch.randn(1024, 4, 64, device=sys.argv[1], requires_grad=True)\n"
        "layer.to(sys.argv[1])\n"
        "clock = time.perf_counter(); layer(X).sum().backward()\n"
        "print(time.perf_counter() - clock)"
    )
    return timed_in_new_processes(code, device)


def peak(step: Callable[[], None]) -> int:
    """Bytes on the GPU at the peak of a step."""
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def saved(step: Callable[[], None]) -> int:
    """Bytes of the tensors that a step keeps for its backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(sizes.values())


# The mixer alone and behind a product


def behind(tokens: int, device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Fused and plain mixers forward, alone and right after a matrix product (untimed)."""
    left = torch.randn(1024, 1024, device=device)
    calls: dict[str, Call] = {}
    for method in methods(D, tokens, device):
        if method.label == "go-mhc s=2":
            theta = torch.randn(tokens, method.size, device=device)
            calls[method.path] = functools.partial(method.call, theta)
            calls[f"{method.path}, both ways"] = both_ways(method, tokens, D, device)
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            for place, before in (("alone", None), ("behind", lambda: left @ left)):
                for _ in range(3):  # as in a loop of its own
                    if before is not None:
                        before()
                    spent.setdefault(f"{name}: {place}", []).append(seconds(call, device))
    return summary(spent)


# The layer


class Foreign(nn.Module):
    """A connection of transformers' DeepSeek V4 around a branch, as its decoder has it."""

    def __init__(self, width: int, branch: nn.Module) -> None:
        from transformers import DeepseekV4Config
        from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

        super().__init__()
        sizes = DeepseekV4Config(hidden_size=width, hc_mult=D, hc_sinkhorn_iters=20)
        self.connection, self.branch = DeepseekV4HyperConnection(sizes), branch
        with torch.no_grad():
            for weight in self.connection.parameters():
                weight.normal_(std=0.01)

    def forward(self, X: Tensor) -> Tensor:
        post, comb, read = self.connection(X)
        return post[..., None] * self.branch(read)[..., None, :] + comb.mT @ X


def layers(width: int) -> Iterator[tuple[str, nn.Module, bool]]:
    """Connections around nothing: name, module, whether streams stand in the batch dimension."""
    for label in LABELS:
        for backend in ("fused", "reference"):
            yield (
                f"{label}, {backend}",
                HyperConnection(width, nn.Identity(), mixer(label, D), backend=backend),
                False,
            )
    if find_spec("hyper_connections"):
        from hyper_connections import mHC

        yield "hyper-connections mHC", mHC(D, dim=width, branch=nn.Identity()), True
    if find_spec("transformers"):
        yield "transformers DeepSeek V4", Foreign(width, nn.Identity()), False


def floor_bytes(width: int, size: int = 4) -> int:
    """Bytes a token of a layer that must move, see the head of this module; size: of a number."""
    return size * width * (D + 1 + D + 1 + D + D + 1)


def layer_table(
    batch: int, length: int, width: int, device: str, speed: float, rounds: int
) -> list[dict[str, Any]]:
    """Seconds of layers both ways, over the floor, and bytes that autograd keeps."""
    source = torch.Generator().manual_seed(SEED)
    X = torch.randn(batch, length, D, width, generator=source).to(device)
    folded = X.movedim(2, 1).flatten(0, 1).contiguous().requires_grad_()
    X.requires_grad_()
    calls: dict[str, Call] = {}
    kept: dict[str, int] = {}
    for name, module, in_batch in layers(width):
        module.to(device)
        given = folded if in_batch else X
        slope = torch.randn(given.shape, generator=source).to(device)
        trained = [given, *module.parameters()]
        calls[name] = step = functools.partial(_both_ways, module, trained, slope)
        kept[name] = saved(step)
    floor = batch * length * floor_bytes(width) / speed
    least = X.numel() * 4 * (D + 1) // D  # streams and answer
    return [
        {"name": name, **times, "over_floor": times["fastest"] / floor, "kept": kept[name] / least}
        for name, times in turns(calls, device, rounds).items()
    ]


# Large sizes


def passes(tokens: int, width: int, device: str) -> Iterator[tuple[str, int, Call]]:
    """Passes of go-mhc s=2 in bfloat16: name, rows of C that must move a token, and call.

    The reading passes go through X once more for the norm and for each product with W.
    """
    label, dtype = "go-mhc s=2", torch.bfloat16
    source = torch.Generator(device).manual_seed(SEED)
    layer = HyperConnection(width, nn.Identity(), mixer(label, D)).to(device, dtype)
    weights = layer.weight.detach(), layer.bias.detach(), layer.alpha.detach()
    stages = [number for stage in layer.mixer.stages() or () for number in stage]
    X, slope = (
        torch.randn(tokens, D, width, generator=source, device=device).to(dtype) for _ in range(2)
    )
    read, mixed, post, *kept = read_streams(X, *weights, dtype, stages)
    back = read, slope, torch.zeros_like(post), X, *weights, *kept, dtype, stages
    target = torch.empty_like(X)
    yield COPY, 2 * D, lambda: target.copy_(X)
    yield "read", 2 * D + 1, lambda: read_streams(X, *weights, dtype, stages)
    yield "write", 2 * D + 1, lambda: write_streams(mixed, read, post)
    yield "write, backward", D + 2, lambda: write_streams_backward(slope, read, post)
    yield "read, backward", 3 * D + 1, lambda: read_streams_backward(*back)


def large_table(
    tokens: int, width: int, device: str, rounds: int
) -> tuple[float, list[dict[str, Any]]]:
    """Bytes a second of a copy, and seconds of passes and connections over their floors."""
    times = 10 if device == "cuda" else 1  # a call's own time is then hidden behind the GPU's
    source = torch.Generator(device).manual_seed(SEED)
    calls: dict[str, Call] = {}
    moved: dict[str, int] = {}
    X, slope = (
        torch.randn(tokens, D, width, generator=source, device=device).bfloat16() for _ in range(2)
    )
    X.requires_grad_()
    for name, rows, call in passes(tokens, width, device):
        calls[name], moved[name] = call, 2 * width * rows * tokens
    for label in LABELS:
        for backend in ("fused", "reference"):
            module = HyperConnection(width, nn.Identity(), mixer(label, D), backend=backend)
            module.to(device, torch.bfloat16)
            trained = [X, *module.parameters()]
            name = f"{label}, {backend}, both ways"
            calls[name] = functools.partial(_both_ways, module, trained, slope)
            moved[name] = floor_bytes(width, 2) * tokens
    repeated: dict[str, Call] = {
        name: functools.partial(_repeat, call, times) for name, call in calls.items()
    }
    spent = {
        name: {way: took / times for way, took in own.items()}
        for name, own in turns(repeated, device, rounds).items()
    }
    speed = moved[COPY] / spent[COPY]["fastest"]
    table: list[dict[str, Any]] = [
        {
            "name": name,
            **own,
            "bytes": moved[name],
            "over_floor": own["fastest"] * speed / moved[name],
        }
        for name, own in spent.items()
    ]
    return speed, table


def _both_ways(module: nn.Module, trained: list[Tensor], slope: Tensor) -> None:
    torch.autograd.grad(module(trained[0]), trained, slope, allow_unused=True)


def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()


# The GPT


def multiplications(config: GPTConfig) -> tuple[float, float]:
    """Of one token forward: those of the plain residual's model, and those that streams add."""
    C, layers = config.width, config.layers
    plain = layers * (12 * C * C + config.block * C) + config.vocabulary * C
    mixing = config.make_mixer()
    if mixing is None:
        return plain, 0.0
    d = mixing.d
    return plain, 2 * layers * C * ((mixing.num_parameters + 2 * d) * d + d * d + 2 * d)


def bound(config: GPTConfig) -> float:
    """Share of the residual's speed that these leave, see the head of this module."""
    plain, more = multiplications(config)
    return plain / (plain + more)


def models(name: str, device: str, compiled: bool, rounds: int) -> dict[str, dict[str, float]]:
    """Training steps of a GPT by its arm: tokens a second, relative to residual, and the bound.

    Bytes are those kept for the backward pass; on a GPU those at the peak of a step, weights and
    derivatives among them.
    """
    calls: dict[str, Call] = {}
    kept: dict[str, int] = {}
    bounds: dict[str, float] = {}
    # All arms share one `forward`, of which PyTorch would keep eight versions.
    torch._dynamo.config.recompile_limit = 8 * len(ARMS)
    for arm, changes in ARMS.items():
        config = preset(name, **changes)
        before = torch.cuda.memory_allocated() if device == "cuda" else 0  # other arms stay there
        model = GPT(config, SEED).to(device)
        called = torch.compile(model) if compiled else model
        tokens = torch.randint(config.vocabulary, (BATCHES[name], config.block + 1)).to(device)

        def step(model: Any = model, called: Any = called, tokens: Tensor = tokens) -> None:
            model.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = called(tokens[:, :-1], tokens[:, 1:])[1]
            loss.backward()

        step()
        calls[arm], kept[arm] = step, peak(step) - before if device == "cuda" else saved(step)
        bounds[arm] = bound(config)
    spent = turns(calls, device, rounds)
    count = BATCHES[name] * preset(name).block
    return {
        arm: {
            "tokens_per_second": count / times["fastest"],
            "relative": spent[RESIDUAL]["fastest"] / times["fastest"],
            "relative_median": spent[RESIDUAL]["median"] / times["median"],
            "bound": bounds[arm],
            "bytes": float(kept[arm]),
        }
        for arm, times in spent.items()
    }


def compare(
    presets: Sequence[str],
    device: str,
    compiled: bool,
    rounds: int,
    large: Sequence[int] | None = None,
) -> Outcome:
    """Time everything, and print the tables.

    Args:
        presets: of the GPT.
        device: "cpu" or "cuda".
        compiled: whether the GPTs run under `torch.compile` too.
        rounds: of all ways.
        large: tokens and C of the passes in bfloat16; None for none.

    Returns:
        metrics: machine, bandwidth (bytes a second), first_calls (seconds), mixer, layers, models
        and large.
    """
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    machine = {"processor": name, "threads": torch.get_num_threads()}
    speed = bandwidth(device, rounds)
    first = first_calls(device)
    print(
        f"{name}, {machine['threads']} threads; copies {speed / 1e9:.1f} GB/s\n"
        f"first call: {first['compiled']:.1f} s with compilation, {first['cached']:.1f} s after\n"
        f"{gomhc.backend_report()}"
    )
    mixers = behind(16384, device, rounds)
    print("\n16,384 tokens, go-mhc s=2, d = 4: ms fastest, median")
    for way, times in mixers.items():
        print(f"  {way:<44}{1e3 * times['fastest']:9.3f}{1e3 * times['median']:9.3f}", flush=True)
    tables: dict[str, Any] = {}
    for size in presets:
        config = preset(size)
        shape = BATCHES[size], config.block, config.width
        tables[size] = layer_table(*shape, device, speed, rounds)
        print(
            f"\nLayer, {shape[0]}×{shape[1]} tokens, C = {shape[2]}: ms both ways, over the floor,"
        )
        print("  bytes kept over those of streams and answer")
        for row in tables[size]:
            print(
                f"  {row['name']:<30}{1e3 * row['fastest']:9.3f}{row['over_floor']:8.2f}"
                f"{row['kept']:8.2f}",
                flush=True,
            )
    arms: dict[str, Any] = {}
    for size in presets:
        for way in ("eager", "compiled")[: 1 + compiled]:
            arms[f"{size}, {way}"] = models(size, device, way == "compiled", rounds)
            print(f"\nGPT {size}, {way}: tokens/s, relative to residual, by medians, bound, bytes")
            rows = arms[f"{size}, {way}"]
            for arm, row in rows.items():
                print(
                    f"  {arm:<14}{row['tokens_per_second']:10.0f}{row['relative']:8.3f}"
                    f"{row['relative_median']:8.3f}{row['bound']:8.3f}"
                    f"{row['bytes'] / rows[RESIDUAL]['bytes']:8.2f}",
                    flush=True,
                )
    passed: dict[str, Any] = {}
    if large is not None:
        tokens, width = large
        copied, table = large_table(tokens, width, device, rounds)
        passed = {"tokens": tokens, "width": width, "bandwidth": copied, "rows": table}
        print(f"\n{tokens} tokens, C = {width}, d = {D}, bfloat16; {copied / 1e9:.0f} GB/s copied")
        print("  ms fastest, median, GB that must move, over the floor")
        for row in table:
            print(
                f"  {row['name']:<36}{1e3 * row['fastest']:9.3f}{1e3 * row['median']:9.3f}"
                f"{row['bytes'] / 1e9:9.3g}{row['over_floor']:8.2f}",
                flush=True,
            )
    metrics = {
        "machine": machine,
        "bandwidth": speed,
        "first_calls": first,
        "mixer": mixers,
        "layers": tables,
        "models": arms,
        "large": passed,
    }
    return Outcome(metrics, {})


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.layer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gpu = torch.cuda.is_available()
    parser.add_argument("--presets", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if gpu else "cpu")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--rounds", type=int, default=15, help="of all ways (%(default)s)")
    parser.add_argument(
        "--large",
        nargs=2,
        type=int,
        metavar=("TOKENS", "C"),
        default=LARGE if gpu else None,
        help="of the passes in bfloat16 (on a GPU 32768 4096)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="put a record into a folder")
    parser.add_argument("--probe", action="store_true", help="make the probe anew, time nothing")
    options = parser.parse_args(arguments)
    if options.probe:
        print(probes.renew(PROBE))
        return
    config = {
        "presets": options.presets,
        "device": options.device,
        "compiled": not options.eager,
        "rounds": options.rounds,
        "large": options.large,
    }
    run("layer", compare, config, options.out)


if __name__ == "__main__":
    main()

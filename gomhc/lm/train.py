"""Train a GPT: AdamW with warm-up and cosine decay, checkpoints that can be killed at any moment.

    python -m gomhc.lm.train --mixer go-mhc --streams 4 --block-size-s 2 --preset nano --out runs/a

Note [Resuming]
    Everything a step needs is a function of the configuration and the step's number: its batch, its
    learning rate, its dropout. So the weights, Adam's moments and the number of steps are the whole
    state. The tensors are written to a file of their own first and `state.json`, which names it,
    last, both by renaming; a run that is killed in between goes on from the older pair.

Note [Several processes]
    Under torchrun every process takes its part of the same global batch and the gradients are
    averaged by Accelerate's DDP, so the losses are those of one process up to rounding (with
    dropout, which every process draws for itself, up to the draws). The folder of checkpoints must
    be one that all processes see. A run ends for all of them as soon as `stop` says so in one.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gomhc.hyper_connections import HyperConnection
from gomhc.lm.data import Corpus
from gomhc.lm.model import GPT, GPTConfig, evaluating
from gomhc.mixers.base import Mixer, check_positive

__all__ = [
    "NonFiniteError",
    "Progress",
    "TrainConfig",
    "chosen_device",
    "evaluate",
    "learning_rate",
    "load",
    "train",
]

STATE = "state.json"


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        model: sizes and mixer.
        steps: of AdamW.
        batch: windows in a step, over all processes.
        accumulation: parts that a step's batch is taken in, one after the other.
        learning_rate: at the end of the warm-up.
        final: share of it that the cosine ends at, one step after the last.
        warmup: steps of linear warm-up.
        weight_decay: of tensors with two dimensions or more, which the embeddings and the
            offsets of the streams are too; gates, biases and norms have none.
        betas: AdamW's.
        clip: largest norm of the gradient.
        seed: of weights, batches and dropout.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints, if there is a folder for them.
        precision: "float32", "bfloat16" by autocast, or "auto": bfloat16 on a GPU that has it.
        compile: whether the model goes through `torch.compile`.

    Raises:
        TypeError: if the model is no `GPTConfig`.
        ValueError: if a number is out of its range, accumulation does not divide the batch, or the
            precision is unknown.
    """

    model: GPTConfig
    steps: int = 300
    batch: int = 16
    accumulation: int = 1
    learning_rate: float = 3e-3
    final: float = 0.1
    warmup: int = 20
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    evaluate_every: int = 50
    checkpoint_every: int = 100
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not isinstance(self.model, GPTConfig):
            raise TypeError(f"expected model as a GPTConfig, got {self.model!r}")
        for name in ("steps", "batch", "accumulation", "evaluate_every", "checkpoint_every"):
            check_positive(name, getattr(self, name))
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"expected a positive {name}, got {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            raise ValueError(f"expected final in [0, 1], got {self.final}")
        for name in ("weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.batch % self.accumulation:
            raise ValueError(
                f"expected accumulation to divide batch {self.batch}, got {self.accumulation}"
            )
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"expected warmup in [0, steps = {self.steps}], got {self.warmup}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f"expected precision auto, float32 or bfloat16; got {self.precision!r}"
            )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to the final share.

    Args:
        config: of the run.
        step: its number, from 0 on.

    Returns:
        The learning rate of that step.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


@dataclass
class Progress:
    """What a run has seen so far.

    Attributes:
        step: steps taken.
        loss: mean loss of each step's batch, nats a token.
        gradient: norm of each step's gradient, before clipping.
        seconds: from the start to the end of each step, evaluations left out.
        evaluations: (steps taken, loss on the windows to evaluate on).
        tokens_per_second: median over the steps; the first ones, which warm up, left out.
        calls: of `train` that the run took; over 1 if it was resumed.
    """

    step: int = 0
    loss: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    tokens_per_second: float = math.nan
    calls: int = 1


class NonFiniteError(RuntimeError):
    """A loss or a gradient was infinite or NaN; the message says where it began.

    Attributes:
        seen: the run up to there.
    """

    def __init__(self, message: str, seen: Progress) -> None:
        super().__init__(message)
        self.seen = seen


class _Alone:
    """One process: the part of Accelerate's interface that `train` uses."""

    process_index, num_processes, is_main_process = 0, 1, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare_model(self, model: nn.Module) -> nn.Module:
        return model.to(self.device)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor

    def wait_for_everyone(self) -> None:
        return None


def _engine(device: torch.device) -> Any:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return _Alone(device)
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("several processes need accelerate: install gomhc[lm]") from error
    return Accelerator(cpu=device.type == "cpu")


def train(
    config: TrainConfig,
    corpus: Corpus,
    *,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[GPT, Progress]:
    """Train a model, or go on with a run that was stopped.

    Every step seeds torch's global generator anew (Note [Resuming] in this module).

    Args:
        config: what to do.
        corpus: its vocabulary and block fit the model's.
        device: "auto" takes a GPU if there is one.
        out: folder of checkpoints; a run found there is resumed. Without it nothing is written.
        progress: whether to show a bar with loss and tokens a second.
        stop: asked before every step; True ends the run there, with a checkpoint.

    Returns:
        The model and what was seen, from the first step on.

    Raises:
        ValueError: if the corpus does not fit the model, there is no such device, or the folder
            is none or holds a damaged run, or one of another configuration or corpus.
        ImportError: if a folder is given and safetensors is not installed.
        NonFiniteError: if a loss or a gradient is infinite or NaN.
    """
    model_config = config.model
    if corpus.vocabulary > model_config.vocabulary or corpus.block > model_config.block:
        raise ValueError(
            f"expected a corpus with up to {model_config.vocabulary} tokens and windows of up to "
            f"{model_config.block}, got {corpus.vocabulary} and {corpus.block}"
        )
    folder = None if out is None else Path(out)
    if folder is not None:
        _prepare(folder)
    engine = _engine(chosen_device(device))
    where = engine.device
    parts = config.accumulation * engine.num_processes
    if config.batch % parts:
        raise ValueError(
            f"expected accumulation × processes = {parts} to divide batch {config.batch}"
        )
    model = GPT(model_config, config.seed)
    wrapped = engine.prepare_model(model)
    optimizer = _optimizer(model, config)
    seen = Progress()
    if folder is not None and (folder / STATE).exists():
        seen = _resume(folder, config, corpus.digest, model, optimizer)
    mean = engine.reduce(torch.tensor(float(seen.step), device=where), "mean").item()
    if mean != seen.step:
        raise ValueError(
            f"expected all processes at one step, got {seen.step} here: no shared folder"
        )
    run = torch.compile(wrapped) if config.compile else wrapped
    narrow = config.precision == "bfloat16" or (config.precision == "auto" and _has_bfloat16(where))
    with _bar(config, seen, progress and engine.is_main_process) as bar:
        while seen.step < config.steps:
            if engine.reduce(torch.tensor(float(stop()), device=where), "sum").item():
                break
            _tick(where)
            begin = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, seen.step)
            draws = _mixed(config.seed, seen.step, engine.process_index)
            torch.manual_seed(draws)
            tokens, targets = corpus.batch(seen.step, config.batch, config.seed)
            mine = slice(engine.process_index, None, engine.num_processes)
            pieces = [
                (x.to(where), y.to(where))
                for x, y in zip(
                    tokens[mine].chunk(config.accumulation),
                    targets[mine].chunk(config.accumulation),
                    strict=True,
                )
            ]
            optimizer.zero_grad()
            model.train()
            loss = torch.zeros((), device=where)
            for k, (x, y) in enumerate(pieces, 1):
                with nullcontext() if k == len(pieces) else engine.no_sync(wrapped):
                    with torch.autocast(where.type, torch.bfloat16, enabled=narrow):
                        _, part = run(x, y)
                    # Outside of autocast: what was computed in float32 is derived in it too.
                    (part / config.accumulation).backward()
                loss += part.detach() / config.accumulation
            gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            value, size = engine.reduce(loss, "mean").item(), norm.item()
            if not (math.isfinite(value) and math.isfinite(size)):
                torch.manual_seed(draws)
                place = first_non_finite(model, pieces, narrow)
                raise NonFiniteError(
                    f"expected a finite loss and gradient in step {seen.step}, got loss {value} "
                    f"and gradient norm {size}; it began in {place}",
                    seen,
                )
            nn.utils.clip_grads_with_norm_(model.parameters(), config.clip, norm)
            optimizer.step()
            _tick(where)
            before = seen.seconds[-1] if seen.seconds else 0.0
            seen.step += 1
            seen.loss.append(value)
            seen.gradient.append(size)
            seen.seconds.append(before + time.perf_counter() - begin)
            seen.tokens_per_second = _speed(seen.seconds, config.batch * corpus.block)
            done = seen.step == config.steps
            if done or seen.step % config.evaluate_every == 0:
                found = evaluate(model, corpus, narrow)
                if not math.isfinite(found):
                    raise NonFiniteError(
                        f"expected a finite evaluation loss after {seen.step} steps, got {found}",
                        seen,
                    )
                seen.evaluations.append((seen.step, found))
            if folder is not None and (done or seen.step % config.checkpoint_every == 0):
                if engine.is_main_process:
                    _save(folder, config, corpus.digest, model, optimizer, seen)
                engine.wait_for_everyone()
            bar.update()
            bar.set_postfix_str(f"loss {value:.3f}, {seen.tokens_per_second:,.0f} tokens/s")
    stopped = 0 < seen.step < config.steps
    if folder is not None and stopped and engine.is_main_process:
        _save(folder, config, corpus.digest, model, optimizer, seen)
    return model, seen


@torch.no_grad()
def evaluate(model: GPT, corpus: Corpus, narrow: bool = False, batch: int = 16) -> float:
    """Mean loss on the windows of a corpus, in nats a token; dropout is off.

    Args:
        model: on any device.
        corpus: with the windows.
        narrow: whether to run under bfloat16 autocast.
        batch: windows at a time.

    Returns:
        The mean.
    """
    device = next(model.parameters()).device
    total = 0.0
    with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        for rows in corpus.windows.split(batch):
            rows = rows.to(device)
            _, loss = model(rows[:, :-1], rows[:, 1:])
            total += loss.item() * len(rows)
    return total / len(corpus.windows)


def first_non_finite(model: GPT, pieces: Sequence[tuple[Tensor, Tensor]], narrow: bool) -> str:
    """Where it begins: a weight, the output of a module, mixing matrices, or a weight's gradient.

    Args:
        model: with the gradients as they were found.
        pieces: tokens and targets of the step, run through the model once more.
        narrow: whether it ran under bfloat16 autocast.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name}"
    found: list[str] = []

    def note(parts: Iterable[Any], what: str) -> None:
        if not all(part.isfinite().all() for part in parts if isinstance(part, Tensor)):
            found.append(what)

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Mixer):  # all connections share one
            continue
        what = f"the output of {name or 'the model'} ({type(module).__name__})"
        handles.append(
            module.register_forward_hook(
                lambda _, __, output, what=what: note(
                    output if isinstance(output, tuple) else [output], what
                )
            )
        )
        if isinstance(module, HyperConnection):
            what = f"the mixing matrices of {name}"
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, inputs, what=what: note(module.matrices(inputs[0]), what)
                )
            )
    try:
        for x, y in pieces:
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=narrow):
                model(x, y)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    for name, weight in reversed(list(model.named_parameters())):
        if weight.grad is not None and not weight.grad.isfinite().all():
            return f"the gradient of {name}"
    return "a batch of which only a part was not finite"


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) % 2**63


def chosen_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Args:
        device: a name of PyTorch's, or "auto": a GPU if there is one.

    Returns:
        The device.

    Raises:
        ValueError: if there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"expected a device auto, cpu or cuda, got {device!r}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected a device that is there, got {device!r}: PyTorch sees no GPU")
    return found


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _tick(device: torch.device) -> None:
    """Wait for a GPU, so that what is timed is over."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _speed(seconds: list[float], tokens: int) -> float:
    """Tokens a second: the median step, the first tenth (at least one) left out."""
    steps = torch.tensor(seconds).diff()[len(seconds) // 10 :]
    return tokens / steps.median().item() if len(steps) else tokens / seconds[0]


def _optimizer(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, betas=config.betas)


def _bar(config: TrainConfig, seen: Progress, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=config.steps, initial=seen.step, unit="step", disable=not shown)


# Checkpoints (Note [Resuming])


def load(folder: str | os.PathLike[str]) -> GPT:
    """The model of a run, as its last checkpoint has it.

    Args:
        folder: the `out` of `train`.

    Returns:
        The model, on the CPU.

    Raises:
        FileNotFoundError: if there is no run in the folder.
        ValueError: if it is damaged.
        ImportError: if safetensors is not installed.
    """
    folder = Path(folder)
    if not (folder / STATE).is_file():
        raise FileNotFoundError(f"expected a run in {folder}, found no {STATE}")
    state, _, tensors = _read(folder, "cpu")
    sizes = dict(state["config"]["model"])
    if sizes["factors"] is not None:
        sizes["factors"] = tuple(sizes["factors"])
    model = GPT(GPTConfig(**sizes))
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights)
    return model


def _prepare(folder: Path) -> None:
    """Find out before the first step what would go wrong at the first checkpoint."""
    try:
        import safetensors.torch  # noqa: F401
    except ImportError as error:
        raise ImportError("checkpoints need safetensors: install gomhc[lm]") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"expected a folder to write to, got {folder}: {error}") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path`, on disk for good, and give it that name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _save(
    folder: Path,
    config: TrainConfig,
    digest: str,
    model: GPT,
    optimizer: torch.optim.AdamW,
    seen: Progress,
) -> None:
    from safetensors.torch import save_file

    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    tensors = {f"model.{name}": weight.detach().contiguous() for weight, name in names.items()}
    for weight, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"{key}.{names[weight]}"] = torch.as_tensor(value).contiguous()
    file = folder / f"step-{seen.step:08d}.safetensors"
    _replace(file, lambda path: save_file(tensors, path))
    state = {"tensors": file.name, "config": asdict(config), "corpus": digest}
    content = json.dumps(state | {"progress": asdict(seen)}, indent=1)
    _replace(folder / STATE, lambda path: path.write_text(content, encoding="utf-8"))
    # What is older, and the drafts of runs that were killed while they wrote.
    for old in (*folder.glob("step-*.safetensors"), *folder.glob(".*.tmp")):
        if old != file:
            old.unlink(missing_ok=True)


def _resume(
    folder: Path,
    config: TrainConfig,
    digest: str,
    model: GPT,
    optimizer: torch.optim.AdamW,
) -> Progress:
    device = next(model.parameters()).device
    state, seen, tensors = _read(folder, str(device))
    there, asked = _flat(state["config"]), _flat(json.loads(json.dumps(asdict(config))))
    changed = [
        f"{key} {there.get(key)}, not {value}"
        for key, value in asked.items()
        if value != there.get(key) and key != "checkpoint_every"
    ]
    if state["corpus"] != digest:
        changed.append("another corpus")
    if changed:
        raise ValueError(
            f"expected the configuration of the run in {folder}, which has {'; '.join(changed)}; "
            "give another folder for another run"
        )
    seen.calls += seen.step < config.steps
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"model.{name}"])
            optimizer.state[weight] = {
                key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return seen


def _read(folder: Path, device: str) -> tuple[dict[str, Any], Progress, dict[str, Tensor]]:
    """State, progress and tensors of a run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / state["tensors"], device=device)
        found = dict(state["progress"])
        evaluations = [(step, loss) for step, loss in found.pop("evaluations")]
        seen = Progress(**found, evaluations=evaluations)
        _flat(state["config"]), state["corpus"]  # there as well
    except (ValueError, LookupError, TypeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"expected a whole run in {folder}, got {error!r}; delete it to begin again"
        ) from error
    return state, seen, tensors


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of a run's configuration, those of its model among them."""
    return {k: v for k, v in config.items() if k != "model"} | config["model"]


# The command


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C as a question that `train` can ask; a second one ends the process as usual."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: list[str] | None = None) -> int:
    """Train from the command line; returns the exit status."""
    import argparse

    from gomhc.lm import data
    from gomhc.lm.model import PRESETS, RESIDUAL, preset
    from gomhc.mixers import MIXERS

    parser = argparse.ArgumentParser(prog="python -m gomhc.lm.train", description="Train a GPT.")
    parser.add_argument("--preset", choices=PRESETS, default="nano", help="(%(default)s)")
    parser.add_argument(
        "--mixer", choices=[RESIDUAL, *MIXERS], default=RESIDUAL, help="(%(default)s: one stream)"
    )
    parser.add_argument("--streams", type=int, default=4, metavar="D", help="d (%(default)s)")
    parser.add_argument("--block-size-s", type=int, metavar="S", help="s of go-mhc and kron-go")
    parser.add_argument("--factors", type=int, nargs="+", help="of kromhc and kron-go")
    parser.add_argument("--iterations", type=int, help="of mhc")
    parser.add_argument("--off-diagonal-mass", type=float, default=0.01, help="of H_res at first")
    parser.add_argument("--dead-start", action="store_true", help="start θ at 0")
    parser.add_argument("--offsets", type=float, default=0.02, help="spread at first (%(default)s)")
    parser.add_argument("--inputs", choices=["all", "mean"], default="all", help="of the matrices")
    parser.add_argument("--reduce", choices=["read", "mean", "sum"], default="read")
    parser.add_argument("--norm-streams", action="store_true", help="norm before the reduction")
    parser.add_argument("--dropout", type=float, help="the preset's if not given")
    parser.add_argument(
        "--data",
        default="stories",
        help="stories (the same ones for every seed), shakespeare, tinystories, or a text file; a "
        "vocabulary smaller than the preset's leaves the preset's (%(default)s)",
    )
    parser.add_argument("--copy", help="file or folder with a copy of shakespeare or tinystories")
    parser.add_argument("--level", choices=["characters", "bpe"], default="characters")
    defaults = {f.name: f.default for f in TrainConfig.__dataclass_fields__.values()}
    parser.add_argument("--warmup", type=int, help="(20, or fewer if there are fewer steps)")
    for name in ("steps", "batch", "accumulation", "seed", "evaluate_every"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=defaults[name], help="(%(default)s)")
    parser.add_argument("--checkpoint-every", type=int, default=defaults["checkpoint_every"])
    for name in ("learning_rate", "final", "weight_decay", "clip"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=defaults[name], help="(%(default)s)")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true", help="go through torch.compile")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--out", type=Path, help="folder of checkpoints; a run there is resumed")
    options = parser.parse_args(arguments)
    sizes = PRESETS[options.preset]
    streams = ["streams", "block_size_s", "factors", "iterations", "off_diagonal_mass"]
    streams += ["dead_start", "offsets", "inputs", "reduce", "norm_streams"]
    given = [name for name in streams if getattr(options, name) != parser.get_default(name)]
    if options.mixer == RESIDUAL and given:
        parser.error(f"expected a mixer for --{given[0].replace('_', '-')}, got residual")
    if options.copy is not None and options.data not in ("shakespeare", "tinystories"):
        parser.error(f"expected --data shakespeare or tinystories for --copy, got {options.data}")
    if options.level != "characters" and options.data in ("stories", "tinystories"):
        parser.error(f"expected --data shakespeare or a file for --level, got {options.data}")
    if options.warmup is None:
        options.warmup = min(20, options.steps)
    try:
        if options.data == "stories":
            corpus = data.stories(sizes.block)
        elif options.data == "shakespeare":
            corpus = data.tiny_shakespeare(options.copy, block=sizes.block, level=options.level)
        elif options.data == "tinystories":
            source = {} if options.copy is None else {"source": options.copy}
            corpus = data.tiny_stories(block=sizes.block, **source)
        elif not Path(options.data).is_file():
            raise ValueError(
                f"expected stories, shakespeare, tinystories or a text file, got {options.data!r}"
            )
        else:
            corpus = data.text(options.data, sizes.block, options.level)
        model = preset(
            options.preset,
            vocabulary=max(sizes.vocabulary, corpus.vocabulary),
            mixer=options.mixer,
            d=options.streams,
            s=options.block_size_s,
            iterations=options.iterations,
            factors=None if options.factors is None else tuple(options.factors),
            off_diagonal_mass=options.off_diagonal_mass,
            dead_start=options.dead_start,
            offsets=options.offsets,
            inputs=options.inputs,
            reduce=options.reduce,
            norm_streams=options.norm_streams,
            dropout=sizes.dropout if options.dropout is None else options.dropout,
        )
        chosen = {name: getattr(options, name) for name in defaults if hasattr(options, name)}
        config = TrainConfig(model, **chosen)
        with _interrupts() as stop:
            trained, seen = train(
                config, corpus, device=options.device, out=options.out, progress=True, stop=stop
            )
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if int(os.environ.get("RANK", "0")) > 0:
        return 0
    if seen.step < config.steps:
        rest = "the same command goes on" if options.out else "nothing is kept without --out"
        print(f"stopped after {seen.step} of {config.steps} steps: {rest}")
        return 130
    step, loss = seen.evaluations[-1]
    above = "" if corpus.floor is None else f", {loss - corpus.floor:.4f} above the floor"
    print(
        f"{options.mixer}, {trained.num_parameters():,} parameters, {step} steps: evaluation loss "
        f"{loss:.4f} nats a token{above}; {seen.tokens_per_second:,.0f} tokens/s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

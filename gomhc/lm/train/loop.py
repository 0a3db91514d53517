"""The training loop: AdamW with warm-up and cosine decay.

Note [Several processes]
    Under torchrun every process takes its part of the same global batch and the gradients are
    averaged by Accelerate's DDP, so the losses are those of one process up to rounding (with
    dropout, which every process draws for itself, up to the draws). The folder of checkpoints must
    be one that all processes see; only the main one locks it and writes. A run ends for all of them
    as soon as `stop` says so in one.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gomhc.extras import load as load_package
from gomhc.lm.data import Corpus
from gomhc.lm.model import GPT, evaluating
from gomhc.lm.train import checkpoint
from gomhc.lm.train.config import Progress, TrainConfig, learning_rate
from gomhc.lm.train.non_finite import NonFiniteError, first_non_finite
from gomhc.weight_decay import parameter_groups

__all__ = ["chosen_device", "evaluate", "train"]


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
    if ":" in str(device):
        raise ValueError(f"expected a device without a number in several processes, got {device}")
    accelerate = load_package("accelerate", "lm", "a training in several processes")
    return accelerate.Accelerator(cpu=device.type == "cpu")


def train(
    config: TrainConfig,
    corpus: Corpus,
    *,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[int, GPT], Any] | None = None,
) -> tuple[GPT, Progress]:
    """Train a model, or go on with a run that was stopped.

    Every step seeds torch's global generator anew (Note [Resuming] in `gomhc.lm.train.checkpoint`).

    Args:
        config: what to do.
        corpus: its vocabulary and block fit the model's.
        device: "auto" takes a GPU if there is one; in several processes each has its own.
        out: folder of checkpoints; a run found there is resumed, a finished one with more steps
            too: from there on the learning rate is that of the longer run. Without it nothing is
            written.
        progress: whether to show a bar with loss and tokens a second.
        stop: asked before every step; True ends the run there, with a checkpoint.
        watch: called at every evaluation with the steps taken and the model, in the main process;
            what it returns, plain JSON, is kept in `Progress.watched`, but for None.

    Returns:
        The model and what was seen, from the first step on.

    Raises:
        ValueError: if the corpus does not fit the model, there is no such device, or a numbered one
            for several processes, or the folder cannot be written to, another run is writing to
            it, or it holds a damaged run or one of another configuration or corpus.
        OSError: if a checkpoint can be read or written no more.
        ImportError: if a folder is given and safetensors is not installed, or a bar is asked for
            and tqdm is not.
        NonFiniteError: if a loss or a gradient is infinite or NaN.
    """
    model_config = config.model
    if corpus.vocabulary > model_config.vocabulary or corpus.block > model_config.block:
        raise ValueError(
            f"expected a corpus with up to {model_config.vocabulary} tokens and windows of up to "
            f"{model_config.block}, got {corpus.vocabulary} and {corpus.block}"
        )
    engine = _engine(chosen_device(device))
    folder = None if out is None else Path(out)
    reserved: AbstractContextManager[None] = nullcontext()
    if folder is not None and engine.is_main_process:
        reserved = checkpoint.reserved(folder)
    with reserved:
        watch = watch if engine.is_main_process else None
        return _train(config, corpus, engine, folder, progress, stop, watch)


def _train(
    config: TrainConfig,
    corpus: Corpus,
    engine: Any,
    folder: Path | None,
    progress: bool,
    stop: Callable[[], bool],
    watch: Callable[[int, GPT], Any] | None,
) -> tuple[GPT, Progress]:
    model_config, where = config.model, engine.device
    parts = config.accumulation * engine.num_processes
    if config.batch % parts:
        raise ValueError(
            f"expected accumulation × processes = {parts} to divide batch {config.batch}"
        )
    model = GPT(model_config, config.seed)
    wrapped = engine.prepare_model(model)
    optimizer = _optimizer(model, config)
    seen = Progress()
    if folder is not None and (folder / checkpoint.STATE).exists():
        seen = checkpoint.resume(folder, config, corpus.digest, model, optimizer)
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
            pieces = _pieces(config, corpus, seen.step, engine)
            optimizer.zero_grad()
            model.train()
            loss = _backward(run, wrapped, pieces, narrow, engine)
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
            seen.add(value, size, time.perf_counter() - begin, config.batch * corpus.block)
            done = seen.step == config.steps
            if done or seen.step % config.evaluate_every == 0:
                _look(model, corpus, narrow, seen, watch)
            if folder is not None and (done or seen.step % config.checkpoint_every == 0):
                if engine.is_main_process:
                    checkpoint.save(folder, config, corpus, model, optimizer, seen)
                engine.wait_for_everyone()
            bar.update()
            bar.set_postfix_str(f"loss {value:.3f}, {seen.tokens_per_second:,.0f} tokens/s")
    # A run that was stopped after as many steps as it is asked for now has yet to be evaluated.
    late = seen.step == config.steps and seen.step not in dict(seen.evaluations)
    if late:
        _look(model, corpus, narrow, seen, watch)
    stopped = 0 < seen.step < config.steps
    if folder is not None and (late or stopped) and engine.is_main_process:
        checkpoint.save(folder, config, corpus, model, optimizer, seen)
    return model, seen


def _look(
    model: GPT,
    corpus: Corpus,
    narrow: bool,
    seen: Progress,
    watch: Callable[[int, GPT], Any] | None,
) -> None:
    """Evaluate a model, have it watched, and note both."""
    loss = evaluate(model, corpus, narrow)
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"expected a finite evaluation loss after {seen.step} steps, got {loss}", seen
        )
    seen.evaluations.append((seen.step, loss))
    note = None if watch is None else watch(seen.step, model)
    if note is not None:
        seen.watched.append((seen.step, note))


def _pieces(
    config: TrainConfig, corpus: Corpus, step: int, engine: Any
) -> list[tuple[Tensor, Tensor]]:
    """What this process reads in a step: tokens and the ones after them, in parts."""
    mine = slice(engine.process_index, None, engine.num_processes)
    tokens, targets = (
        part[mine].chunk(config.accumulation)
        for part in corpus.batch(step, config.batch, config.seed)
    )
    return [
        (x.to(engine.device), y.to(engine.device)) for x, y in zip(tokens, targets, strict=True)
    ]


def _backward(
    run: Callable[..., Any],
    wrapped: nn.Module,
    pieces: list[tuple[Tensor, Tensor]],
    narrow: bool,
    engine: Any,
) -> Tensor:
    """The mean loss of some pieces; its gradients are added to the weights'."""
    loss = torch.zeros((), device=engine.device)
    for k, (x, y) in enumerate(pieces, 1):
        with nullcontext() if k == len(pieces) else engine.no_sync(wrapped):
            with torch.autocast(engine.device.type, torch.bfloat16, enabled=narrow):
                _, part = run(x, y)
            # Outside of autocast: what was computed in float32 is derived in it too.
            (part / len(pieces)).backward()
        loss += part.detach() / len(pieces)
    return loss


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
        named = torch.device(device)
    except RuntimeError:
        raise ValueError(f"expected a device auto, cpu or cuda, got {device!r}") from None
    count = torch.cuda.device_count()
    if named.type == "cuda" and (named.index or 0) >= count:
        raise ValueError(
            f"expected a device that is there, got {device!r}: PyTorch sees {count} GPUs"
        )
    if named.type not in ("cpu", "cuda"):
        try:
            torch.zeros((), device=named).item()  # "meta" holds no number
        except (RuntimeError, AssertionError, ImportError):
            raise ValueError(
                f"expected a device that is there, got {device!r}: PyTorch cannot use it"
            ) from None
    return named


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _tick(device: torch.device) -> None:
    """Wait for a GPU, so that what is timed is over."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _optimizer(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    groups = parameter_groups(model, config.weight_decay, connections=config.decay_connections)
    return torch.optim.AdamW(groups, config.learning_rate, betas=config.betas)


class _NoBar:
    """The part of tqdm's interface that `train` uses, with nothing to see."""

    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self) -> None:
        return None

    def set_postfix_str(self, text: str) -> None:
        return None


def _bar(config: TrainConfig, seen: Progress, shown: bool) -> Any:
    if not shown:
        return _NoBar()
    tqdm = load_package("tqdm", "lm", "a progress bar").tqdm
    return tqdm(total=config.steps, initial=seen.step, unit="step")

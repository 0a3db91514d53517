"""What a run is asked for, and what it has seen so far."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from gomhc.checks import check_count
from gomhc.lm.model import GPTConfig

__all__ = ["Progress", "TrainConfig", "learning_rate"]


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
        decay_connections: whether that counts for the matrices of hyper-connections as well; decay
            would pull the θ of every token towards b_res.
        betas: AdamW's.
        clip: largest norm of the gradient.
        seed: of weights, batches and dropout.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        checkpoint_every: steps between checkpoints, if there is a folder for them.
        precision: "float32", "bfloat16" by autocast, or "auto": bfloat16 on a GPU that has it.
        compile: whether the model goes through `torch.compile`.

    Raises:
        TypeError: if the model is no `GPTConfig`, or the seed or a count of steps, windows or parts
            no integer.
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
    decay_connections: bool = False
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
            check_count(name, getattr(self, name), least=1)
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"expected a positive {name}, got {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            raise ValueError(f"expected final in [0, 1], got {self.final}")
        if check_count("seed", self.seed) >= 2**63:
            raise ValueError(f"expected a seed below 2**63, got {self.seed}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"expected weight_decay >= 0, got {self.weight_decay}")
        if self.batch % self.accumulation:
            raise ValueError(
                f"expected accumulation to divide batch {self.batch}, got {self.accumulation}"
            )
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"expected warmup in [0, steps = {self.steps}], got {self.warmup}")
        check_count("warmup", self.warmup)
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
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    height = config.final + (1 - config.final) * (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate * height


@dataclass
class Progress:
    """What a run has seen so far.

    Attributes:
        step: steps taken.
        loss: mean loss of each step's batch, nats a token.
        gradient: norm of each step's gradient, before clipping.
        seconds: from the start to the end of each step, evaluations left out.
        evaluations: (steps taken, loss on the windows to evaluate on).
        watched: (steps taken, what `watch` of `train` said).
        tokens_per_second: median over the steps; the first ones, which warm up, left out.
        calls: of `train` that the run took; over 1 if it was resumed.
    """

    step: int = 0
    loss: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    watched: list[tuple[int, Any]] = field(default_factory=list)
    tokens_per_second: float = math.nan
    calls: int = 1

    def add(self, loss: float, gradient: float, seconds: float, tokens: int) -> None:
        """Note a step: its loss, the norm of its gradient, its time and its tokens."""
        before = self.seconds[-1] if self.seconds else 0.0
        self.step += 1
        self.loss.append(loss)
        self.gradient.append(gradient)
        self.seconds.append(before + seconds)
        self.tokens_per_second = _speed(self.seconds, tokens)


def _speed(seconds: list[float], tokens: int) -> float:
    """Tokens a second: the median step, the first tenth (at least one) left out."""
    # In float32 the ends of short steps would fall together after a day.
    steps = torch.tensor(seconds, dtype=torch.float64).diff()[len(seconds) // 10 :]
    return tokens / steps.median().item() if len(steps) else tokens / seconds[0]

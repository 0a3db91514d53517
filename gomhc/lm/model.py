"""A GPT whose residual connections are plain or hyper-connections.

Note [Paired starts]
    The weights that every model has, the streams' offsets, and the starts of the mixers come from a
    generator each: models of the same seed that differ only in the mixer start from the same
    attention, MLP, embedding and offsets.

Note [The last mixer]
    Doubly stochastic matrices keep the mean of the streams, so where the streams are averaged or
    summed at the end, the last H_res changes nothing: its θ has no gradient, now or ever. So by
    default the end reads the streams as a branch does, by weights σ(b) of its own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gomhc.checks import check_count, check_epsilon
from gomhc.hyper_connections import (
    HyperConnection,
    expand_streams,
    preference,
    reduce_streams,
)
from gomhc.mixers import MIXERS, Mixer, make_mixer
from gomhc.mixers.base import check_start

__all__ = ["GPT", "PRESETS", "GPTConfig", "evaluating", "preset"]

RESIDUAL = "residual"  # the arm without streams
STREAMS = (  # fields of `GPTConfig` that say something of streams, so nothing to the plain residual
    "d",
    "s",
    "iterations",
    "factors",
    "off_diagonal_mass",
    "keep_function",
    "frozen",
    "dead_start",
    "offsets",
    "inputs",
    "reduce",
    "norm_streams",
)
SPREAD = 0.02  # standard deviation of weights at the start, as in GPT-2


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a model, and what carries its residual.

    Attributes:
        vocabulary: number of tokens.
        block: longest context, in tokens.
        layers: pairs of attention and MLP.
        heads: of attention; divides width.
        width: C, features of a stream.
        mlp: features inside an MLP; four times the width if None.
        dropout: share dropped from embeddings, attention and the answers of the branches.
        mixer: "residual" for one plain stream, or a name in `MIXERS`.
        d: number of streams. This and what follows is for mixers alone: "residual" has one stream.
        s: block size of go-mhc and kron-go; theirs if None.
        iterations: of mhc; its own if None.
        factors: of a Kronecker product of mixers of this family; None for none, but of kromhc and
            kron-go theirs.
        off_diagonal_mass: of H_res at the start, in (0, 1); identity has none, whatever it is.
        keep_function: whether the model starts as the plain residual one of its seed, see
            `HyperConnection`; the streams then are copies at first, and their mean is read.
        frozen: whether θ stays what it is at the start, so that the mixing is not learned.
        dead_start: whether θ starts at 0 instead, where go-mhc has no gradient; it takes no
            off_diagonal_mass.
        offsets: spread of the offsets that make the streams different at the start. At 0 the
            streams begin as copies, and a doubly stochastic first mixer has no gradient in the
            first step.
        inputs: what the mixing matrices are made from, see `HyperConnection`.
        reduce: how one stream is made of d at the end: "read" by learned weights, "mean" or "sum"
            (Note [The last mixer] in this module). The last two differ with norm_streams only.
        norm_streams: whether the last norm is taken of every stream, before they become one, as
            the go-mHC release has it, instead of after.

    Raises:
        TypeError: if a size is no integer.
        ValueError: if a size is below 1, heads do not divide the width, dropout, the mass or the
            offsets are out of range, a name is unknown, or a field is set that has no part beside
            the others.
    """

    vocabulary: int
    block: int
    layers: int
    heads: int
    width: int
    mlp: int | None = None
    dropout: float = 0.0
    mixer: str = RESIDUAL
    d: int = 4
    s: int | None = None
    iterations: int | None = None
    factors: tuple[int, ...] | None = None
    off_diagonal_mass: float = 0.01
    keep_function: bool = False
    frozen: bool = False
    dead_start: bool = False
    offsets: float = SPREAD
    inputs: Literal["all", "mean"] = "all"
    reduce: Literal["read", "mean", "sum"] = "read"
    norm_streams: bool = False

    def __post_init__(self) -> None:
        """Check the sizes; what only a mixer can check is checked when it is made."""
        for name in ("vocabulary", "block", "layers", "heads", "width", "d"):
            check_count(name, getattr(self, name), least=1)
        if self.mlp is not None:
            check_count("mlp", self.mlp, least=1)
        if self.width % self.heads:
            raise ValueError(f"expected heads to divide width {self.width}, got {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {self.dropout}")
        if self.reduce not in ("read", "mean", "sum"):
            raise ValueError(f"expected reduce as read, mean or sum; got {self.reduce!r}")
        if self.mixer != RESIDUAL and self.mixer not in MIXERS:
            names = ", ".join([RESIDUAL, *MIXERS])
            raise ValueError(f"expected a mixer out of {names}; got {self.mixer!r}")
        check_start(None, self.off_diagonal_mass)
        check_epsilon("offsets", self.offsets)
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        idle = [name for name in STREAMS if name in changed] if self.mixer == RESIDUAL else []
        if idle:
            raise ValueError(f"expected a mixer for {', '.join(idle)}, got residual")
        if self.dead_start and "off_diagonal_mass" in changed:
            raise ValueError(
                f"expected dead_start or off_diagonal_mass, got both: {self.off_diagonal_mass}"
            )

        if self.keep_function and (self.reduce != "mean" or self.offsets):
            raise ValueError(
                "expected reduce='mean' and offsets=0 with keep_function, got "
                f"{self.reduce!r} and {self.offsets}"
            )
        if self.keep_function and self.norm_streams:
            raise ValueError(
                "expected keep_function without norm_streams, which norms the streams before their "
                "mean is taken"
            )

    def make_mixer(self) -> Mixer | None:
        """The mixer of every hyper-connection; None for the plain residual."""
        if self.mixer == RESIDUAL:
            return None
        given = {name: getattr(self, name) for name in ("s", "iterations", "factors")}
        return make_mixer(self.mixer, self.d, **{k: v for k, v in given.items() if v is not None})


PRESETS: Mapping[str, GPTConfig] = {
    # Seconds on a CPU.
    "nano": GPTConfig(vocabulary=460, block=64, layers=2, heads=2, width=64),
    # Minutes on a CPU, seconds on a GPU.
    "small": GPTConfig(vocabulary=460, block=128, layers=4, heads=4, width=128),
    # The authors' model: 10.6 million weights in the blocks, 19.3 million in the embedding.
    "paper-30m": GPTConfig(vocabulary=50304, block=512, layers=6, heads=6, width=384, dropout=0.1),
}


def preset(name: str, **changes: Any) -> GPTConfig:
    """A named configuration, with changes.

    Args:
        name: "nano", "small" or "paper-30m".
        changes: fields of `GPTConfig`.

    Raises:
        ValueError: if there is no such preset.
        TypeError: if there is no such field.
    """
    if name not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}; got {name!r}")
    return replace(PRESETS[name], **changes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and every module back to what it was.

    Args:
        model: any module.

    Returns:
        A context manager.
    """
    was = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in was:
            module.training = training


class Attention(nn.Module):
    """Norm, causal self-attention, projection."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "batch tokens C"]) -> Float[Tensor, "batch tokens C"]:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        answer = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.drop(self.out(answer.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Norm, two linear layers with GELU between."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, bias=False)
        inside = config.mlp or 4 * config.width
        self.up = nn.Linear(config.width, inside, bias=False)
        self.out = nn.Linear(inside, config.width, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "batch tokens C"]) -> Float[Tensor, "batch tokens C"]:
        return self.drop(self.out(F.gelu(self.up(self.norm(x)))))


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        return x + self.branch(x)


class GPT(nn.Module):
    """Embedding, 2 × layers connections (attention and MLP by turns), norm, tied head.

    Streams are made after the embedding and become one again before the last norm.

    Source: GPT-2; sizes of "paper-30m": the go-mHC release; hyper-connections: `HyperConnection`.
    """

    def __init__(self, config: GPTConfig, seed: int = 0) -> None:
        """Make the model and start its weights (Note [Paired starts] in this module).

        Args:
            config: sizes.
            seed: of the start.

        Raises:
            ValueError: if the mixer takes no such d or options.
        """
        super().__init__()
        self.config = config
        mixer = config.make_mixer()
        own, other = (torch.Generator().manual_seed(seed + k * 2**32) for k in (1, 2))
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.block, config.width)
        self.drop = nn.Dropout(config.dropout)
        branches = [kind(config) for _ in range(config.layers) for kind in (Attention, MLP)]
        self.connections = nn.ModuleList(
            Residual(branch)
            if mixer is None
            else HyperConnection(
                config.width,
                branch,
                mixer,
                layer=layer,
                off_diagonal_mass=config.off_diagonal_mass,
                inputs=config.inputs,
                keep_function=config.keep_function,
                generator=own,
            )
            for layer, branch in enumerate(branches)
        )
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.offsets = self.read = None
        if mixer is not None:
            spread = config.offsets * torch.randn(config.d, config.width, generator=other)
            self.offsets = nn.Parameter(spread)
            if config.reduce == "read":
                self.read = nn.Parameter(preference(config.d, len(branches)))
        self._start(torch.Generator().manual_seed(seed))
        for connection in self.connections:
            if config.frozen and isinstance(connection, HyperConnection):
                connection.freeze_mixing()

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=SPREAD, generator=generator)
        for module in self.modules():
            if isinstance(module, Attention | MLP):
                # So that the residual's size does not depend on the number of branches: GPT-2.
                module.out.weight.div_(len(self.connections) ** 0.5)
            elif isinstance(module, HyperConnection) and self.config.dead_start:
                module.bias[: module.mixer.num_parameters] = 0

    def forward(
        self,
        tokens: Int[Tensor, "batch tokens"],
        targets: Int[Tensor, "batch tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens vocabulary"], Float[Tensor, ""] | None]:
        """Logits of every next token, and their mean cross-entropy if targets are given.

        Args:
            tokens: (batch, up to block).
            targets: the token after each; −100 where none is to be predicted.

        Returns:
            Logits (batch, tokens, vocabulary); loss in nats a token, or None.

        Raises:
            ValueError: if there are more tokens than the block has.
        """
        length = tokens.shape[1]
        if length > self.config.block:
            raise ValueError(f"expected up to {self.config.block} tokens, got {length}")
        x = self.tokens(tokens) + self.positions.weight[:length]
        x = self.drop(x)
        if self.offsets is not None:
            x = expand_streams(x, self.config.d, self.offsets)
        for connection in self.connections:
            x = connection(x)
        if self.config.norm_streams:
            x = self.norm(x)
        if self.read is not None:
            x = (self.read.sigmoid()[:, None] * x).sum(-2)
        elif self.offsets is not None:
            x = reduce_streams(x, "sum" if self.config.reduce == "sum" else "mean")
        if not self.config.norm_streams:
            x = self.norm(x)
        logits = F.linear(x, self.tokens.weight)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    @torch.no_grad()
    def generate(
        self,
        tokens: Sequence[int],
        count: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        vocabulary: int | None = None,
        seed: int = 0,
    ) -> list[int]:
        """Go on with a text, each token drawn by the model's probabilities.

        Args:
            tokens: at least one.
            count: how many to add.
            temperature: that the logits are divided by; 0 takes the most probable token.
            top_k: draw from so many of the most probable tokens only.
            vocabulary: tokens that the text has, where the model has more.
            seed: of the draws.

        Returns:
            The tokens given and those added.

        Raises:
            TypeError: if a token, count, top_k or vocabulary is no integer.
            ValueError: if no token is given or one is unknown, count < 0, temperature < 0, or
                top_k or vocabulary < 1.
        """
        if not len(tokens):
            raise ValueError("expected at least one token to go on from, got none")
        known = self.config.vocabulary
        written = [check_count("tokens", token) for token in tokens]
        if max(written) >= known:
            raise ValueError(f"expected tokens below {known}, got {max(written)}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"expected temperature >= 0, got {temperature}")
        most = None if top_k is None else check_count("top_k", top_k, least=1)
        if vocabulary is not None:
            vocabulary = check_count("vocabulary", vocabulary, least=1)
        device = self.tokens.weight.device
        source = torch.Generator().manual_seed(seed)
        least = torch.finfo(torch.float32).tiny  # below it the logits' dtype would divide by 0
        with evaluating(self):
            for _ in range(check_count("count", count)):
                context = torch.tensor([written[-self.config.block :]], device=device)
                logits = self(context)[0][0, -1, :vocabulary].float().cpu()
                if temperature == 0:
                    written.append(int(logits.argmax()))
                    continue
                if most is not None and most < len(logits):
                    kept = logits.topk(most)
                    none = torch.full_like(logits, -math.inf)
                    logits = none.scatter(0, kept.indices, kept.values)
                weights = ((logits - logits.max()) / max(temperature, least)).softmax(-1)
                written.append(int(torch.multinomial(weights, 1, generator=source)))
        return written

    def num_parameters(self) -> int:
        """Trainable numbers, the tied embedding counted once."""
        return sum(weight.numel() for weight in self.parameters())

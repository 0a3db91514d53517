"""Another mixer in a model that has streams: our connection in the place of somebody else's.

Note [Their connections]
    DeepSeek-V4 (`transformers`) is `HyperConnection` with the mixer mhc, epsilons of its own and
    other names: rows of `fn` are in the order pre, post, comb, and `comb` is H_resᵀ, as it is
    summed over its first stream axis. Rows of `comb` are divided first, which are columns of H_res,
    as we do it.

    mHC (`hyper-connections`) differs in three ways. It norms every stream by itself, with a gain:
    streams that are normed so have a common root mean square of 1, so our norm leaves them as they
    are (unless some, not all, of a token's streams are zero), and the gain becomes part of W. A row
    of H_resᵀ, its `alpha`, is made from one stream, with the same weights for all: our W has these
    weights in the block of this stream and zeros elsewhere, which training may fill. And it divides
    columns of `alpha` first, those of H_resᵀ: so our H_res is its `alpha`, and acts by its
    transpose, whatever the mixer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gomhc.fused import Backend
from gomhc.fused.layer import matrices
from gomhc.hyper_connections import HOOKS, HyperConnection
from gomhc.maps import full_precision
from gomhc.mixers import MixerName, Sinkhorn, make_mixer

__all__ = ["DeepseekV4Mixing", "ManifoldConstrainedMixing", "replace_mixers"]


def _matrices(connection: HyperConnection, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H_res, H_pre and H_post in float32 or wider, whatever the dtypes of weights and streams."""
    wide = torch.promote_types(X.dtype, torch.float32)
    weight, bias, alpha = (x.to(wide) for x in connection.weights())
    epsilons = connection.norm_eps, connection.read_eps
    return matrices(X.to(wide), weight, bias, alpha, connection.mixer, *epsilons)


class DeepseekV4Mixing(nn.Module):
    """Our connection in the place of a `DeepseekV4HyperConnection`, whose contract it keeps.

    The decoder layer reads, writes and mixes: Y = combᵀ X + postᵀ F(collapsed).

    Attributes:
        connection: a `HyperConnection` around nothing, with the mixer and the weights; its
            `matrices` are those of this layer.

    Source: DeepSeek-V4 as in `transformers` 5.24.
    """

    def __init__(self, connection: HyperConnection) -> None:
        super().__init__()
        self.connection = connection

    def forward(
        self, hidden_streams: Float[Tensor, "*batch d C"]
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d d"], Float[Tensor, "*batch C"]]:
        """What the decoder layer asks for.

        Args:
            hidden_streams: X, (..., d, C), of any floating dtype.

        Returns:
            post = H_post (..., d) and comb = H_resᵀ (..., d, d) in float32 or wider; collapsed =
            H_pre X (..., C) in the dtype of X.
        """
        H_res, H_pre, H_post = _matrices(self.connection, hidden_streams)
        collapsed = (H_pre[..., None] * hidden_streams).sum(-2).to(hidden_streams.dtype)
        return H_post, H_res.mT, collapsed


class ManifoldConstrainedMixing(nn.Module):
    """Our connection in the place of hyper-connections' mHC, whose contract it keeps.

    Streams stand in the batch dimension, (batch·d, ..., C). H_res acts by its transpose (Note
    [Their connections] in this module).

    Attributes:
        connection: a `HyperConnection` around nothing, with the mixer and the weights; its
            `matrices` are those of this layer for streams that are normed one by one.
        branch: theirs, or None where the caller has it.
        dropout: theirs, of the streams that come out.

    Source: hyper-connections 0.4.11.
    """

    def __init__(
        self, connection: HyperConnection, branch: nn.Module | None, dropout: nn.Module
    ) -> None:
        super().__init__()
        self.connection, self.branch, self.dropout = connection, branch, dropout

    def forward(self, residuals: Tensor, *arguments: Any, **options: Any) -> Any:
        """The streams after the connection, or without a branch what it takes to make them.

        Args:
            residuals: (batch·d, ..., C), of any floating dtype.
            arguments: of the branch.
            options: likewise.

        Returns:
            (batch·d, ..., C), in a tuple if the branch gives one, which has to begin with its
            answer. Without a branch the stream to read, (batch, ..., C), and a function that takes
            the answer and gives the streams.
        """
        X = residuals.unflatten(0, (-1, self.connection.mixer.d)).movedim(1, -2)
        wide = X.to(torch.promote_types(X.dtype, torch.float32))
        normed = F.normalize(wide, dim=-1) * math.sqrt(X.shape[-1])
        H_res, H_pre, H_post = _matrices(self.connection, normed)
        with full_precision(X):
            read = (H_pre[..., None, :] @ wide).squeeze(-2).to(X.dtype)
            mixed = H_res.mT @ wide

        def add_residual(output: Any) -> Any:
            if isinstance(output, tuple):
                return add_residual(output[0]), *output[1:]
            added = mixed + H_post[..., None] * output[..., None, :]
            return self.dropout(added.movedim(-2, 1).flatten(0, 1).to(X.dtype))

        if self.branch is None:
            return read, add_residual
        return add_residual(self.branch(read, *arguments, **options))

    def decorate_branch(self, branch: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the streams, with the connection around this branch."""
        if self.branch is not None:
            raise ValueError("expected a connection without a branch to decorate one")

        def around(residuals: Tensor, *arguments: Any, **options: Any) -> Any:
            read, add_residual = self(residuals)
            return add_residual(branch(read, *arguments, **options))

        return around


class _Weights(NamedTuple):
    """Of a connection as ours would have them, in the order res, pre, post, with mixer mhc."""

    d: int
    weight: Float[Tensor, "rows width"]
    bias: Float[Tensor, " rows"]
    alpha: Float[Tensor, " three"]
    sinkhorn: dict[str, Any]  # options of mhc
    epsilons: dict[str, float]  # of the connection
    place: Callable[[HyperConnection], nn.Module]  # what presents ours as theirs


class _CannotReplaceError(Exception):
    """Why a connection cannot be replaced."""


def _of_deepseek(module: Any) -> _Weights:
    d = module.hc_mult

    def ours(rows: Tensor) -> Tensor:
        """Rows of pre, post and comb as rows of H_res, pre and post."""
        comb = rows[2 * d :].unflatten(0, (d, d)).transpose(0, 1).flatten(0, 1)
        return torch.cat([comb, rows[: 2 * d]])

    sinkhorn = {"iterations": module.hc_sinkhorn_iters, "eps": module.hc_eps}
    epsilons = {"norm_eps": module.input_norm.eps, "read_eps": module.hc_eps}
    tensors = ours(module.fn), ours(module.base), module.scale[[2, 0, 1]]
    return _Weights(d, *tensors, sinkhorn, epsilons, DeepseekV4Mixing)


def _of_mhc(module: Any) -> _Weights:
    d, constraint = module.num_residual_streams, module.residual_mix_constraint_fn
    name = getattr(getattr(constraint, "func", None), "__name__", None)
    sinkhorn = name in ("sinkhorn_knopps", "log_domain_sinkhorn_knopps")
    unknown = {
        "num_fracs > 1": module.num_fracs > 1,
        "num_input_views > 1": module.num_input_views > 1,
        "num_dynamic_alpha_proposals > 1": module.num_dynamic_alpha_proposals > 1,
        "channel_first": module.channel_first,
        "a residual_transform": type(module.residual_transform) is not nn.Identity,
        "add_branch_out_to_residual=False": not module.add_branch_out_to_residual,
        "a depth_residual_fn": getattr(module.depth_residual_fn, "__name__", None) != "add",
        "a residual_mix_constraint_fn": not sinkhorn,
        "forward_method_names": bool(module.forward_method_names),
    }
    present = [option for option, is_present in unknown.items() if is_present]
    if present:
        raise _CannotReplaceError(f"it has {', '.join(present)}")
    gain = module.norm.gamma + 1
    read, *mixed = (gain * row for row in module.dynamic_alpha_fn[0].T)
    parts = torch.stack(mixed), read[None], gain * module.dynamic_beta_fn[None]
    own = torch.eye(d).to(gain)  # the block of its own stream
    weight = torch.cat([torch.kron(own, part) for part in parts])
    static = module.static_alpha
    bias = torch.cat([static[:, 1:].flatten(), static[:, 0], module.static_beta])
    alpha = torch.cat([module.residual_scale, module.pre_branch_scale, module.h_post_scale[None]])
    iterations = {"iterations": constraint.keywords["iters"]}

    def place(connection: HyperConnection) -> nn.Module:
        return ManifoldConstrainedMixing(connection, module.branch, module.dropout)

    return _Weights(d, weight, bias, alpha, iterations, {}, place)


KNOWN: dict[str, Callable[[Any], _Weights]] = {
    "transformers.models.deepseek_v4.modeling_deepseek_v4.DeepseekV4HyperConnection": _of_deepseek,
    "transformers.models.glm5_next.modeling_glm5_next.Glm5NextTextHyperConnection": _of_deepseek,
    "hyper_connections.manifold_constrained_hyper_connections."
    "ManifoldConstrainedHyperConnections": _of_mhc,
}


def _is_connection(module: nn.Module) -> bool:
    """By name, so that no package need be imported: theirs, whether we know them or not."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]
    return any(
        name.endswith(("HyperConnection", "HyperConnections")) and not name.startswith("gomhc.")
        for name in names
    )


def _weights(module: nn.Module) -> _Weights:
    kind = type(module)
    reader = KNOWN.get(f"{kind.__module__}.{kind.__qualname__}")
    if reader is None:
        raise _CannotReplaceError("it is of a kind that we do not know")
    if any(getattr(module, hooks) for hooks in HOOKS) or "forward" in vars(module):
        raise _CannotReplaceError("it has hooks, which would be lost")
    return reader(module)


@torch.no_grad()
def replace_mixers(
    model: nn.Module,
    mixer: MixerName | str,
    *,
    off_diagonal_mass: float = 0.01,
    backend: Backend = "auto",
    generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Module:
    """Put our connection with a mixer of one's choice in the place of a model's own.

    What reads and writes the streams, H_pre and H_post, stays as the model has it. With "mhc" H_res
    does too, and the model computes what it did. Every other mixer begins as in a new
    `HyperConnection`: b_res is its `initial_theta`, near I with a live gradient (θ = 0 has none for
    go-mhc), W_res = 0 and α_res = 0.01. So the model's function changes, and it has to be trained.
    Everything else stays, also what makes one stream of many in the end (DeepSeek-V4's `hc_head`
    has no mixer). Note [Their connections] in `gomhc.convert.swap` says how their connections and
    ours agree.

    Known are those of DeepSeek-V4 and GLM-5-Next in `transformers`, and mHC of hyper-connections.
    Device, dtype, training mode and which of W, b and α are trained are taken over; b and α are in
    float32 at least. Make the optimizer afterwards. `from_pretrained` builds a model's own class,
    so to save and load a model let its class call `replace_mixers(self, …)` at the end of
    `__init__`.

    Args:
        model: any module; it is changed.
        mixer: name of the mixer, see `make_mixer`.
        off_diagonal_mass: of a new H_res at the start, see `Mixer.initial_theta`.
        backend: of the mixer, see `make_mixer`.
        generator: source of randomness for mixers with a random start.
        options: of the mixer; for mhc those that are not given are the model's.

    Returns:
        The model; or, if it is itself a connection, what takes its place.

    Raises:
        TypeError: if the model is no module, the mixer has no such option, or d is given.
        ValueError: if there is no connection, or one cannot be replaced: then all such are named,
            and nothing is changed; if the mixer does not allow their number of streams.
        RuntimeError: if the backend is "fused" and there is no compiled code for the mixer, as for
            mhc with DeepSeek-V4's eps.

    Source: this library; mHC, arXiv 2512.24880; go-mHC, arXiv 2604.02309.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module, got {type(model).__name__}")
    if "d" in options:
        raise TypeError("expected no d, as the model has its number of streams")
    new: dict[nn.Module, nn.Module] = {}
    obstacles = []
    for name, module in model.named_modules():
        if not _is_connection(module):
            continue
        try:
            with torch.enable_grad():  # so that what is made of trained weights says so
                weights = _weights(module)
        except _CannotReplaceError as why:
            obstacles.append(f"{name or 'the model'} ({type(module).__name__}): {why}")
            continue
        given = {**weights.sinkhorn, **options} if mixer == "mhc" else options
        connection = _connection(weights, mixer, given, backend, off_diagonal_mass, generator)
        new[module] = weights.place(connection.train(module.training))
        new[module].training = module.training  # its branch keeps a mode of its own
    if obstacles:
        raise ValueError(f"expected connections that can be replaced, got {'; '.join(obstacles)}")
    if not new:
        ours = (DeepseekV4Mixing, ManifoldConstrainedMixing)
        if any(isinstance(module, ours) for module in model.modules()):
            raise ValueError("expected a model's own connections, but they were replaced before")
        raise ValueError(
            "expected a model with connections of DeepSeek-V4 or GLM-5-Next (transformers) or mHC "
            f"(hyper-connections), got none in a {type(model).__name__}"
        )
    for parent in [*model.modules(), *new.values()]:
        for name, child in list(parent.named_modules(remove_duplicate=False)):
            if child in new and name and "." not in name:
                setattr(parent, name, new[child])
    return new.get(model, model)


def _connection(
    weights: _Weights,
    name: str,
    options: dict[str, Any],
    backend: Backend,
    off_diagonal_mass: float,
    generator: torch.Generator | None,
) -> HyperConnection:
    """Ours with their weights; with those of H_res too, if its mixer is theirs."""
    d, width = weights.d, weights.weight.shape[1]
    mixer = make_mixer(name, d, backend=backend, **options)
    start = {"off_diagonal_mass": off_diagonal_mass, "generator": generator}
    choices: dict[str, Any] = {**start, **weights.epsilons}
    connection = HyperConnection(width // d, nn.Identity(), mixer, **choices).to(weights.weight)
    whole = isinstance(mixer, Sinkhorn)
    ours, theirs, first = (0, 0, 0) if whole else (mixer.num_parameters, d * d, 1)
    connection.weight[ours:] = weights.weight[theirs:]
    connection.bias[ours:] = weights.bias[theirs:]
    connection.alpha[first:] = weights.alpha[first:]
    for name in ("weight", "bias", "alpha"):
        getattr(connection, name).requires_grad_(getattr(weights, name).requires_grad)
    return connection

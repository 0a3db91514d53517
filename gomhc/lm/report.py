"""What the streams of a trained model do: how they are mixed, and whether it matters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gomhc.composition import composite_gain, composites, smallest_singular_value
from gomhc.hyper_connections import HyperConnection
from gomhc.lm.model import GPT, evaluating
from gomhc.maps import marginal_error
from gomhc.mixers.base import Mixer

__all__ = ["StreamReport", "stream_report"]


class StreamReport(NamedTuple):
    """One row a hyper-connection, in the order of the network; means over all tokens.

    A composite is the product of the mixing matrices up to and with this layer, token by token.

    Attributes:
        mixing: H_res.
        marginal_error: largest deviation of a row or column sum of an H_res from 1, over tokens.
        distance: ‖H_res − I‖ in the Frobenius norm.
        gain_forward: largest absolute row sum of the composite.
        gain_backward: largest absolute column sum.
        smallest: σ_min of the composite.
        difference: share of the energy of differences between streams that the composite keeps,
            ‖C(I − J/d)‖² / (d − 1) in the Frobenius norm, J = 11ᵀ; 1 for I, 0 for J/d.
        effective: effective number of streams that enter, (Σλ)² / Σλ² over the eigenvalues λ of
            their Gram matrix; 1 if they all point one way, d if orthogonal and equally long. No
            mean is taken off, so a large part that all streams share brings it close to 1.
        dominance: share of the squared length that the longest stream that enters has.
        loss: of the model as it is, nats a token.
        change: how much the loss rises if the mixers of some layers are replaced: "early" or
            "late", the first or second half of the layers, or "all"; by "I" or by their "mean" over
            tokens.
    """

    mixing: Float[Tensor, "layers d d"]
    marginal_error: Float[Tensor, " layers"]
    distance: Float[Tensor, " layers"]
    gain_forward: Float[Tensor, " layers"]
    gain_backward: Float[Tensor, " layers"]
    smallest: Float[Tensor, " layers"]
    difference: Float[Tensor, " layers"]
    effective: Float[Tensor, " layers"]
    dominance: Float[Tensor, " layers"]
    loss: float
    change: dict[str, float]


class _Fixed(Mixer):
    """The same matrix whatever θ is."""

    exact = False

    def __init__(self, matrix: Float[Tensor, "d d"], num_parameters: int) -> None:
        super().__init__(len(matrix), num_parameters)
        self.matrix = matrix

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return self.matrix.to(theta).expand(*theta.shape[:-1], self.d, self.d)

    def initial_theta(
        self, generator: torch.Generator | None = None, off_diagonal_mass: float = 0.01
    ) -> Float[Tensor, " g"]:
        return torch.zeros(self.num_parameters)


@contextmanager
def _replaced(
    connections: Sequence[HyperConnection], matrices: Float[Tensor, "layers d d"]
) -> Iterator[None]:
    """Mixers of some connections held at given matrices."""
    mixers = [connection.mixer for connection in connections]
    try:
        for connection, mixer, matrix in zip(connections, mixers, matrices, strict=True):
            connection.mixer = _Fixed(matrix, mixer.num_parameters)
        yield
    finally:
        for connection, mixer in zip(connections, mixers, strict=True):
            connection.mixer = mixer


@contextmanager
def _one_way(connections: Sequence[HyperConnection]) -> Iterator[None]:
    """All by PyTorch: a fixed matrix has no compiled form, and rounding is no change of loss."""
    backends = [connection.backend for connection in connections]
    try:
        for connection in connections:
            connection.backend = "reference"
        yield
    finally:
        for connection, backend in zip(connections, backends, strict=True):
            connection.backend = backend


@torch.no_grad()
def stream_report(model: GPT, windows: Int[Tensor, "batch length"]) -> StreamReport:
    """Watch the streams of a model while it reads some text.

    Args:
        model: with hyper-connections; it is left as it was.
        windows: (batch, up to block + 1) tokens; every token but the first is predicted.

    Returns:
        StreamReport, on the CPU.

    Raises:
        ValueError: if the model has no streams, or the windows are none or not of its lengths.

    Source: gains: mHC, arXiv 2512.24880; collapse of streams: arXiv 2606.03483.
    """
    connections = [c for c in model.connections if isinstance(c, HyperConnection)]
    if not connections:
        raise ValueError("expected a model with hyper-connections, got one with a plain residual")
    most = model.config.block + 1
    if windows.ndim != 2 or not len(windows) or not 2 <= windows.shape[1] <= most:
        raise ValueError(
            f"expected windows (batch, 2 to {most}) of tokens, got shape {tuple(windows.shape)}"
        )
    windows = windows.to(next(model.parameters()).device)
    entering: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entering.append(inputs[0].flatten(0, 1))

    def loss() -> float:
        value = model(windows[:, :-1], windows[:, 1:])[1]
        assert value is not None
        return value.item()

    with evaluating(model), _one_way(connections):
        handles = [connection.register_forward_pre_hook(keep) for connection in connections]
        try:
            as_it_is = loss()
        finally:
            for handle in handles:
                handle.remove()
        pairs = list(zip(connections, entering, strict=True))
        H = torch.stack([connection.matrices(X)[0] for connection, X in pairs], 1)
        mean = H.mean(0)
        eye = torch.eye(H.shape[-1], device=H.device).expand_as(mean)
        half = len(connections) // 2
        parts = {"early": slice(half), "late": slice(half, None), "all": slice(None)}
        change = {}
        for name, part in parts.items():
            for kind, matrices in {"I": eye, "mean": mean}.items():
                with _replaced(connections[part], matrices[part]):
                    change[f"{name} as {kind}"] = loss() - as_it_is
    C = composites(H)
    gain = composite_gain(C)
    d = H.shape[-1]
    centred = C - C.mean(-1, keepdim=True)
    gram = torch.stack([X.float() @ X.float().mT for _, X in pairs], 1)
    trace = gram.diagonal(dim1=-2, dim2=-1)
    report = StreamReport(
        mixing=mean,
        marginal_error=marginal_error(H).amax(0),
        distance=(H - eye).norm(dim=(-2, -1)).mean(0),
        gain_forward=gain.forward.mean(0),
        gain_backward=gain.backward.mean(0),
        smallest=smallest_singular_value(C).mean(0),
        difference=centred.square().sum((-2, -1)).mean(0) / max(d - 1, 1),
        effective=(trace.sum(-1).square() / gram.square().sum((-2, -1))).mean(0),
        dominance=(trace.amax(-1) / trace.sum(-1)).mean(0),
        loss=as_it_is,
        change=change,
    )
    tensors: dict[str, Any] = {
        key: part.cpu() for key, part in report._asdict().items() if isinstance(part, Tensor)
    }
    return report._replace(**tensors)

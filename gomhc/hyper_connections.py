"""The layer around a layer: several residual streams, read, written and mixed at every branch.

Note [Starts]
    Streams that are all equal stay equal under any doubly stochastic matrix, and then nothing
    depends on θ: its gradient is zero, whatever the family. So streams must differ from the
    beginning. Two things see to that: `expand_streams` can add an offset to each copy, and the
    layers read and write the streams unevenly, layer l preferring stream l mod d.

Note [Precision]
    Under autocast the generators' matrix product runs in the narrow dtype, as any linear layer.
    What comes after it does not: θ is put together and mapped in float32, and the product with the
    streams is taken there too. bfloat16 would round the entries of H_res to three digits, and its
    row sums with them.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gomhc.checks import check_count
from gomhc.maps import full_precision
from gomhc.mixers.base import Mixer, check_mixer

__all__ = ["HyperConnection", "expand_streams", "reduce_streams"]

ALPHA = 0.01  # start of the three gates of the dynamic parts


def expand_streams(
    x: Float[Tensor, "*batch C"], d: int, offsets: Float[Tensor, "d C"] | None = None
) -> Float[Tensor, "*batch d C"]:
    """Make d streams of one: copies, each with an offset of its own if given.

    Args:
        x: (..., C).
        d: number of streams.
        offsets: (d, C), added to the copies. Without them the streams are equal, and the first
            mixer, if doubly stochastic, has no gradient (Note [Starts] in this module).

    Returns:
        (..., d, C); without offsets a view of x, as with `Tensor.expand`.

    Raises:
        TypeError: if d is no integer.
        ValueError: if d < 1, or the offsets are not (d, C).
    """
    d = check_count("d", d, least=1)
    streams = x[..., None, :].expand(*x.shape[:-1], d, x.shape[-1])
    if offsets is None:
        return streams
    if offsets.shape != (d, x.shape[-1]):
        raise ValueError(f"expected offsets ({d}, {x.shape[-1]}), got shape {tuple(offsets.shape)}")
    return streams + offsets


def reduce_streams(
    X: Float[Tensor, "*batch d C"], how: Literal["mean", "sum"] = "mean"
) -> Float[Tensor, "*batch C"]:
    """Make one stream of d.

    Before a norm that divides by the length, sum and mean are the same.

    Args:
        X: (..., d, C).
        how: "mean", so that copies give back what they were made of, or "sum".

    Returns:
        (..., C).

    Raises:
        ValueError: if it is neither, or X has fewer dimensions.
    """
    if X.ndim < 2:
        raise ValueError(f"expected streams (..., d, C), got {tuple(X.shape)}")
    if how == "mean":
        return X.mean(-2)
    if how == "sum":
        return X.sum(-2)
    raise ValueError(f"expected how as 'mean' or 'sum', got {how!r}")


def preference(d: int, layer: int) -> Float[Tensor, " d"]:
    """Start of b_pre and b_post: 1 for stream `layer` mod d, −1 for the others."""
    start = -torch.ones(d)
    start[layer % d] = 1.0
    return start


class HyperConnection(nn.Module):
    """A residual connection over d streams, X' = H_res X + H_postᵀ F(H_pre X).

    With x' = RMSNorm(flatten(X)) of length dC, every token makes its own matrices:

        H_pre  = σ(α_pre x'W_pre + b_pre)         (1, d), how the streams are read
        H_post = 2σ(α_post x'W_post + b_post)     (1, d), how the branch's answer is written
        H_res  = mixer(α_res x'W_res + b_res)     (d, d), how the streams are mixed

    It takes the place of `x + branch(x)`, and has (dC + 1)g + 2d²C + 2d + 3 parameters beside the
    branch's, where g is `mixer.num_parameters`; with inputs="mean" C stands for dC in it.

    Args:
        dim: C, features of a stream.
        branch: F; returns what it is given in shape, such as a block with a norm of its own.
        mixer: from `make_mixer`; its d is the number of streams.
        layer: index of this connection in the network; it prefers stream `layer` mod d.
        off_diagonal_mass: of H_res at the start, see `Mixer.initial_theta`; identity has none.
        inputs: what the matrices are made from: "all" streams side by side, or their "mean" (x'
            then has the length C, and W as many columns).
        generator: source of randomness for mixers with a random start.

    Raises:
        TypeError: if dim is no integer, the mixer is none, such as a mixer's name, or the branch
            cannot be called.
        ValueError: if dim < 1, layer < 0, or inputs is neither.

    Attributes:
        branch: F, any module or function (..., C) -> (..., C), with its own norm.
        mixer: the map θ ↦ H_res.
        weight: (g + 2d, dC), or (g + 2d, C) for "mean": the rows of W_res, W_pre and W_post.
        bias: (g + 2d,), b_res, b_pre and b_post.
        alpha: (3,), α_res, α_pre and α_post.

    Source: Hyper-Connections, arXiv 2409.19606; this form: mHC, arXiv 2512.24880, section 4.
    """

    def __init__(
        self,
        dim: int,
        branch: Callable[..., Tensor],
        mixer: Mixer,
        *,
        layer: int = 0,
        off_diagonal_mass: float = 0.01,
        inputs: Literal["all", "mean"] = "all",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        dim = check_count("dim", dim, least=1)
        check_mixer(mixer)
        if not callable(branch):
            raise TypeError(f"expected a branch (..., C) -> (..., C) to call, got {branch!r}")
        if not hasattr(layer, "__index__") or layer < 0:
            raise ValueError(f"expected an integer layer >= 0, got {layer!r}")
        if inputs not in ("all", "mean"):
            raise ValueError(f"expected inputs as 'all' or 'mean', got {inputs!r}")
        d, g = mixer.d, mixer.num_parameters
        self.dim, self.inputs = dim, inputs
        self.branch, self.mixer = branch, mixer
        width = d * dim if inputs == "all" else dim
        self.weight = nn.Parameter(torch.zeros(g + 2 * d, width))
        preferred = preference(d, layer)
        theta = mixer.initial_theta(generator, off_diagonal_mass)
        self.bias = nn.Parameter(torch.cat([theta, preferred, preferred]))
        self.alpha = nn.Parameter(torch.full((3,), ALPHA))

    def matrices(
        self, X: Float[Tensor, "*batch d C"]
    ) -> tuple[Float[Tensor, "*batch d d"], Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """H_res (..., d, d), H_pre and H_post (..., d) of every token, in float32 or wider.

        Raises:
            ValueError: if X is not (..., d, C).
        """
        d, g = self.mixer.d, self.mixer.num_parameters
        if X.shape[-2:] != (d, self.dim):
            raise ValueError(f"expected streams (..., {d}, {self.dim}), got {tuple(X.shape)}")
        x = X.flatten(-2) if self.inputs == "all" else X.mean(-2)
        dynamic = F.linear(F.rms_norm(x, x.shape[-1:]), self.weight)
        with full_precision(X):
            wide = torch.promote_types(dynamic.dtype, torch.float32)
            parts = dynamic.to(wide).split([g, d, d], -1)
            static = self.bias.to(wide).split([g, d, d])
            theta, pre, post = (
                alpha * part + start
                for alpha, part, start in zip(self.alpha.to(wide), parts, static, strict=True)
            )
            return self.mixer(theta), pre.sigmoid(), 2 * post.sigmoid()

    def forward(
        self, X: Float[Tensor, "*batch d C"], *arguments: Any, **options: Any
    ) -> Float[Tensor, "*batch d C"]:
        """The streams after this connection, in the dtype that they came in.

        Args:
            X: (..., d, C).
            arguments: of the branch beside the stream that it reads, such as a mask.
            options: likewise.

        Returns:
            (..., d, C).

        Raises:
            ValueError: if X is not (..., d, C), or the branch does not return one tensor of the
                shape (..., C) that it was given.
        """
        H_res, H_pre, H_post = self.matrices(X)
        with full_precision(X):
            wide = X.to(H_res.dtype)
            read = (H_pre[..., None, :] @ wide).squeeze(-2).to(X.dtype)
        written = self.branch(read, *arguments, **options)
        if not isinstance(written, Tensor) or written.shape != read.shape:
            got = tuple(written.shape) if isinstance(written, Tensor) else type(written).__name__
            raise ValueError(
                f"expected the branch to return one tensor of shape {tuple(read.shape)}, got {got}"
            )
        with full_precision(X):
            mixed = H_res @ wide + H_post[..., None] * written[..., None, :].to(wide.dtype)
            return mixed.to(X.dtype)

    def extra_repr(self) -> str:
        """Sizes shown when the module is printed."""
        return f"dim={self.dim}, d={self.mixer.d}, inputs={self.inputs!r}"

"""The layer around a layer: several residual streams, read, written and mixed at every branch.

Note [Starts]
    Streams that are all equal stay equal under any doubly stochastic matrix, and then nothing
    depends on θ: its gradient is zero, whatever the family. So streams must differ from the
    beginning. Two things see to that: `expand_streams` can add an offset to each copy, and the
    layers read and write the streams unevenly, layer l preferring stream l mod d.

Note [Kept function]
    Where the columns of H_res sum to 1, H_pre = 1ᵀ/d and the entries of H_post have the mean 1, the
    mean of the streams m becomes m + F(m): it is the plain residual network, whatever θ is. If the
    streams begin as copies and their mean is read at the end, the network gives the same outputs as
    without streams. H_post differs from stream to stream, or the streams would stay copies.

    In the first step the θ of a doubly stochastic mixer has no gradient, as nothing but the mean is
    read; b_pre has one, and after a step θ has too. Two of these θ never have one: that of the
    first connection, whose streams are copies, unless offsets are trained, and that of the last,
    which moves only what the mean forgets. Nor has b_pre of the first where the branch begins with
    a norm: of copies it scales only what the norm divides out. (hc and orthogonal keep the function
    at H_res = I alone, and their θ has a gradient from the first step on.)

    "No gradient" means in real arithmetic. In float32 rounding leaves 1e-10 to 1e-7, which Adam
    scales to steps of the learning rate: such a θ then drifts at random. No output depends on that
    of the first or of the last connection.

Note [Precision]
    Under autocast the matrix product that makes θ runs in the narrow dtype, as any linear layer.
    What comes after it does not: θ is put together and mapped in float32, and the product with the
    streams is taken there too. bfloat16 would round the entries of H_res to three digits, and its
    row sums with them. For the same reason b and α stay in float32 when the layer is cast to a
    narrower dtype: a step of 1e-3 is less than half of what separates 1 from its neighbours in
    bfloat16, and would move no gate that begins at ±1. W starts at 0, where numbers lie close, and
    is cast. What shards parameters, such as FSDP, may ask for one dtype in all of them: train in
    float32, under autocast or with a mixed-precision policy.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

import gomhc.fused.flops  # noqa: F401 (tells PyTorch's flop counter of the operators)
from gomhc.checks import check_count, check_epsilon
from gomhc.closures import shared_weights
from gomhc.fused import STREAMED, Backend, check_backend, choose, transformed
from gomhc.fused.layer import matrices, read_streams, write_reference, write_streams
from gomhc.maps import autocast_dtype, full_precision
from gomhc.mixers.base import Mixer, check_mixer, own_stages
from gomhc.mixers.identity import Identity

__all__ = ["HyperConnection", "expand_streams", "reduce_streams"]

HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
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
        ValueError: if d < 1, x has no dimension, or the offsets are not (d, C).
    """
    d = check_count("d", d, least=1)
    if x.ndim < 1:
        raise ValueError(f"expected a stream (..., C), got {tuple(x.shape)}")
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


def keeping(d: int, layer: int) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Starts of b_pre and b_post that keep the function (Note [Kept function] in this module)."""
    if d == 1:
        raise ValueError("expected d >= 2, for a start that keeps the function, got 1")
    written = torch.full((d,), 1 - 0.5 / (d - 1), dtype=torch.float64)
    written[layer % d] = 1.5
    return torch.full_like(written, -math.log(d - 1)), torch.logit(written / 2)


class HyperConnection(nn.Module):
    """A residual connection over d streams, X' = H_res X + H_postᵀ F(H_pre X).

    With x' = RMSNorm(flatten(X)) of length dC, every token makes its own matrices:

        H_pre  = σ(α_pre x'W_pre + b_pre)         (1, d), how the streams are read
        H_post = 2σ(α_post x'W_post + b_post)     (1, d), how the branch's answer is written
        H_res  = mixer(α_res x'W_res + b_res)     (d, d), how the streams are mixed

    Streams in float32 that are larger than 1e19 overflow in the mean square where PyTorch
    takes it: there x' = 0 and its derivative is NaN. Compiled code on a CPU takes it in float64.

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
        backend: "auto" takes compiled passes over the streams where they apply and the mixer asks
            for nothing else (Note [Choice] in `gomhc.fused`), "reference" PyTorch everywhere;
            "fused" raises where compiled code cannot run. It counts for the mixer too. On a GPU
            tokens that its kernels are not exact enough for are NaN, see there.
        norm_eps: added to the mean square in RMSNorm; None is the rounding of float32, 1.2e-7, or
            of float64 for such streams.
        read_eps: added to H_pre. DeepSeek-V4 sets norm_eps and read_eps to 1e-6. If either is set,
            only the mixer is compiled.
        keep_function: whether it starts as x + F(x) on the mean of the streams (Note [Kept
            function] in this module), for doubly stochastic mixers, and for others at H_res = I.
        generator: source of randomness for mixers with a random start.

    Raises:
        TypeError: if dim or layer is no integer, the mixer is none, such as a mixer's name, the
            branch cannot be called, or an eps is no number.
        ValueError: if dim < 1, layer < 0, inputs is neither, there is no such backend, or an eps is
            negative; if the function is to be kept with one stream.
        RuntimeError: if the backend is "fused" beside norm_eps or read_eps; when called, if that
            path cannot run here.

    Attributes:
        branch: F, any module or function (..., C) -> (..., C), with its own norm.
        mixer: the map θ ↦ H_res.
        weight: (g + 2d, dC), or (g + 2d, C) for "mean": the rows of W_res, W_pre and W_post.
        bias: (g + 2d,), b_res, b_pre and b_post, in float32 or wider (Note [Precision]).
        alpha: (3,), α_res, α_pre and α_post, likewise.

    Source: Hyper-Connections, arXiv 2409.19606; this form: mHC, arXiv 2512.24880, section 4.
    """

    if TYPE_CHECKING:

        def __call__(
            self, X: Float[Tensor, "*batch d C"], *arguments: Any, **options: Any
        ) -> Float[Tensor, "*batch d C"]:
            """See `forward`; what torch's own annotation leaves open."""

    def __init__(
        self,
        dim: int,
        branch: Callable[..., Tensor],
        mixer: Mixer,
        *,
        layer: int = 0,
        off_diagonal_mass: float = 0.01,
        inputs: Literal["all", "mean"] = "all",
        backend: Backend = "auto",
        norm_eps: float | None = None,
        read_eps: float = 0.0,
        keep_function: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        dim = check_count("dim", dim, least=1)
        check_mixer(mixer)
        if not callable(branch) or isinstance(branch, type):
            raise TypeError(f"expected a branch (..., C) -> (..., C) to call, got {branch!r}")
        layer = check_count("layer", layer)
        if inputs not in ("all", "mean"):
            raise ValueError(f"expected inputs as 'all' or 'mean', got {inputs!r}")
        d, g = mixer.d, mixer.num_parameters
        check_backend(backend)
        self.dim, self.inputs, self.backend, self.frozen = dim, inputs, backend, False
        self.norm_eps = None if norm_eps is None else check_epsilon("norm_eps", norm_eps)
        self.read_eps = check_epsilon("read_eps", read_eps)
        self._compiled()
        self.branch, self.mixer = branch, mixer
        width = d * dim if inputs == "all" else dim
        self.weight = nn.Parameter(torch.zeros(g + 2 * d, width))
        preferred = preference(d, layer)
        gates = keeping(d, layer) if keep_function else (preferred, preferred)
        theta = mixer.initial_theta(generator, off_diagonal_mass)
        wide = torch.promote_types(theta.dtype, torch.float32)
        self.bias = nn.Parameter(torch.cat([theta, *gates]).to(wide))
        self.alpha = nn.Parameter(torch.full((3,), ALPHA, dtype=wide))

    def freeze_mixing(self) -> None:
        """Give all tokens the θ of b_res, and train neither: their gradients are 0 from now on.

        W_res becomes 0, and what is loaded in its place later has no effect. Momentum and weight
        decay of an optimizer move what has no gradient: call it before the first step, and keep
        connections out of decay, as `parameter_groups` does. Copies and layers that are unpickled
        are frozen too; a `state_dict` does not say that its layer was.
        """
        self.frozen = True
        with torch.no_grad():
            self.weight[: self.mixer.num_parameters] = 0

    def weights(
        self,
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, " rows"], Float[Tensor, " three"]]:
        """W, b and α as they act; of frozen mixing, b_res without a gradient and W_res = 0."""
        if not self.frozen:
            return self.weight, self.bias, self.alpha
        g = self.mixer.num_parameters
        still = torch.zeros_like(self.weight[:g]), self.bias[:g].detach(), self.alpha[:1].detach()
        moving = self.weight[g:], self.bias[g:], self.alpha[1:]
        W, b, alpha = (torch.cat(pair) for pair in zip(still, moving, strict=True))
        return W, b, alpha

    def matrices(
        self, X: Float[Tensor, "*batch d C"]
    ) -> tuple[Float[Tensor, "*batch d d"], Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """H_res (..., d, d), H_pre and H_post (..., d) of every token, in float32 or wider.

        Raises:
            ValueError: if X is not (..., d, C), or the weights are not of the shapes that the mixer
                takes.
            TypeError: if X has another dtype than the weights, and autocast does not see to it.
        """
        self._check(X)
        mix: Callable[[Tensor], Tensor] = self.mixer
        if self.backend == "reference":
            mix = functools.partial(self.mixer, backend="reference")
        epsilons = self.norm_eps, self.read_eps
        return matrices(X, *self.weights(), mix, *epsilons)

    def _check(self, X: Tensor) -> None:
        if X.shape[-2:] != (self.mixer.d, self.dim):
            d = self.mixer.d
            hint = f"; expand_streams(x, {d}) makes them of one" * (X.shape[-1:] == (self.dim,))
            expected = f"(..., {d}, {self.dim})"
            raise ValueError(f"expected streams {expected}, got {tuple(X.shape)}{hint}")
        both = {X.dtype, self.weight.dtype}  # autocast leaves float64 as it is
        if len(both) > 1 and (autocast_dtype(X) is None or torch.float64 in both):
            raise TypeError(
                f"expected streams in {self.weight.dtype}, as the connection's weights are, got "
                f"{X.dtype}"
            )
        rows = self.mixer.num_parameters + 2 * self.mixer.d
        width = self.dim * self.mixer.d if self.inputs == "all" else self.dim
        shapes = (rows, width), (rows,), (3,)
        got = tuple(tuple(own.shape) for own in (self.weight, self.bias, self.alpha))
        if got != shapes:  # compiled code would read what is not there
            raise ValueError(
                f"expected weight, bias and alpha of shapes {shapes}, as this mixer with "
                f"{self.mixer.num_parameters} parameters takes, got {got}; for another mixer make "
                "another connection"
            )

    def _backend(self) -> Backend:
        """Its own; where that is "auto", a mixer that goes through PyTorch takes it along."""
        check_backend(self.backend)
        plain = self.backend == "auto" and self.mixer.backend == "reference"
        return "reference" if plain else self.backend

    def _compiled(self) -> bool:
        """Whether there are compiled passes for its options; raises if asked for in vain."""
        own = {
            "norm_eps": self.norm_eps is not None,
            "read_eps": self.read_eps != 0,
            "matrices of a subclass": type(self).matrices is not HyperConnection.matrices,
        }
        if any(own.values()) and self.backend == "fused":
            got = ", ".join(name for name, has in own.items() if has)
            raise RuntimeError(
                "expected a case that the fused path can run: its passes over the streams have no "
                f"{', no '.join(own)}; got {got}"
            )
        return not any(own.values())

    def _stages(self, X: Tensor, narrow: torch.dtype | None) -> list[int] | None:
        """The mixer's, as the operators take them, if these are the path to take."""
        if not self._compiled():
            return None
        stages = own_stages(self.mixer)
        if type(self.mixer) is Identity and not self.mixer.patched:
            stages = ()
        dtype = torch.float16 if narrow == torch.float16 else X.dtype
        where = math.prod(X.shape[:-2]), dtype, X.device.type
        bent = any(map(transformed, (X, self.weight, self.bias, self.alpha)))
        hooked = any(getattr(self.mixer, hooks) for hooks in HOOKS)
        choice = choose(self._backend(), stages, *where, bent, layer=True, hooked=hooked)
        if stages is None or choice.path == "reference":
            return None
        return [number for stage in stages for number in stage]

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
            ValueError: if X is not (..., d, C), the weights are not of the shapes that the mixer
                takes, or the branch does not return one tensor of the shape (..., C) that it was
                given.
            TypeError: if X has another dtype than the weights, and autocast does not see to it.
        """
        self._check(X)
        *batch, d, C = X.shape
        narrow = autocast_dtype(X)
        stages = self._stages(X, narrow)
        if stages is None:
            H_res, H_pre, post = self.matrices(X)
            with full_precision(X):
                wide = X.to(H_res.dtype)
                read = (H_pre[..., None, :] @ wide).squeeze(-2).to(X.dtype)
        else:
            tokens = math.prod(batch)  # no −1: there may be none
            read, mixed, post, *_ = read_streams(
                X.reshape(tokens, d, C), *self.weights(), narrow or X.dtype, stages
            )
            read = read.view(*batch, C)
        written = self.branch(read, *arguments, **options)
        if not isinstance(written, Tensor) or written.shape != read.shape:
            got = tuple(written.shape) if isinstance(written, Tensor) else type(written).__name__
            raise ValueError(
                f"expected the branch to return one tensor of shape {tuple(read.shape)}, got {got}"
            )
        if stages is not None:
            answer = written.reshape(tokens, C)
            known = answer.dtype in STREAMED and not transformed(answer)
            return (write_streams if known else write_reference)(mixed, answer, post).view(X.shape)
        with full_precision(X):
            mixed = H_res @ wide + post[..., None] * written[..., None, :].to(wide.dtype)
            return mixed.to(X.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> "HyperConnection":
        """A copy with weights of its own; a function is not copied, nor would be what it uses."""
        live = shared_weights(self.branch)
        if live:
            raise TypeError(
                "expected a module as the branch of a connection to copy, got a function around "
                f"{', '.join(live)}, whose weights the copy would share"
            )
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        return copied

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HyperConnection":
        """All that casts a module goes this way; b and α get no narrower than float32."""
        kept: dict[str, Tensor] = {"bias": self.bias, "alpha": self.alpha}
        before = {name: own.detach() for name, own in kept.items()}
        slopes = {name: own.grad.detach() for name, own in kept.items() if own.grad is not None}
        super()._apply(fn, recurse)
        for name, value in before.items():
            cast = getattr(self, name)
            if torch.promote_types(cast.dtype, torch.float32) != cast.dtype:
                cast.data = value.to(cast.device, torch.float32)
                if name in slopes:
                    cast.grad = slopes[name].to(cast.device, torch.float32)
        return self

    def extra_repr(self) -> str:
        """Sizes shown when the module is printed."""
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        chosen += "" if self.norm_eps is None else f", norm_eps={self.norm_eps}"
        chosen += f", read_eps={self.read_eps}" if self.read_eps else ""
        chosen += ", frozen" * self.frozen
        return f"dim={self.dim}, d={self.mixer.d}, inputs={self.inputs!r}{chosen}"

"""The protocols of the go-mHC release, with their defects.

Problems, settings and starts of its fits, and the search behind its spectra. Chapters 4 and 5 show
what each defect does; what has none of them is in `gomhc.stream_mixing` and `gomhc.spectra`.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.checks import check_count
from gomhc.maps import block_frobenius, sinkhorn_knopp, skew_symmetric
from gomhc.mixers import BirkhoffVonNeumann, Kronecker, Mixer, Orthostochastic, Sinkhorn
from gomhc.mixers.base import check_mixer
from gomhc.spectra import Visits, search_spectrum
from gomhc.stream_mixing import Problem
from gomhc.stream_mixing.problem import check_sizes, seeded

__all__ = ["released_problem", "released_search", "released_settings", "released_start"]

RELEASED_TARGETS = 10_000


def released_problem(
    d: int,
    noise: float = 0.1,
    problems: int = 64,
    samples: int = 100,
    sparsity: float = 0.0,
    seed: int = 42,
    draw: int = 0,
    *,
    scale_inputs: bool = True,
    centre_noise: bool = False,
    mask_entries: bool = False,
    targets: Float[Tensor, "problems d d"] | None = None,
) -> Problem:
    """The problems of the go-mHC release, with its defects, each of which can be taken away.

    T is U[0,1]^{d×d} after 20 Sinkhorn steps, rows first. X is U[0,1]^d times the number of entries
    of a sample that a mask of the given sparsity keeps: at sparsity 0 times d. Y = TX + σU[0,1].

    Args:
        d: number of streams.
        noise: σ, the width of the uniform noise.
        problems: number of targets.
        samples: samples a target.
        sparsity: probability that the mask drops an entry, in [0, 1).
        seed: fixes the targets; with `draw`, X and the noise.
        draw: which draw of X and noise. In the release every method has its own.
        scale_inputs: False takes the factor away.
        centre_noise: True makes the noise σ(U[0,1] − ½), of mean 0.
        mask_entries: True makes the mask set entries to 0 instead of scaling rows.
        targets: other targets in place of the released ones.

    Returns:
        Problem in float64 on the CPU.

    Raises:
        TypeError: if a count or a seed is no integer.
        ValueError: if a count is below 1, noise < 0 or not finite, sparsity is outside [0, 1), or
            the targets are not (problems, d, d); if there is a sparsity whose mask does nothing, or
            mask_entries and no sparsity.

    Source: `toy_models/dynamics.ipynb` of the go-mHC release.
    """
    check_sizes(d, noise, problems, samples)
    if not 0 <= sparsity < 1:
        raise ValueError(f"expected sparsity in [0, 1), got {sparsity}")
    if sparsity and not (scale_inputs or mask_entries):
        raise ValueError(f"expected a mask that scales or sets entries to 0, got {sparsity=} alone")
    if mask_entries and not sparsity:
        raise ValueError("expected a sparsity > 0 for mask_entries, got 0")
    if targets is not None and targets.shape != (problems, d, d):
        raise ValueError(f"expected targets {(problems, d, d)}, got shape {tuple(targets.shape)}")
    generator = seeded(seed)
    T = torch.rand(problems, d, d, generator=generator, dtype=torch.float64)
    # Rows first and columns last: our order, transposed.
    T = sinkhorn_knopp(T.mT.log(), 20).mT if targets is None else targets.double()
    generator = seeded(seed, draw)
    X = torch.rand(problems, samples, d, generator=generator, dtype=torch.float64)
    kept = (torch.rand(X.shape, generator=generator, dtype=X.dtype) > sparsity).to(X)
    jitter = torch.rand(X.shape, generator=generator, dtype=X.dtype)
    if mask_entries:
        X = X * kept
    if scale_inputs:
        X = X * kept.sum(-1, keepdim=True)
    if centre_noise:
        jitter = jitter - 0.5
    return Problem(T, X, X @ T.mT + noise * jitter, noise)


def released_settings(mixer: Mixer, problems: int = 64) -> dict[str, Any]:
    """How the release trains this mixer: the keyword arguments to give to `fit`.

    Adam at 1e-3 for 10,000 steps from random starts, with two peculiarities that this makes
    explicit. The loss is the mean over all problems, so Adam's ε of 1e-6 counts `problems` times
    as much for the loss of one. And go-mHC's parameter is a full matrix R of which A = R − Rᵀ
    is taken: R_ij and R_ji both move by the learning rate, in opposite directions, so that θ
    moves by twice as much. Adam on θ at 2e-3 takes exactly the same steps.

    Args:
        mixer: any mixer.
        problems: number of problems that the release would have averaged over.

    Returns:
        learning_rate, steps, start and epsilon.

    Raises:
        TypeError: if it is not a mixer, or problems is no integer.
        ValueError: if problems < 1.

    Source: `toy_models/dynamics.ipynb` of the go-mHC release.
    """
    check_mixer(mixer)
    check_count("problems", problems, least=1)
    factors = mixer.factors if isinstance(mixer, Kronecker) else [mixer]
    doubled = all(isinstance(factor, Orthostochastic) for factor in factors)
    return {
        "learning_rate": 2e-3 if doubled else 1e-3,
        "steps": 10_000,
        "start": released_start,
        "epsilon": 1e-6 * problems,
    }


def released_start(
    mixer: Mixer, count: int, generator: torch.Generator
) -> Float[Tensor, "count g"]:
    """The starts of the release's fits: R − Rᵀ with R ~ U[0,1] for go-mHC, else N(0, 1).

    Args:
        mixer: any mixer; each factor of a Kronecker product starts as a mixer of its own.
        count: number of starts.
        generator: source of randomness (CPU).

    Returns:
        (count, g), float64; `fit` takes this function as its `start`.

    Source: `toy_models/dynamics.ipynb` of the go-mHC release.
    """
    if isinstance(mixer, Kronecker):
        return torch.cat([released_start(f, count, generator) for f in mixer.factors], -1)
    shape = (count, mixer.num_parameters)
    if isinstance(mixer, Orthostochastic):
        upper, lower = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        return upper - lower
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class _Exponential(Orthostochastic):
    """go-mHC with Q = exp(skew(θ)), as the release's spectra have it; the same matrices."""

    def mix(self, theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
        return block_frobenius(torch.matrix_exp(skew_symmetric(theta)), self.s)


def released_search(
    mixer: Mixer,
    targets: int = RELEASED_TARGETS,
    generator: torch.Generator | None = None,
    loss_over: int | None = None,
) -> Visits:
    """The search with the unequal budgets behind the paper's panels.

    Targets are uniform in [−1, 1]². go-mHC: Q = exp(R − Rᵀ) from R ~ N(0, 1), 100 steps of Adam at
    learning rate 0.1 on R, which is 0.2 on θ. mHC-lite and KromHC: N(0, 1) logits, mHC: logits
    uniform in [−100, 100]; 250 steps at 0.08, with the loss averaged over the targets.

    Args:
        mixer: go-mhc, mhc, mhc-lite or kromhc; the panels of mhc have `iterations=10`.
        targets: their number.
        generator: source of randomness (CPU).
        loss_over: the number that an averaged loss is divided by, where these targets are only a
            part; `targets` if not given. The search of go-mHC has no average, and no use of it.

    Raises:
        TypeError: if targets is no integer.
        ValueError: if the release has no panel of this family, or targets < 1.

    Source: the go-mHC release, toy_models/spectra.ipynb, commit b992d9d.
    """
    check_count("targets", targets, least=1)
    square = 2 * torch.rand(targets, 2, generator=generator, dtype=torch.float64) - 1
    places = torch.view_as_complex(square)
    shape = (targets, mixer.num_parameters)
    if isinstance(mixer, Orthostochastic):
        start = math.sqrt(2) * torch.randn(shape, generator=generator, dtype=torch.float64)
        by_exponential = _Exponential(mixer.d, mixer.s)
        return search_spectrum(
            by_exponential, places, learning_rate=0.2, steps=100, start=start, generator=generator
        )
    softmax = isinstance(mixer, Kronecker) and all(
        isinstance(factor, BirkhoffVonNeumann) for factor in mixer.factors
    )
    if isinstance(mixer, Sinkhorn):
        start = 200 * torch.rand(shape, generator=generator, dtype=torch.float64) - 100
    elif softmax or isinstance(mixer, BirkhoffVonNeumann):
        start = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        raise ValueError(f"expected go-mhc, mhc, mhc-lite or kromhc, got {mixer}")
    return search_spectrum(
        mixer,
        places,
        learning_rate=0.08,
        steps=250,
        start=start,
        generator=generator,
        epsilon=1e-8 * (loss_over or targets),
    )

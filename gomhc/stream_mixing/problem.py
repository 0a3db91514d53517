"""Problems of the synthetic stream-mixing task: targets, noisy samples, and the exact minimum.

A problem has a target T and samples y = Tx + noise. The loss of a matrix is quadratic in it, so XᵀX
and YᵀX are sufficient statistics. `corrected_problem` makes problems without the defects of the
go-mHC release, which `gomhc.companion.released` has.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.birkhoff import project, sample_uniform
from gomhc.checks import check_count
from gomhc.extras import load
from gomhc.maps import check_floating

__all__ = ["FAMILIES", "Floor", "Problem", "corrected_problem"]

FAMILIES = ("uniform", "vertices", "edges", "barycentre")


class Floor(NamedTuple):
    """The exact minimum of the loss over the Birkhoff polytope, and its certificate."""

    value: Float[Tensor, " problems"]  # loss of `matrix`, an upper bound of the minimum
    gap: Float[Tensor, " problems"]  # duality gap: value minus a lower bound of the minimum
    matrix: Float[Tensor, "problems d d"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Independent regression problems of one size: samples of y = Tx + noise for each target T.

    Attributes:
        targets: (problems, d, d), doubly stochastic.
        X: (problems, samples, d), inputs.
        Y: (problems, samples, d), outputs.
        noise: σ of the noise, in the sense of the function that made the problem.

    Tensors of another floating dtype are taken to float64.

    Raises:
        TypeError: if a part is not a tensor of a real floating dtype.
        ValueError: if the shapes don't fit together, or an entry is not finite.
    """

    targets: Float[Tensor, "problems d d"]
    X: Float[Tensor, "problems samples d"]
    Y: Float[Tensor, "problems samples d"]
    noise: float

    def __post_init__(self) -> None:
        """Refuse what would only fail later, or not at all."""
        for name in ("targets", "X", "Y"):
            part = getattr(self, name)
            check_floating(name, part)
            object.__setattr__(self, name, part.detach().double())  # the class is frozen
        shape, of_X, of_Y = (tuple(part.shape) for part in (self.targets, self.X, self.Y))
        fits = len(shape) == len(of_X) == 3 and of_X == of_Y and of_X[::2] == shape[::2]
        if not fits or shape[1] != shape[2] or not (math.prod(shape) and math.prod(of_X)):
            raise ValueError(
                "expected targets (problems, d, d) and X, Y (problems, samples, d), none empty, "
                f"got {shape}, {of_X}, {of_Y}"
            )
        for name in ("targets", "X", "Y"):
            bad = int((~getattr(self, name).isfinite()).sum())
            if bad:
                raise ValueError(f"expected finite {name}, got {bad} entries that are not")

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.targets)

    @property
    def d(self) -> int:
        """Number of streams."""
        return self.targets.shape[-1]

    def to(self, device: torch.device | str) -> "Problem":
        """The same problems on another device; `fit` runs where they are."""
        return Problem(
            self.targets.to(device), self.X.to(device), self.Y.to(device), noise=self.noise
        )

    @cached_property
    def gram(self) -> Float[Tensor, "problems d d"]:
        """XᵀX / (samples·d), what of the inputs the loss depends on."""
        return self.X.mT @ self.X / self.X[0].numel()

    @cached_property
    def best(self) -> Float[Tensor, "problems d d"]:
        """The unconstrained least-squares matrix: YᵀX (XᵀX)⁺."""
        return (torch.linalg.pinv(self.X) @ self.Y).mT

    @cached_property
    def base(self) -> Float[Tensor, " problems"]:
        """The loss at `best`: what no matrix at all can beat."""
        return self.sample_loss(self.best)

    def loss(self, B: Float[Tensor, "problems d d"]) -> Float[Tensor, " problems"]:
        """Mean squared error of each problem, from the sufficient statistics.

        ‖Y − XBᵀ‖² = ‖Y − XB*ᵀ‖² + tr((B − B*) XᵀX (B − B*)ᵀ) with B* the least-squares matrix, as
        the residual of B* is orthogonal to X: two terms that are not negative, so that nothing
        cancels.

        Args:
            B: (problems, d, d), or anything that broadcasts to it.

        Returns:
            (problems,), the mean over samples and streams.
        """
        off = B - self.best
        return self.base + ((off @ self.gram) * off).sum((-2, -1))

    def sample_loss(self, B: Float[Tensor, "problems d d"]) -> Float[Tensor, " problems"]:
        """The same loss, computed on the samples one by one."""
        return (self.Y - self.X @ B.mT).square().mean((-2, -1))

    def floor(self) -> Floor:
        """Solve min_B loss(B) over the doubly stochastic matrices, for each problem.

        A convex quadratic program in d² variables, given to Clarabel's interior-point method. Its
        answer is projected onto the polytope, so `value` is the loss of a doubly stochastic matrix
        B. As the loss L is convex, no matrix of the polytope has less than
        L(B) + min_P ⟨∇L(B), P − B⟩, and that minimum of a linear function lies at a permutation
        matrix, which a linear assignment finds. The bound needs nothing of the solver but B, and
        nothing of the inputs: XᵀX may be singular.

        Returns:
            Floor with value ≥ minimum ≥ value − gap, up to rounding.

        Raises:
            ImportError: if Clarabel is not installed.
            RuntimeError: if the solver stops without a solution.

        Source: Goulart, Chen 2024 (Clarabel); Jaggi 2013, section 2 (the gap).
        """
        from scipy import sparse
        from scipy.optimize import linear_sum_assignment

        clarabel = load("clarabel", "companion", "Problem.floor")

        d = self.d
        eye, ones = sparse.eye_array(d), np.ones((1, d))
        sums = sparse.vstack([sparse.kron(eye, ones), sparse.kron(ones, eye)])
        rows = sparse.vstack([sums, -sparse.eye_array(d * d)], format="csc")
        bounds = np.concatenate([np.ones(2 * d), np.zeros(d * d)])
        cones = [clarabel.ZeroConeT(2 * d), clarabel.NonnegativeConeT(d * d)]
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
        grams, bests = self.gram.cpu().numpy(), self.best.cpu().numpy()
        matrices = []
        for gram, best in zip(grams, bests, strict=True):
            quadratic = sparse.kron(eye, 2 * gram, format="csc")
            linear = -(2 * best @ gram).ravel()
            solver = clarabel.DefaultSolver(
                sparse.triu(quadratic, format="csc"), linear, rows, bounds, cones, settings
            )
            solution = solver.solve()
            if solution.status not in (
                clarabel.SolverStatus.Solved,
                clarabel.SolverStatus.AlmostSolved,
            ):
                raise RuntimeError(f"expected a solved quadratic program, got {solution.status}")
            matrices.append(np.reshape(solution.x, (d, d)))
        matrix = project(torch.as_tensor(np.stack(matrices)).to(self.targets.device))
        slope = 2 * (matrix - self.best) @ self.gram
        lowest = [part[linear_sum_assignment(part)].sum() for part in slope.cpu().numpy()]
        gap = (slope * matrix).sum((-2, -1)) - torch.as_tensor(np.array(lowest)).to(slope)
        return Floor(self.loss(matrix), gap, matrix)


def corrected_problem(
    d: int,
    family: str = "uniform",
    noise: float = 0.1,
    problems: int = 64,
    samples: int = 100,
    seed: int = 0,
) -> Problem:
    """Stream-mixing problems without the defects: X ~ N(0, I), Y = TX + N(0, σ²), T from a family.

    Args:
        d: number of streams.
        family: where the targets lie. `uniform`: uniformly in the Birkhoff polytope, by
            hit-and-run. `vertices`: random permutation matrices. `edges`: uniformly on a random
            edge, which joins P and P·(a cycle) with the length of the cycle uniform in 2..d.
            `barycentre`: a quarter of the way from J/d to a uniform sample.
        noise: σ, the standard deviation of the noise.
        problems: number of targets.
        samples: samples a target.
        seed: fixes everything; every method that is given the problem sees the same samples.

    Returns:
        Problem in float64 on the CPU.

    Raises:
        ValueError: if a count is below 1, noise < 0 or not finite, the family is unknown, or it is
            `edges` and d = 1.
    """
    check_sizes(d, noise, problems, samples)
    if family not in FAMILIES:
        raise ValueError(f"expected a family out of {', '.join(FAMILIES)}; got {family!r}")
    generator = seeded(seed)
    if family in ("vertices", "edges"):
        T = _permutations(d, problems, generator)
        if family == "edges":
            T = _along_edges(T, generator)
    else:
        T = sample_uniform(d, problems, generator)
        if family == "barycentre":
            T = (3 / d + T) / 4
    X = torch.randn(problems, samples, d, generator=generator, dtype=torch.float64)
    jitter = torch.randn(X.shape, generator=generator, dtype=X.dtype)
    return Problem(T, X, X @ T.mT + noise * jitter, noise)


def check_sizes(d: int, noise: float, problems: int, samples: int) -> None:
    """Raise TypeError for sizes that are no integers, ValueError for what is out of range."""
    for name, size in {"d": d, "problems": problems, "samples": samples}.items():
        check_count(name, size, least=1)
    if not 0 <= noise < math.inf:
        raise ValueError(f"expected a finite noise >= 0, got {noise}")


def seeded(*seeds: int) -> torch.Generator:
    """One source of randomness for a tuple of seeds, unlike that of any other tuple."""
    seeds = tuple(check_count("a seed (and draw)", seed) for seed in seeds)
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _permutations(d: int, count: int, generator: torch.Generator) -> Tensor:
    # In float32 whatever the default is: the seed fixes them.
    order = torch.rand(count, d, generator=generator, dtype=torch.float32).argsort(-1)
    return torch.eye(d, dtype=torch.float64)[order]


def _along_edges(P: Tensor, generator: torch.Generator) -> Tensor:
    """Points of the edges from P to P·cycle: two vertices are joined iff they differ by a cycle."""
    problems, d = P.shape[:2]
    if d == 1:
        raise ValueError("expected d >= 2 for edges: at d = 1 the polytope is a point; got d = 1")
    lengths = torch.randint(2, d + 1, (problems,), generator=generator).tolist()
    cycles = []
    for length in lengths:
        places = torch.randperm(d, generator=generator)[:length]
        images = torch.arange(d)
        images[places] = places.roll(-1)
        cycles.append(torch.eye(d, dtype=P.dtype)[images])
    t = torch.rand(problems, 1, 1, generator=generator, dtype=P.dtype)
    return (1 - t) * P + t * (P @ torch.stack(cycles))

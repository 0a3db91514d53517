"""Adam by hand: torch's own has one learning rate and one count of steps for a whole batch."""

import torch
from jaxtyping import Float
from torch import Tensor


class Adam:
    """Adam with betas (0.9, 0.999) on a batch of independent rows, each with moments of its own.

    Source: Kingma, Ba 2015.
    """

    def __init__(self, theta: Float[Tensor, "rows g"]) -> None:
        """Begin with no moments.

        Args:
            theta: what will be moved; its shape, dtype and device.
        """
        self.mean, self.square = torch.zeros_like(theta), torch.zeros_like(theta)
        self.steps = theta.new_zeros(len(theta), 1)

    def step(
        self,
        gradient: Float[Tensor, "some g"],
        learning_rate: float | Float[Tensor, "some 1"],
        epsilon: float,
        rows: Tensor | slice = slice(None),
    ) -> Float[Tensor, "some g"]:
        """Take a gradient in, and say by how much θ is to fall.

        Args:
            gradient: of some rows.
            learning_rate: for all of them, or one a row.
            epsilon: added to the root of the second moment.
            rows: which they are; all if not given.

        Returns:
            What to subtract from those rows of θ.
        """
        self.steps[rows] += 1
        self.mean[rows] = 0.9 * self.mean[rows] + 0.1 * gradient
        self.square[rows] = 0.999 * self.square[rows] + 0.001 * gradient.square()
        root = (self.square[rows] / (1 - 0.999 ** self.steps[rows])).sqrt()
        return learning_rate * self.mean[rows] / (1 - 0.9 ** self.steps[rows]) / (root + epsilon)

    def forget(self, rows: Tensor) -> None:
        """Begin again with some rows."""
        self.mean[rows] = self.square[rows] = self.steps[rows] = 0

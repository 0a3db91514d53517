// Fits of several methods to one target, side by side: Adam on ‖H(θ) − T‖².
import { inner, plus } from "./matrix.js";

export const STEPS = 600;

/** Adam with betas (0.9, 0.999), as gomhc/adam.py; `step` moves θ in place. */
export class Adam {
  constructor(size) {
    this.mean = Array(size).fill(0);
    this.square = Array(size).fill(0);
    this.steps = 0;
  }

  step(theta, gradient, rate) {
    this.steps += 1;
    const [one, two] = [1 - 0.9 ** this.steps, 1 - 0.999 ** this.steps];
    gradient.forEach((slope, k) => {
      this.mean[k] = 0.9 * this.mean[k] + 0.1 * slope;
      this.square[k] = 0.999 * this.square[k] + 0.001 * slope * slope;
      theta[k] -= ((rate * this.mean[k]) / one) / (Math.sqrt(this.square[k] / two) + 1e-8);
    });
  }
}

/** The loss ‖H(θ) − T‖² and its gradient. */
export function lossOf(mixer, theta, target) {
  const { value, pull } = mixer.mix(theta);
  const error = plus(value, target, -1);
  return {
    loss: inner(error, error),
    gradient: pull(error.map((row) => row.map((x) => 2 * x))),
  };
}

/** One method on its way to a target. */
export class Fit {
  constructor(mixer, theta, target, rate) {
    Object.assign(this, { mixer, theta: [...theta], target, rate, losses: [] });
    this.adam = new Adam(theta.length);
  }

  /** Note the loss, then move θ. */
  step() {
    const { loss, gradient } = lossOf(this.mixer, this.theta, this.target);
    this.losses.push(loss);
    this.adam.step(this.theta, gradient, this.rate);
  }
}

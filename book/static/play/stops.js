// Guided stops: a sentence each, and what it sets.

/** `theta` is a scale of `wander`, or "start" for the start near I; without it θ wanders at 1. */
export const STOPS = [
  {
    name: "drag",
    text: "Drag the dot on the pad: with go-mHC every row and column sums to 1, wherever "
      + "θ goes.",
    set: { method: "go-mhc", d: 3, s: 2, depth: 16, spread: 0 },
  },
  {
    name: "one-step",
    text: "Stop Sinkhorn after one step: rows sum to 1 and columns do not, and the gain "
      + "backward leaves 1.",
    set: { method: "mhc", d: 4, iterations: 1, depth: 16, spread: 0 }, theta: 2,
  },
  {
    name: "free",
    text: "Take all constraints away: within 32 layers the gains of HC explode.",
    set: { method: "hc", d: 4, depth: 32, spread: 0 },
  },
  {
    name: "out-of-reach",
    text: "Set s = 1 and press Train: this target, halfway from I to Z, stays out of "
      + "reach, and s = 2 reaches it.",
    set: { method: "go-mhc", d: 3, s: 1, target: "halfway", rate: 0.05, spread: 0 }, theta: "start",
  },
  {
    name: "dead-start",
    text: "Start at θ = 0 and press Train: go-mHC has no gradient there and stays, while "
      + "the others leave.",
    set: { method: "go-mhc", d: 3, s: 2, target: "halfway", rate: 0.05, spread: 0 }, theta: 0,
  },
  {
    name: "product",
    text: "Train KromHC towards the cycle of four streams: no product of two small "
      + "matrices comes near it.",
    set: { method: "kromhc", d: 4, target: "cycle", rate: 0.05, spread: 0 }, theta: "start",
  },
  {
    name: "rotate",
    text: "Rotate the streams instead: nothing fades, every singular value is 1, but "
      + "sums are not kept.",
    set: { method: "orthogonal", d: 4, depth: 32, spread: 0 },
  },
];

// Guided stops: a sentence each, and what it sets.

/**
 * `theta` is a scale of `wander`, or "start" for the start near I; without it θ wanders at 1.
 * `show` names the view to look at, or two where pages differ in what they have.
 */
export const STOPS = [
  {
    name: "drag",
    show: ["theta", "pad"],
    text: "Drag the dot on the pad: with go-mHC every row and column sums to 1, wherever "
      + "θ goes.",
    set: { method: "go-mhc", d: 3, s: 2, depth: 16, spread: 0 },
  },
  {
    name: "one-step",
    show: ["entries"],
    text: "mHC with one step of Sinkhorn: rows sum to 1 and columns do not, and the gain "
      + "backward leaves 1.",
    set: { method: "mhc", d: 4, iterations: 1, depth: 16, spread: 0 }, theta: 2,
  },
  {
    name: "free",
    show: ["threads"],
    text: "HC has no constraint: within 32 layers the gains explode.",
    set: { method: "hc", d: 4, depth: 32, spread: 0 },
  },
  {
    name: "out-of-reach",
    show: ["race"],
    text: "At s = 1 press Train: this target, halfway from I to Z, stays out of reach. At s = 2 "
      + "it is reached.",
    set: { method: "go-mhc", d: 3, s: 1, target: "halfway", rate: 0.05, spread: 0 }, theta: "start",
  },
  {
    name: "dead-start",
    show: ["race"],
    text: "With go-mHC at θ = 0 press Train: it has no gradient there and stays. The others start "
      + "near I and arrive.",
    set: { method: "go-mhc", d: 3, s: 2, target: "halfway", rate: 0.05, spread: 0 }, theta: 0,
  },
  {
    name: "product",
    show: ["race"],
    text: "With KromHC press Train: no product of two small matrices comes near the cycle of four "
      + "streams.",
    set: { method: "kromhc", d: 4, target: "cycle", rate: 0.05, spread: 0 }, theta: "start",
  },
  {
    name: "rotate",
    show: ["threads"],
    text: "Rotate the streams instead: nothing fades, every singular value is 1, but "
      + "sums are not kept.",
    set: { method: "orthogonal", d: 4, depth: 32, spread: 0 },
  },
];

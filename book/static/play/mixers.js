// The methods: maps θ ↦ H_res with the layout of θ, and the start near I, of gomhc.mixers.
import {
  blockFrobenius, cayley, inverseTransportation, kronecker, mixture, sinkhornKnopp, skewSymmetric,
  transportation, unflatten,
} from "./maps.js";
import { identity, matrix } from "./matrix.js";

const MASS = 0.01; // share of a row off the diagonal at the start

/** Doubly stochastic matrix with the mass spread evenly off the diagonal. */
const nearIdentity = (d) => matrix(d, d, (i, j) => (i === j ? 1 - MASS : MASS / (d - 1)));

/** Φ(Cayley(skew θ)) of block size s. */
function orthostochastic(d, s, mass = MASS) {
  const n = d * s;
  return {
    size: (n * (n - 1)) / 2,
    steps: (theta) => ({ A: skewSymmetric(theta, n), Q: cayley(theta, n).value }),
    mix: (theta) => {
      const Q = cayley(theta, n);
      const B = blockFrobenius(Q.value, s);
      return { value: B.value, pull: (slope) => Q.pull(B.pull(slope)) };
    },
    start: (normal) => {
      const sigma = Math.sqrt(mass / (4 * s * (d - 1)));
      return Array.from({ length: (n * (n - 1)) / 2 }, () => sigma * normal());
    },
  };
}

/** An average of all permutations. */
function birkhoffVonNeumann(d, mass = MASS) {
  const size = [1, 1, 2, 6, 24][d];
  const moved = (((d - 1) / d) * size) / (size - 1); // how much of a row another permutation moves
  const others = Math.log(mass / (moved - mass) / (size - 1));
  return {
    size,
    mix: (theta) => mixture(theta, d),
    start: () => Array.from({ length: size }, (_, k) => (k ? others : 0)),
  };
}

/** The Kronecker product of two mixers of order 2, or one of them alone at d = 2. */
function product(d, factor) {
  if (d === 2) return factor(MASS);
  const half = factor(1 - Math.sqrt(1 - MASS)); // so that the diagonal of the product is 1 − MASS
  return {
    size: 2 * half.size,
    mix: (theta) => {
      const first = half.mix(theta.slice(0, half.size));
      const second = half.mix(theta.slice(half.size));
      const both = kronecker(first.value, second.value);
      const pull = (slope) => {
        const [byFirst, bySecond] = both.pull(slope);
        return [...first.pull(byFirst), ...second.pull(bySecond)];
      };
      return { value: both.value, pull };
    },
    start: (normal) => [...half.start(normal), ...half.start(normal)],
  };
}

const ANGLES = { reach: 2, wander: 0.2 };
const LOGITS = { reach: 6, wander: 1.5 };
const ENTRIES = { reach: 1.5, wander: 0.2 };

/**
 * Name → what it is called, its colour in the book, the orders d that it allows, how far θ goes on
 * a slider and how far it wanders when it is drawn, and `make({ d, s, iterations })`.
 */
export const METHODS = {
  identity: {
    title: "identity: no mixing", color: "#767676", orders: [2, 3, 4], ...ENTRIES,
    make: ({ d }) => ({
      size: 0,
      mix: () => ({ value: identity(d), pull: () => [] }),
      start: () => [],
    }),
  },
  hc: {
    title: "HC: any matrix", color: "#D55E00", orders: [2, 3, 4], ...ENTRIES,
    make: ({ d }) => ({
      size: d * d,
      mix: (theta) => ({ value: unflatten(theta, d), pull: (slope) => slope.flat() }),
      start: () => nearIdentity(d).flat(),
      centre: identity(d).flat(),
    }),
  },
  mhc: {
    title: "mHC: Sinkhorn", color: "#E69F00", orders: [2, 3, 4], ...LOGITS,
    make: ({ d, iterations }) => ({
      size: d * d,
      mix: (theta) => {
        const { value, pull } = sinkhornKnopp(unflatten(theta, d), iterations);
        return { value, pull: (slope) => pull(slope).flat() };
      },
      start: () => nearIdentity(d).flat().map(Math.log),
    }),
  },
  "mhc-lite": {
    title: "mHC-lite: average of permutations", color: "#CC79A7", orders: [2, 3, 4], ...LOGITS,
    make: ({ d }) => birkhoffVonNeumann(d),
  },
  kromhc: {
    title: "KromHC: product of small averages", color: "#56B4E9", orders: [2, 4], ...LOGITS,
    make: ({ d }) => product(d, (mass) => birkhoffVonNeumann(2, mass)),
  },
  "go-mhc": {
    title: "go-mHC: blocks of a rotation", color: "#0072B2", orders: [2, 3, 4], ...ANGLES,
    make: ({ d, s }) => orthostochastic(d, s),
  },
  "kron-go": {
    title: "kron-go: product of small go-mHC", color: "#009E73", orders: [4], ...ANGLES,
    make: ({ d, s }) => product(d, (mass) => orthostochastic(2, s, mass)),
  },
  orthogonal: {
    title: "orthogonal (JPmHC)", color: "#882255", orders: [2, 3, 4], ...ANGLES,
    make: ({ d }) => ({
      size: (d * (d - 1)) / 2,
      mix: (theta) => cayley(theta, d),
      start: () => Array((d * (d - 1)) / 2).fill(0),
    }),
  },
  transport: {
    title: "transport (TBP-mHC)", color: "#999933", orders: [2, 3, 4], ...LOGITS,
    make: ({ d }) => ({
      size: (d - 1) ** 2,
      mix: (theta) => transportation(theta, d),
      start: () => inverseTransportation(nearIdentity(d)),
    }),
  },
};

/** The mixer of a method: { size, mix, start }, see the maps for `mix`; go-mHC has `steps` too. */
export const makeMixer = (method, sizes) => METHODS[method].make(sizes);

/** The names of the methods that allow the order d. */
export const methodsOf = (d) =>
  Object.keys(METHODS).filter((name) => METHODS[name].orders.includes(d));

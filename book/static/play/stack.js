// What a stack of mixers does: running products and their gains, as gomhc.composition.
import { columnSums, multiply, rowSums } from "./matrix.js";
import { singularValues } from "./spectrum.js";

/** Running products, the first layer first: H₁, H₂H₁, H₃H₂H₁, …. */
export function composites(layers) {
  const products = [layers[0]];
  for (const H of layers.slice(1)) products.push(multiply(H, products.at(-1)));
  return products;
}

/** Largest absolute row sum (forward) and column sum (backward), and least singular value. */
export function gains(C) {
  const sizes = C.map((row) => row.map(Math.abs));
  return {
    forward: Math.max(...rowSums(sizes)),
    backward: Math.max(...columnSums(sizes)),
    smallest: singularValues(C).at(-1),
  };
}

// Levels by merging neighbouring superpixels, by the package's own kernel; Python's `merged_levels` says how.
import { PageError } from "./errors.js";

const NO_MEMORY = -1;

/** Merging for one model. What it needs in the kernel's memory is taken once, for all frames. */
export class Merging {
  /**
   * @param {Kernel} kernel
   * @param {number[]} segments of each level (a ModelSpec's `clusters`)
   * @param {{height: number, width: number, num_superpixels: number}} info the export record
   */
  constructor(kernel, segments, { height, width, num_superpixels: count }) {
    const levels = segments.length, pixels = height * width;
    const sizes = segments.map((number, i) => (i ? segments[i - 1] : count) * number);
    const matrices = sizes.map(size => kernel.take(4 * size));
    const addresses = kernel.take(4 * levels), numbers = kernel.take(4 * levels);
    const image = kernel.take(3 * pixels), labels = kernel.take(4 * pixels), out = kernel.take(4 * levels * count);
    kernel.view(Uint32Array, addresses, levels).set(matrices);
    kernel.view(Int32Array, numbers, levels).set(segments);
    Object.assign(this, { kernel, height, width, count, levels, sizes, matrices, addresses, numbers, image, labels, out });
  }

  /**
   * Segment of each superpixel, one Int32Array per level, fine to coarse.
   * @param {Uint8Array} rgb the picture that the network saw
   * @param {Int32Array} labels superpixel of each pixel
   * @param {Float32Array[]} assignments the graph's outputs assignment1, assignment2, ...
   */
  run(rgb, labels, assignments) {
    const { kernel, height, width, count, levels } = this, pixels = height * width;
    kernel.view(Uint8Array, this.image, 3 * pixels).set(rgb);
    kernel.view(Int32Array, this.labels, pixels).set(labels);
    assignments.forEach((matrix, i) => {
      if (matrix.length !== this.sizes[i]) {
        const difference = `assignment${i + 1} of that one has ${matrix.length} numbers, not ${this.sizes[i]}`;
        throw new PageError(`The file describes another graph than it holds: ${difference}.`);
      }
      kernel.view(Float32Array, this.matrices[i], matrix.length).set(matrix);
    });
    const code = kernel.functions.cast_merged_levels(
      this.image, this.labels, height, width, count, this.addresses, this.numbers, levels, this.out);
    if (code === NO_MEMORY) throw new PageError("Merging superpixels has no memory left.");
    if (code) throw new PageError(`The model takes ${count} superpixels, and there is one more.`);
    return Array.from({ length: levels }, (_, i) => kernel.view(Int32Array, this.out + 4 * i * count, count).slice());
  }
}

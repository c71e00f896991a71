// SEEDS superpixels, by the package's own kernel.
import { PageError } from "./errors.js";
import { toLab } from "./lab.js";

const MAX_COUNT = 32767;  // labels of 15 bits in the kernel

/** The even blocks that SEEDS starts from: two by two make one superpixel. Null where the picture is too small. */
export function seedsGrid(height, width, count) {
  const rows = Math.floor(Math.sqrt(Math.floor(count * height / width)));
  const columns = Math.floor(rows * width / height);
  if (rows < 2 || columns < 2 || height < 2 * rows || width < 2 * columns) return null;
  const blockRows = Math.floor(height / Math.ceil(height / (2 * rows)));
  const blockColumns = Math.floor(width / Math.ceil(width / (2 * columns)));
  const found = (blockRows >> 1) * (blockColumns >> 1);
  if (blockRows < 4 || blockColumns < 4 || blockRows * blockColumns <= 16 || found > MAX_COUNT) return null;
  return { blockRows, blockColumns, count: found };
}

/** SEEDS for one size and one set of settings (a ModelSpec's `superpixels`). */
export class Seeds {
  constructor(kernel, height, width, { count, bins, iterations, invert }) {
    const grid = seedsGrid(height, width, count);
    if (!grid) throw new PageError(`The model's ${width} x ${height} pixels cannot hold ${count} superpixels.`);
    const pixels = height * width;
    const handle = kernel.functions.cast_seeds_create(height, width, grid.blockRows, grid.blockColumns, bins, iterations);
    if (!handle) throw new PageError(`SEEDS cannot run with ${bins} bins and ${iterations} iterations.`);
    Object.assign(this, { kernel, handle, pixels, lab: kernel.take(3 * pixels), labels: kernel.take(4 * pixels), invert });
  }

  /** Superpixel of each pixel, Int32Array, of an RGB picture (3 bytes a pixel). */
  run(rgb) {
    const { kernel, pixels } = this;
    const seen = this.invert ? rgb.map(value => -value) : rgb;  // modulo 256
    toLab(seen, kernel.view(Uint8Array, this.lab, 3 * pixels));
    if (kernel.functions.cast_seeds_run(this.handle, this.lab, this.labels)) throw new PageError("SEEDS has no memory left.");
    return kernel.view(Int32Array, this.labels, pixels).slice();
  }
}

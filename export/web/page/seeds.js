// SEEDS superpixels: the package's C++ kernel, compiled to WebAssembly.
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

/** A kernel for one size and one set of settings (a ModelSpec's `superpixels`). */
export class Seeds {
  static async create(binary, height, width, { count, bins, iterations, invert }) {
    const grid = seedsGrid(height, width, count);
    if (!grid) throw new PageError(`The model's ${width} x ${height} pixels cannot hold ${count} superpixels.`);
    // The C++ library names functions for files that the kernel never calls.
    const refuse = () => 52;  // ENOSYS
    const files = { fd_close: refuse, fd_seek: refuse, fd_write: refuse };
    const { instance } = await WebAssembly.instantiate(binary, { wasi_snapshot_preview1: files });
    instance.exports._initialize();
    const { cast_seeds_create: create, malloc } = instance.exports;
    const kernel = create(height, width, grid.blockRows, grid.blockColumns, bins, iterations);
    if (!kernel) throw new PageError(`SEEDS cannot run with ${bins} bins and ${iterations} iterations.`);
    return new Seeds(instance.exports, kernel, height * width, malloc(3 * height * width), malloc(4 * height * width), invert);
  }

  constructor(library, kernel, pixels, lab, labels, invert) {
    Object.assign(this, { library, kernel, pixels, lab, labels, invert });
  }

  /** Superpixel of each pixel, Int32Array, of an RGB picture (3 bytes a pixel). */
  run(rgb) {
    const seen = this.invert ? rgb.map(value => -value) : rgb;  // modulo 256
    const { memory, cast_seeds_run: run } = this.library;
    toLab(seen, new Uint8Array(memory.buffer, this.lab, 3 * this.pixels));
    if (run(this.kernel, this.lab, this.labels)) throw new PageError("SEEDS has no memory left.");
    return new Int32Array(memory.buffer, this.labels, this.pixels).slice();
  }
}

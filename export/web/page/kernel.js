// The package's C++ kernel, compiled to WebAssembly: its functions and its memory.
import { PageError } from "./errors.js";

export class Kernel {
  /** @param {Uint8Array} binary kernel.wasm */
  static async load(binary) {
    // The C++ library names functions for files that the kernel never calls.
    const refuse = () => 52;  // ENOSYS
    const files = { fd_close: refuse, fd_seek: refuse, fd_write: refuse };
    const { instance } = await WebAssembly.instantiate(binary, { wasi_snapshot_preview1: files });
    instance.exports._initialize();
    return new Kernel(instance.exports);
  }

  constructor(functions) {
    this.functions = functions;
  }

  /** Address of `bytes` bytes that stay taken. */
  take(bytes) {
    const address = this.functions.malloc(bytes);
    if (!address) throw new PageError("The page's kernel has no memory left.");
    return address;
  }

  /** `length` numbers from an address on, for use at once: when a call makes the memory grow, older views are empty. */
  view(Numbers, address, length) {
    return new Numbers(this.functions.memory.buffer, address, length);
  }
}

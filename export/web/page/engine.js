// The way of a frame: resize, superpixels, network, levels, hierarchy; with the time of each stage.
import { PageError } from "./errors.js";
import { hierarchyColours } from "./colours.js";
import { readDescription } from "./description.js";
import { buildHierarchy } from "./hierarchy.js";
import { Kernel } from "./kernel.js";
import { Merging } from "./merging.js";
import { Network, loadRuntime } from "./network.js";
import { resize } from "./resize.js";
import { isUnsure, topClasses } from "./result.js";
import { Seeds } from "./seeds.js";

export class Engine {
  /**
   * @param {Uint8Array} graph the .onnx file
   * @param {Uint8Array} binary kernel.wasm
   * @param {{address: string, binary: Uint8Array}} runtime ONNX Runtime Web: its module's address and its WebAssembly
   * @param {number} threads
   */
  static async create(graph, binary, runtime, threads) {
    const { spec, info } = readDescription(graph);
    const kernel = await Kernel.load(binary), seeds = new Seeds(kernel, info.height, info.width, spec.superpixels);
    const merging = spec.grouping === "merged" ? new Merging(kernel, spec.clusters, info) : null;
    const ort = await loadRuntime(runtime.address, runtime.binary, threads);
    const network = await Network.create(ort, graph, info, "wasm");
    return new Engine({ spec, info, seeds, merging, network, graph, other: null });
  }

  constructor(parts) {
    Object.assign(this, parts);
  }

  /**
   * All results of one frame.
   * @param {Uint8ClampedArray} data RGBA pixels
   */
  async segment(data, width, height) {
    const start = performance.now(), { spec, info } = this;
    const cubic = spec.family === "cast_deit";  // as Runtime.prepare; the page has no segmenters
    const rgb = resize(data, width, height, 4, info.width, info.height, cubic), resized = performance.now();
    const labels = this.seeds.run(rgb), segmented = performance.now();
    const outputs = await this.infer(rgb, labels), inferred = performance.now();
    if (!Object.values(outputs).every(allFinite)) throw new PageError("The model gave numbers that are not finite.");
    const map = [info.height, info.width];
    const hierarchy = buildHierarchy(labels, this.levels(rgb, labels, outputs));
    const top = topClasses(outputs.logits, spec), inks = hierarchyColours(hierarchy, map), done = performance.now();
    const timing = {
      preprocess: resized - start, superpixels: segmented - resized, model: inferred - segmented, postprocess: done - inferred,
    };
    return {
      hierarchy, inks, map, size: [height, width], top, unsure: isUnsure(top, spec), embedding: outputs.embedding, timing,
    };
  }

  /** The segment of each superpixel, one array per level, as the model's description says that levels are made. */
  levels(rgb, labels, outputs) {
    const numbered = name => this.spec.clusters.map((_, i) => outputs[`${name}${i + 1}`]);
    return this.merging ? this.merging.run(rgb, labels, numbered("assignment")) : numbered("level");
  }

  async infer(rgb, labels) {
    if (this.other?.trusted) return this.other.network.run(rgb, labels);
    const outputs = await this.network.run(rgb, labels);
    if (this.other) await this.compare(rgb, labels, outputs);
    return outputs;
  }

  /**
   * Try another provider. It is used only after its labels and class were those of the wasm path on the next frame.
   * @param {?{address: string, binary: Uint8Array}} runtime null: back to wasm
   * @param {function(boolean, string)} tell what became of it
   */
  async setWebGpu(runtime, tell) {
    await this.other?.network.close();
    this.other = null;
    if (!runtime) return;
    const ort = await loadRuntime(runtime.address, runtime.binary, 1);
    this.other = { network: await Network.create(ort, this.graph, this.info, "webgpu"), trusted: false, tell };
  }

  async compare(rgb, labels, expected) {
    const { other } = this, judged = outputs => ({ levels: this.levels(rgb, labels, outputs), logits: outputs.logits });
    let why = null;
    try {
      why = firstDifference(judged(expected), judged(await other.network.run(rgb, labels)));
    } catch (error) {
      why = error.message;
    }
    if (why) {
      this.other = null;
      await other.network.close();
    } else other.trusted = true;
    other.tell(!why, why || "");
  }
}

/** The first level in which labels differ, or that the best class does, in words, or null. */
export function firstDifference(expected, found) {
  for (const [at, level] of expected.levels.entries()) {
    const differing = level.reduce((sum, label, i) => sum + (label !== found.levels[at][i]), 0);
    if (differing) return `${differing} superpixels are in another segment of level ${at + 1}`;
  }
  const best = logits => logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  return best(expected.logits) === best(found.logits) ? null : "the class is another one";
}

const allFinite = values => !(values instanceof Float32Array) || values.every(Number.isFinite);

// Runs one stage of the page in Node on a file of data: node stages.mjs STAGE INPUT OUTPUT, beside the page's modules.
import fs from "node:fs";
import { pathToFileURL } from "node:url";
import { hierarchyColours } from "./colours.js";
import { readDescription } from "./description.js";
import { Engine, firstDifference } from "./engine.js";
import { buildHierarchy } from "./hierarchy.js";
import { Kernel } from "./kernel.js";
import { toLab } from "./lab.js";
import { measure } from "./measure.js";
import { Merging } from "./merging.js";
import { upright, withoutTag } from "./orientation.js";
import { decodeDeep, isDeep } from "./png16.js";
import { resize } from "./resize.js";
import { toPlain, topClasses } from "./result.js";
import { Seeds, seedsGrid } from "./seeds.js";

const [stage, input, output] = process.argv.slice(2);
const buffer = new Uint8Array(fs.readFileSync(input)), json = () => JSON.parse(new TextDecoder().decode(buffer));
const bytes = text => new Uint8Array(Buffer.from(text, "base64"));

const stages = {
  lab() {  // all colours
    const rgb = new Uint8Array(3 << 24), lab = new Uint8Array(3 << 24);
    for (let i = 0, o = 0; i < 1 << 24; i++) {
      rgb[o++] = i >> 16;
      rgb[o++] = i >> 8 & 255;
      rgb[o++] = i & 255;
    }
    toLab(rgb, lab);
    return lab;
  },
  resize() {
    return json().map(({ data, width, height, channels, target, cubic }) =>
      Buffer.from(resize(bytes(data), width, height, channels, target[1], target[0], cubic)).toString("base64"));
  },
  async seeds() {
    const { file, cases } = json(), kernel = await Kernel.load(fs.readFileSync(file));
    return cases.map(({ data, width, height, settings }) => {
      const seeds = new Seeds(kernel, height, width, settings);
      seeds.run(bytes(data));  // it is used again and again
      return Array.from(seeds.run(bytes(data)));
    });
  },
  async merging() {  // the levels of each case, and the kernel's memory after it
    const { file, segments, info, cases } = json(), kernel = await Kernel.load(fs.readFileSync(file));
    const merging = new Merging(kernel, segments, info);
    return cases.map(({ data, labels, assignments }) => {
      const matrices = assignments.map(matrix => new Float32Array(bytes(matrix).buffer));
      const levels = merging.run(bytes(data), new Int32Array(bytes(labels).buffer), matrices).map(level => Array.from(level));
      return { levels, held: kernel.functions.memory.buffer.byteLength };
    });
  },
  async engine() {
    const { graph, kernel, script, binary, pictures } = json(), found = [];
    const runtime = { address: pathToFileURL(script).href, binary: fs.readFileSync(binary) };
    const engine = await Engine.create(fs.readFileSync(graph), fs.readFileSync(kernel), runtime, 1);
    for (const { data, width, height } of pictures) {
      const { hierarchy } = await engine.segment(new Uint8ClampedArray(bytes(data)), width, height);
      found.push({ superpixels: Array.from(hierarchy.superpixels), members: hierarchy.members.map(m => Array.from(m)) });
    }
    return found;
  },
  async provider() {  // what becomes of other networks, the numbers of whose output `changed` stand in another order
    const { file, spec, info, data, outputs, changes } = json(), { height, width } = info, told = [];
    const kernel = await Kernel.load(fs.readFileSync(file)), seeds = new Seeds(kernel, height, width, spec.superpixels);
    const merging = spec.grouping === "merged" ? new Merging(kernel, spec.clusters, info) : null;
    const network = changed => ({
      async run() {
        const given = Object.entries(outputs).map(([name, numbers]) =>
          [name, (name.startsWith("level") ? Int32Array : Float32Array).from(numbers)]);
        const copy = Object.fromEntries(given);
        copy[changed]?.reverse();
        return copy;
      },
      async close() {},
    });
    for (const changed of changes) {
      const other = { network: network(changed), trusted: false, tell: (same, why) => told.push([same, why]) };
      const engine = new Engine({ spec, info, seeds, merging, network: network(null), other });
      await engine.segment(new Uint8ClampedArray(bytes(data)), width, height);
    }
    return told;
  },
  grid() { return json().map(([height, width, count]) => seedsGrid(height, width, count)); },
  hierarchy() {
    return json().map(({ labels, levels, map }) => {
      const found = buildHierarchy(Int32Array.from(labels), levels.map(level => Int32Array.from(level)));
      return {
        superpixels: Array.from(found.superpixels), members: found.members.map(m => Array.from(m)),
        ids: found.ids.map(m => Array.from(m)), parents: found.parents.map(m => Array.from(m)),
        colours: hierarchyColours(found, map).map(m => Array.from(m)),
      };
    });
  },
  result() {
    return json().map(({ spec, labels, levels, map, size, logits, embedding, timing }) => {
      const hierarchy = buildHierarchy(Int32Array.from(labels), levels.map(level => Int32Array.from(level)));
      const top = topClasses(Float32Array.from(logits), spec);
      const result = { hierarchy, map, size, top, embedding: Float32Array.from(embedding), timing, source: null };
      return toPlain(result, spec);
    });
  },
  description() {
    return json().map(data => {
      try {
        return readDescription(bytes(data));
      } catch (error) {
        return { refused: error.message, ours: error.constructor.name };
      }
    });
  },
  measure() { return json().map(data => measure(bytes(data))); },
  async deep() {
    const found = [];
    for (const data of json().map(bytes)) found.push(isDeep(data) ? Buffer.from(await decodeDeep(data)).toString("base64") : null);
    return found;
  },
  oriented() {
    return json().map(data => {
      const found = withoutTag(bytes(data), measure(bytes(data)).type);
      return [Buffer.from(found.bytes).toString("base64"), found.orientation];
    });
  },
  upright() {
    return json().map(([data, width, height, orientation]) => {
      const found = upright(new Uint8ClampedArray(bytes(data)), width, height, orientation);
      return [Buffer.from(found.data).toString("base64"), found.width, found.height];
    });
  },
  difference() { return json().map(([expected, found]) => firstDifference(expected, found)); },
};

const found = await stages[stage]();
fs.writeFileSync(output, found instanceof Uint8Array ? found : JSON.stringify(found));

// Runs one stage of the page in Node on a file of data: node stages.mjs STAGE INPUT OUTPUT, beside the page's modules.
import fs from "node:fs";
import { hierarchyColours } from "./colours.js";
import { readDescription } from "./description.js";
import { firstDifference } from "./engine.js";
import { buildHierarchy } from "./hierarchy.js";
import { toLab } from "./lab.js";
import { measure } from "./measure.js";
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
    return json().map(({ data, width, height, channels, target }) =>
      Buffer.from(resize(bytes(data), width, height, channels, target[1], target[0])).toString("base64"));
  },
  async seeds() {
    const { kernel, cases } = json(), binary = fs.readFileSync(kernel), found = [];
    for (const { data, width, height, settings } of cases) {
      const seeds = await Seeds.create(binary, height, width, settings);
      seeds.run(bytes(data));  // a kernel is used again and again
      found.push(Array.from(seeds.run(bytes(data))));
    }
    return found;
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

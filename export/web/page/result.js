// What is said about one frame: classes, and the JSON that Python's Segmentation.to_json writes.
import { labelsAtFrame } from "./hierarchy.js";

/** The most probable classes, best first: [{class_id, name, probability}]. */
export function topClasses(logits, spec, count = 5) {
  const temperature = spec.temperature || 1, scores = Float64Array.from(logits, value => value / temperature);
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity), weights = scores.map(score => Math.exp(score - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const order = Array.from(weights.keys()).sort((i, j) => weights[j] - weights[i] || i - j).slice(0, count);
  return order.map(i => ({ class_id: i, name: spec.class_names?.[i] ?? `class ${i}`, probability: weights[i] / total }));
}

/** Whether the best class is too improbable to be said, by the model's own measure. */
export function isUnsure(top, spec) {
  return spec.unsure_below > 0 && top.length > 0 && top[0].probability < spec.unsure_below;
}

/**
 * Plain data with the fields of Python's `Segmentation.to_dict`.
 * @param {object} result hierarchy, size and map [height, width], top, embedding, timing, source
 */
export function toPlain(result, spec) {
  const { hierarchy, size, map } = result, levels = hierarchy.members.length;
  return {
    schema_version: 1,
    model: spec.name,
    source: result.source,
    size,
    top: result.top.map(entry => ({ ...entry, probability: Number(entry.probability.toFixed(6)) })),
    unsure: isUnsure(result.top, spec),
    embedding: Array.from(result.embedding, value => Number(value.toPrecision(6))),
    timing_ms: Object.fromEntries(Object.entries(result.timing).map(([stage, ms]) => [stage, Number(ms.toFixed(3))])),
    levels: Array.from({ length: levels }, (_, level) => {
      const count = hierarchy.ids[level].length, parents = hierarchy.parents[level];
      const segments = describe(labelsAtFrame(hierarchy, level, size, map), count, size, parents);
      return { level, num_segments: count, segments };
    }),
  };
}

// Area, box and run lengths of each segment of a label map; runs go down the columns, beginning with a run outside.
function describe(labels, count, [height, width], parents) {
  const area = new Uint32Array(count), left = new Int32Array(count).fill(width), top = new Int32Array(count).fill(height);
  const right = new Int32Array(count).fill(-1), bottom = new Int32Array(count).fill(-1), end = new Uint32Array(count);
  const counts = Array.from({ length: count }, () => []), pixels = height * width;
  for (let x = 0, from = 0, owner = labels[0]; x < width; x++) {
    for (let y = 0, i = x; y < height; y++, i += width) {
      const label = labels[i], at = x * height + y;
      area[label]++;
      if (x < left[label]) left[label] = x;
      if (y < top[label]) top[label] = y;
      if (x > right[label]) right[label] = x;
      if (y > bottom[label]) bottom[label] = y;
      const over = at === pixels - 1;
      if (label !== owner || over) {
        const stop = label !== owner ? at : at + 1;
        counts[owner].push(from - end[owner], stop - from);
        end[owner] = stop;
        if (label !== owner && over) {
          counts[label].push(at - end[label], 1);
          end[label] = pixels;
        }
        from = at;
        owner = label;
      }
    }
  }
  return counts.map((runs, id) => {
    if (end[id] < pixels) runs.push(pixels - end[id]);
    const seen = area[id] > 0;
    const box = [seen ? left[id] : 0, seen ? top[id] : 0, seen ? right[id] - left[id] + 1 : 0, seen ? bottom[id] - top[id] + 1 : 0];
    return { id, parent: parents ? parents[id] : null, area: area[id], box, rle: { size: [height, width], counts: runs } };
  });
}

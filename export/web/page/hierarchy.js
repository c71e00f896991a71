// Level maps and the segment tree of one picture, from the composed labels of its superpixels.
import { PageError } from "./errors.js";

/**
 * Segments of every level, numbered without gaps: superpixels without a pixel and clusters without a superpixel are
 * left out.
 * @param {Int32Array} labels superpixel of each pixel
 * @param {Int32Array[]} levels one array per level, fine to coarse: the cluster of each superpixel
 * @returns {{superpixels: Uint16Array, members: Uint16Array[], ids: Int32Array[], parents: Uint16Array[]}} the level-0
 *   segment of each pixel; per level each superpixel's segment (`members[0]` counts up), the model's own number of
 *   each segment, and (all but the last) each segment's parent
 */
export function buildHierarchy(labels, levels) {
  const count = Math.min(...levels.map(level => level.length)), used = new Uint8Array(count);
  for (const label of labels) {
    if (label < 0 || label >= count) throw new PageError(`The model takes ${count} superpixels, and there is one more.`);
    used[label] = 1;
  }
  const present = Int32Array.from(used.keys()).filter(label => used[label]);
  const renumber = new Uint16Array(count);
  present.forEach((label, index) => { renumber[label] = index; });
  const members = [Uint16Array.from(present.keys())], ids = [present], parents = [];
  for (const level of levels) {
    const clusters = present.map(label => level[label]), distinct = Int32Array.from(new Set(clusters)).sort();
    const index = new Map(Array.from(distinct, (cluster, at) => [cluster, at]));
    const member = Uint16Array.from(clusters, cluster => index.get(cluster)), below = members.at(-1);
    const parent = new Uint16Array(ids.at(-1).length);
    below.forEach((segment, i) => { parent[segment] = member[i]; });
    if (below.some((segment, i) => parent[segment] !== member[i])) {
      throw new PageError("The model's levels do not nest: its graph was not exported by this version of cast_sdk.");
    }
    members.push(member);
    ids.push(distinct);
    parents.push(parent);
  }
  return { superpixels: Uint16Array.from(labels, label => renumber[label]), members, ids, parents };
}

/** Superpixel of each of `length` pixels of a frame's axis, as an index into `resized` pixels of the model's. */
export function sourceIndex(length, resized) {
  return Int32Array.from({ length }, (_, i) => Math.floor((2 * i + 1) * resized / (2 * length)));
}

/** A level's segment of each pixel of the frame, Uint16Array. `size` and `map` are [height, width]. */
export function labelsAtFrame(hierarchy, level, size, map) {
  const rows = sourceIndex(size[0], map[0]), columns = sourceIndex(size[1], map[1]), member = hierarchy.members[level];
  const out = new Uint16Array(size[0] * size[1]);
  for (let y = 0, o = 0; y < size[0]; y++) {
    if (y && rows[y] === rows[y - 1]) {
      out.copyWithin(o, o - size[1], o);
      o += size[1];
      continue;
    }
    for (let x = 0, start = rows[y] * map[1]; x < size[1]; x++, o++) out[o] = member[hierarchy.superpixels[start + columns[x]]];
  }
  return out;
}

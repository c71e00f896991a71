// Segments as pixels: the map enlarged with round corners, fills, outlines, and colours that carry over from frame to
// frame. Plain functions on arrays.
//
// A frame here: `size` [height, width] of the picture, `map` [height, width] of the superpixel map, `window` [x, y,
// width, height] of the map in the picture (fractions), `labels` superpixel of each map pixel, and per level `members`
// (each superpixel's segment), `inks` (0xBBGGRR of each segment), `areas` (share of the map of each segment).

export const RING_CSS = ["#ffffff", "#ffffff", "#fde047", "#fb923c", "#f43f5e"];  // outline of the ancestor by level
const RING = [0xffffffff, 0xffffffff, 0xff47e0fd, 0xff3c92fb, 0xff5e3ff4];  // the same as 0xAABBGGRR
const SHADE = 0x0a0704;  // over what lies outside of the coarsest ancestor

/** Share of the map that each segment covers, per level: Float64Array[]. */
export function segmentAreas(labels, members) {
  const area = new Float64Array(members[0].length);
  for (const label of labels) area[label]++;
  return members.map(member => {
    const sums = new Float64Array(member.reduce((most, segment) => Math.max(most, segment), 0) + 1);
    member.forEach((segment, i) => { sums[segment] += area[i] / labels.length; });
    return sums;
  });
}

/** Superpixel under a pointer at fractions [x, y] of the picture, or null. */
export function superpixelAt(frame, pointer) {
  if (!pointer || !frame.labels) return null;
  const [left, top, width, height] = frame.window, x = (pointer[0] - left) / width, y = (pointer[1] - top) / height;
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return null;
  return frame.labels[Math.floor(y * frame.map[0]) * frame.map[1] + Math.floor(x * frame.map[1])];
}

/**
 * Colours carry over: each coarsest segment keeps the hue of the one it overlaps most in the frame before, and all
 * that it holds turns with it. Changes `frame.inks`, but not of tracked frames, whose colours follow the tracks already.
 */
export function carryColours(frame, before) {
  if (frame.tracks || !before || !before.labels || !frame.labels || before.labels.length !== frame.labels.length) return;
  const [rows, columns] = frame.map, top = frame.members.at(-1), was = before.members.at(-1);
  const ink = frame.inks.at(-1), old = before.inks.at(-1), width = old.length;
  const shared = new Uint32Array(ink.length * width), turn = new Float64Array(ink.length);
  for (let y = 0; y < rows; y += 2) {
    for (let x = 0, i = y * columns; x < columns; x += 2, i += 2) {
      shared[top[frame.labels[i]] * width + was[before.labels[i]]]++;
    }
  }
  const taken = new Set(), done = new Set(), pairs = Array.from(shared.keys()).filter(pair => shared[pair]);
  for (const pair of pairs.sort((a, b) => shared[b] - shared[a])) {
    const segment = Math.floor(pair / width), source = pair % width;
    if (done.has(segment) || taken.has(source)) continue;
    done.add(segment);
    taken.add(source);
    turn[segment] = chroma(old[source])[1] - chroma(ink[segment])[1];
  }
  frame.members.forEach((member, level) => {
    const holder = new Uint16Array(frame.inks[level].length);
    member.forEach((segment, i) => { holder[segment] = top[i]; });
    frame.inks[level] = frame.inks[level].map((colour, segment) => turned(colour, turn[holder[segment]]));
  });
}

// Brightness, hue and strength in the YIQ colour space.
function chroma(colour) {
  const r = colour & 255, g = colour >> 8 & 255, b = colour >> 16 & 255;
  const i = .596 * r - .274 * g - .322 * b, q = .211 * r - .523 * g + .312 * b;
  return [.299 * r + .587 * g + .114 * b, Math.atan2(q, i), Math.hypot(i, q)];
}

function turned(colour, angle) {
  const [y, hue, full] = chroma(colour), strength = Math.min(full, 70);
  const i = strength * Math.cos(hue + angle), q = strength * Math.sin(hue + angle);
  const byte = v => Math.max(0, Math.min(255, Math.round(v)));
  return byte(y + .956 * i + .621 * q) | byte(y - .272 * i - .647 * q) << 8 | byte(y - 1.107 * i + 1.704 * q) << 16;
}

/**
 * The superpixel map enlarged: each pixel takes the label that weighs most among its four neighbours, which rounds the
 * staircase. Kept in the frame for the next call.
 */
export function enlarge(frame, width, height) {
  if (frame.large && frame.largeWidth === width) return frame.large;
  const [rows, columns] = frame.map, small = frame.labels, out = new Uint16Array(width * height);
  const x0 = new Uint16Array(width), x1 = new Uint16Array(width), fx = new Float32Array(width);
  for (let x = 0; x < width; x++) {
    const at = Math.max(0, Math.min(columns - 1, (x + .5) * columns / width - .5));
    x0[x] = at | 0;
    x1[x] = Math.min(columns - 1, x0[x] + 1);
    fx[x] = at - x0[x];
  }
  for (let y = 0, o = 0; y < height; y++) {
    const at = Math.max(0, Math.min(rows - 1, (y + .5) * rows / height - .5)), top = at | 0, fy = at - top;
    const a0 = top * columns, b0 = Math.min(rows - 1, top + 1) * columns;
    for (let x = 0; x < width; x++, o++) {
      const a = small[a0 + x0[x]], b = small[a0 + x1[x]], c = small[b0 + x0[x]], d = small[b0 + x1[x]];
      if (a === b && a === c && a === d) {
        out[o] = a;
        continue;
      }
      const f = fx[x], wa = (1 - f) * (1 - fy), wb = f * (1 - fy), wc = (1 - f) * fy, wd = f * fy;
      const va = wa + (b === a ? wb : 0) + (c === a ? wc : 0) + (d === a ? wd : 0);
      const vb = wb + (c === b ? wc : 0) + (d === b ? wd : 0), vc = wc + (d === c ? wd : 0);
      out[o] = va >= vb && va >= vc && va >= wd ? a : vb >= vc && vb >= wd ? b : vc >= wd ? c : d;
    }
  }
  frame.large = out;
  frame.largeWidth = width;
  return out;
}

let layer = null;

/**
 * A frame with its segments on a canvas.
 * @param {CanvasRenderingContext2D|OffscreenCanvasRenderingContext2D} pen of a canvas of width x height pixels
 * @param {number} finest pixels across the picture that segments are drawn with at most
 */
export function paintFrame(pen, width, height, frame, look, lit, finest) {
  pen.imageSmoothingQuality = "medium";
  pen.drawImage(frame.picture, 0, 0, width, height);
  if (!frame.labels) return;
  const [left, top, part, tall] = frame.window, across = Math.max(1, Math.round(Math.min(width * part, finest)));
  const down = Math.max(1, Math.round(across * (tall * height) / (part * width)));
  if (layer?.width !== across || layer?.height !== down) layer = new OffscreenCanvas(across, down);
  const image = new ImageData(across, down), layerPen = layer.getContext("2d");
  paintSegments(frame, look, lit, new Uint32Array(image.data.buffer), across, down);
  layerPen.putImageData(image, 0, 0);
  pen.drawImage(layer, left * width, top * height, part * width, tall * height);
}

/**
 * The segments of a level over a transparent ground.
 * @param {object} frame
 * @param {{level: number, opacity: number, lines: boolean}} look
 * @param {?number} lit superpixel under the pointer: its segment shines and its ancestors are outlined
 * @param {Uint32Array} px gets width * height pixels, 0xAABBGGRR
 */
export function paintSegments(frame, look, lit, px, width, height) {
  const levels = frame.members.length - 1, level = Math.min(look.level, levels), large = enlarge(frame, width, height);
  const shade = shades(frame, level, Math.round(look.opacity * 255), lit);
  for (let i = 0; i < px.length; i++) px[i] = shade[large[i]];
  if (look.lines) paintLines(frame, level, large, px, width, height);
  // Coarse outlines are wide and drawn first: where several levels end together the finer ones run inside of them.
  if (lit !== null) for (let l = levels; l >= level; l--) paintRing(frame, l, 1 + l - level, lit, large, px, width, height);
}

// Colour with opacity of each superpixel.
function shades(frame, level, alpha, lit) {
  const here = frame.members[level], outermost = frame.members.at(-1), ink = frame.inks[level];
  const over = (colour, opacity) => (colour | Math.min(255, opacity) << 24) >>> 0;
  return Uint32Array.from(here, (segment, superpixel) => {
    if (lit !== null && segment === here[lit]) return over(ink[segment], alpha + 70);
    if (lit !== null && outermost[superpixel] !== outermost[lit]) return over(SHADE, Math.max(150, alpha));
    return over(ink[segment], alpha);
  });
}

function paintLines(frame, level, large, px, width, height) {
  const soft = 0x66ffffff, hard = 0xe6ffffff, here = frame.members[level], outermost = frame.members.at(-1);
  for (let y = 0, i = 0; y < height - 1; y++, i++) {
    for (let x = 0; x < width - 1; x++, i++) {
      const a = large[i], b = large[i + 1], c = large[i + width];
      if (a === b && a === c || here[a] === here[b] && here[a] === here[c]) continue;
      px[i] = outermost[a] !== outermost[b] || outermost[a] !== outermost[c] ? hard : soft;
    }
  }
}

function paintRing(frame, level, reach, lit, large, px, width, height) {
  const member = frame.members[level], mine = member[lit], colour = RING[level] ?? RING.at(-1);
  for (let y = reach; y < height - reach; y++) {
    for (let x = reach, i = y * width + reach; x < width - reach; x++, i++) {
      const inside = member[large[i]] === mine;
      if (inside === (member[large[i + 1]] === mine) && inside === (member[large[i + width]] === mine)) continue;
      for (let d = 1 - reach; d <= reach; d++) px.fill(colour, i + d * width + 1 - reach, i + d * width + reach + 1);
    }
  }
}

// Colours for nested segments: a family of hues per coarse segment, shades of it for what lies inside. The rules and
// numbers are those of cast_sdk's own pictures.

const FIRST_HUE = 0.70, CHROMA = 0.135, KEEP = 0.78;

/** Colours of the segments of every level, superpixels first: Uint32Array of 0xBBGGRR. `map` is [height, width]. */
export function hierarchyColours({ superpixels, members, ids, parents }, map) {
  const levels = parents.length, count = ids[levels].length, places = pixelSums(superpixels, ids[0].length, map);
  const direction = level => directions(members[level], ids[level].length, places, map);
  const rank = ranks(new Uint16Array(count), direction(levels));
  let centre = Float64Array.from(rank, place => FIRST_HUE + place * (2 * Math.PI / count));
  let width = new Float64Array(count).fill(2 * Math.PI / count);
  let light = Float64Array.from(rank, place => count > 1 ? (place % 2 ? 0.78 : 0.70) : 0.74);
  const colours = [Uint32Array.from(centre, (hue, i) => oklch(light[i], CHROMA, hue))];
  for (let level = levels - 1; level >= 0; level--) {
    const parent = parents[level], total = new Uint32Array(centre.length), step = level ? 0.05 : 0.03;
    for (const p of parent) total[p]++;
    const place = ranks(parent, direction(level)), siblings = Float64Array.from(parent, p => total[p]);
    const slot = siblings.map((many, i) => width[parent[i]] * KEEP / many);
    centre = slot.map((part, i) => centre[parent[i]] + (place[i] - (siblings[i] - 1) / 2) * part);
    light = slot.map((_, i) => {
      const shade = siblings[i] > 1 ? (place[i] % 2 ? -step : step) : 0;
      return Math.min(0.88, Math.max(0.55, light[parent[i]] + shade));
    });
    width = slot;
    colours.unshift(Uint32Array.from(centre, (hue, i) => oklch(light[i], CHROMA, hue)));
  }
  return colours;
}

/** sRGB as 0xBBGGRR from OKLCH (Ottosson 2020): lightness 0..1, chroma, hue in radians; clipped per channel. */
export function oklch(light, chroma, hue) {
  const a = chroma * Math.cos(hue), b = chroma * Math.sin(hue);
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3;
  const red = encoded(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s);
  const green = encoded(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s);
  const blue = encoded(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s);
  return red | green << 8 | blue << 16;
}

function encoded(linear) {
  const v = Math.min(1, Math.max(0, linear));
  return Math.round(255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055));
}

// Number of pixels and sums of their rows and columns, per superpixel.
function pixelSums(superpixels, count, [height, width]) {
  const area = new Float64Array(count), rows = new Float64Array(count), columns = new Float64Array(count);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      area[superpixels[i]]++;
      rows[superpixels[i]] += y;
      columns[superpixels[i]] += x;
    }
  }
  return { area, rows, columns };
}

// Direction of each segment's centre of mass, seen from the picture's centre, in radians from "up".
function directions(member, count, places, [height, width]) {
  const area = new Float64Array(count), rows = new Float64Array(count), columns = new Float64Array(count);
  member.forEach((segment, i) => {
    area[segment] += places.area[i];
    rows[segment] += places.rows[i];
    columns[segment] += places.columns[i];
  });
  return area.map((pixels, i) => Math.atan2(columns[i] / pixels - (width - 1) / 2, (height - 1) / 2 - rows[i] / pixels));
}

// Rank of each value among those of its group; equal values in their order.
function ranks(groups, values) {
  const order = Uint32Array.from(values.keys()).sort((i, j) => groups[i] - groups[j] || values[i] - values[j] || i - j);
  const rank = new Uint32Array(values.length);
  for (let k = 0, first = 0; k < order.length; k++) {
    if (k && groups[order[k]] !== groups[order[k - 1]]) first = k;
    rank[order[k]] = k - first;
  }
  return rank;
}

// Resizing as the Runtime does it (runtime/resample.py): Pillow's bilinear and bicubic rules for 8-bit images. Columns
// first, then rows, each rounded; where an axis shrinks, the curve that weighs the pixels is as much wider.

const BITS = 22, HALF = 1 << (BITS - 1);

/**
 * The whole picture at the model's size.
 * @param {Uint8Array|Uint8ClampedArray} data pixels, row by row, red first; channels beyond the third are left out
 * @param {number} width, height of the picture; `channels` of each pixel
 * @param {number} targetWidth, targetHeight in pixels
 * @param {boolean} cubic bicubic in place of bilinear
 * @returns {Uint8Array} RGB, 3 * targetWidth * targetHeight
 */
export function resize(data, width, height, channels, targetWidth, targetHeight, cubic = false) {
  const length = 3 * targetWidth, narrow = new Uint8Array(height * length);
  const columns = taps(width, targetWidth, cubic);
  for (let y = 0, o = 0; y < height; y++) {
    const start = y * width * channels;
    for (let x = 0; x < targetWidth; x++, o += 3) {
      let i = start + columns.first[x] * channels, red = HALF, green = HALF, blue = HALF;
      for (let k = x * columns.most, end = k + columns.count[x]; k < end; k++, i += channels) {
        const weight = columns.weights[k];
        red += data[i] * weight;
        green += data[i + 1] * weight;
        blue += data[i + 2] * weight;
      }
      narrow[o] = clipped(red);
      narrow[o + 1] = clipped(green);
      narrow[o + 2] = clipped(blue);
    }
  }
  const rows = taps(height, targetHeight, cubic);
  const out = new Uint8Array(targetHeight * length), sums = new Int32Array(length);
  for (let y = 0; y < targetHeight; y++) {
    sums.fill(HALF);
    for (let tap = 0; tap < rows.count[y]; tap++) {
      const start = (rows.first[y] + tap) * length, weight = rows.weights[y * rows.most + tap];
      for (let i = 0; i < length; i++) sums[i] += narrow[start + i] * weight;
    }
    for (let i = 0, o = y * length; i < length; i++, o++) out[o] = clipped(sums[i]);
  }
  return out;
}

const clipped = sum => Math.min(Math.max(sum >> BITS, 0), 255);  // bicubic sums overshoot

const triangle = distance => Math.max(1 - distance, 0);

function cubicCurve(distance) {  // Keys (1981), a = -0.5
  if (distance < 1) return ((1.5 * distance - 2.5) * distance) * distance + 1;
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * -0.5 : 0;
}

// For each of `target` pixels the first of `length` that it reads, how many, and their fixed-point weights.
function taps(length, target, cubic) {
  const scale = length / target, stretch = Math.max(scale, 1), support = cubic ? 2 * stretch : stretch;
  const curve = cubic ? cubicCurve : triangle, most = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(target), count = new Int32Array(target), weights = new Int32Array(target * most);
  for (let i = 0; i < target; i++) {
    const centre = (i + 0.5) * scale;
    first[i] = Math.max(Math.trunc(centre - support + 0.5), 0);
    count[i] = Math.min(Math.trunc(centre + support + 0.5), length) - first[i];
    const shares = [];
    let sum = 0;
    for (let tap = 0; tap < count[i]; tap++) {
      shares.push(curve(Math.abs((first[i] + tap - centre + 0.5) * (1 / stretch))));
      sum += shares[tap];
    }
    shares.forEach((share, tap) => {
      weights[i * most + tap] = Math.trunc((share / sum) * (1 << BITS) + (share < 0 ? -0.5 : 0.5));
    });
  }
  return { first, count, weights, most };
}

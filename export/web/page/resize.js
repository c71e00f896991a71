// Resizing as OpenCV does it for 8-bit images: area averaging where an axis shrinks, linear interpolation where it
// grows. Orders of additions and float32 roundings are part of the result.

/**
 * The whole picture at the model's size.
 * @param {Uint8Array|Uint8ClampedArray} data pixels, row by row, red first; channels beyond the third are left out
 * @param {number} width, height of the picture; `channels` of each pixel
 * @param {number} targetWidth, targetHeight in pixels
 * @returns {Uint8Array} RGB, 3 * targetWidth * targetHeight
 */
export function resize(data, width, height, channels, targetWidth, targetHeight) {
  let picture = { data, width, height, channels };
  // OpenCV has one rule for both axes, so an axis that shrinks beside one that grows goes first.
  if (height > targetHeight && width < targetWidth) picture = area(picture, width, targetHeight);
  else if (width > targetWidth && height < targetHeight) picture = area(picture, targetWidth, height);
  if (picture.width === targetWidth && picture.height === targetHeight) return colours(picture);
  const shrinks = picture.width >= targetWidth && picture.height >= targetHeight;
  return (shrinks ? area : linear)(picture, targetWidth, targetHeight).data;
}

function colours({ data, width, height, channels }) {
  const out = new Uint8Array(3 * width * height);
  for (let i = 0, o = 0; o < out.length; i += channels, o += 3) {
    out[o] = data[i];
    out[o + 1] = data[i + 1];
    out[o + 2] = data[i + 2];
  }
  return out;
}

const rgb = (width, height) => ({ data: new Uint8Array(3 * width * height), width, height, channels: 3 });

function area(source, width, height) {
  const across = 1 / (width / source.width), down = 1 / (height / source.height);
  const whole = Number.isInteger(across) && Number.isInteger(down);
  return whole ? wholeArea(source, width, height, across, down) : fractionalArea(source, width, height, across, down);
}

// Each pixel is the mean of a block of whole pixels.
function wholeArea(source, width, height, across, down) {
  const { data, channels } = source, stride = source.width * channels, target = rgb(width, height);
  const share = Math.fround(1 / (across * down));
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const start = y * down * stride + x * across * channels;
      for (let c = 0; c < 3; c++, o++) {
        let sum = 0;
        for (let row = 0, at = start + c; row < down; row++, at += stride) {
          for (let k = 0, i = at; k < across; k++, i += channels) sum += data[i];
        }
        target.data[o] = across === 2 && down === 2 ? (sum + 2) >> 2 : halfToEven(Math.fround(sum * share));
      }
    }
  }
  return target;
}

// Rows are averaged first, then added up with the shares that they have in a pixel.
function fractionalArea(source, width, height, across, down) {
  const { data, channels } = source, target = rgb(width, height), length = 3 * width;
  const columns = shares(source.width, width, across), rows = shares(source.height, height, down);
  const line = new Float32Array(length), sum = new Float32Array(length), taps = columns.from.length;
  const flush = y => {
    for (let i = 0, o = y * length; i < length; i++, o++) target.data[o] = halfToEven(sum[i]);
  };
  let current = -1;
  for (let row = 0; row < rows.from.length; row++) {
    const start = rows.from[row] * source.width * channels, part = rows.share[row];
    line.fill(0);
    for (let k = 0; k < taps; k++) {
      const i = start + columns.from[k] * channels, o = 3 * columns.to[k], weight = columns.share[k];
      line[o] += Math.fround(data[i] * weight);
      line[o + 1] += Math.fround(data[i + 1] * weight);
      line[o + 2] += Math.fround(data[i + 2] * weight);
    }
    if (rows.to[row] !== current) {
      if (current >= 0) flush(current);
      current = rows.to[row];
      sum.fill(0);
    }
    for (let i = 0; i < length; i++) sum[i] += Math.fround(line[i] * part);
  }
  flush(current);
  return target;
}

// Which source pixels lie under each target pixel, and their shares of it.
function shares(length, target, scale) {
  const from = [], to = [], share = [];
  const add = (source, pixel, value) => {
    from.push(source);
    to.push(pixel);
    share.push(value);
  };
  for (let pixel = 0; pixel < target; pixel++) {
    const begin = pixel * scale, end = begin + scale, cell = Math.min(scale, length - begin);
    const last = Math.min(Math.floor(end), length - 1), first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) add(first - 1, pixel, (first - begin) / cell);
    for (let i = first; i < last; i++) add(i, pixel, 1 / cell);
    if (end - last > 1e-3) add(last, pixel, Math.min(end - last, 1, cell) / cell);
  }
  return { from: Int32Array.from(from), to: Int32Array.from(to), share: Float32Array.from(share) };
}

// Fixed-point weights of 11 bits; the sum of both axes is rounded once.
function linear(source, width, height) {
  const { data, channels } = source, stride = source.width * channels, target = rgb(width, height);
  const columns = neighbours(source.width, width, true), rows = neighbours(source.height, height, false);
  for (let y = 0, o = 0; y < height; y++) {
    const upper = rows.first[y] * stride, lower = rows.second[y] * stride, w0 = rows.w0[y], w1 = rows.w1[y];
    for (let x = 0; x < width; x++) {
      const left = columns.first[x] * channels, right = columns.second[x] * channels;
      const v0 = columns.w0[x], v1 = columns.w1[x];
      for (let c = 0; c < 3; c++, o++) {
        const top = data[upper + left + c] * v0 + data[upper + right + c] * v1;
        const bottom = data[lower + left + c] * v0 + data[lower + right + c] * v1;
        target.data[o] = (((w0 * (top >> 4)) >> 16) + ((w1 * (bottom >> 4)) >> 16) + 2) >> 2;
      }
    }
  }
  return target;
}

function neighbours(length, target, clampWeights) {
  const first = new Int32Array(target), second = new Int32Array(target);
  const w0 = new Int32Array(target), w1 = new Int32Array(target), scale = 1 / (target / length);
  for (let i = 0; i < target; i++) {
    const place = Math.fround((i + 0.5) * scale - 0.5), floor = Math.floor(place);
    let part = Math.fround(place - floor);
    if (clampWeights && (floor < 0 || floor >= length - 1)) part = 0;
    first[i] = Math.max(0, Math.min(length - 1, floor));
    second[i] = Math.max(0, Math.min(length - 1, floor + 1));
    w0[i] = halfToEven(Math.fround(Math.fround(1 - part) * 2048));
    w1[i] = halfToEven(Math.fround(part * 2048));
  }
  return { first, second, w0, w1 };
}

function halfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 === 1 ? rounded - 1 : rounded;
}

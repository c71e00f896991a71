// PNG files of 16 bits per channel. Browsers cut the lower 8 bits off; here values are rounded, as in Python's reader.

const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };  // grey, colour, each also with transparency
// Columns and rows of the seven passes of an interlaced file: first and step.
const PASSES = [[0, 8, 0, 8], [4, 8, 0, 8], [0, 4, 4, 8], [2, 4, 0, 4], [0, 2, 2, 4], [1, 2, 0, 2], [0, 1, 1, 2]];

/** Whether a PNG file has 16 bits per channel. */
export const isDeep = bytes => bytes[24] === 16 && bytes[25] in CHANNELS;

/**
 * @param {Uint8Array} bytes a PNG file for which `isDeep` holds
 * @returns {Promise<Uint8ClampedArray>} RGBA pixels
 */
export async function decodeDeep(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), parts = [];
  const width = view.getUint32(16), height = view.getUint32(20), channels = CHANNELS[bytes[25]];
  let clear = null;  // the one colour that is transparent
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), name = view.getUint32(at + 4), content = bytes.subarray(at + 8, at + 8 + length);
    if (name === 0x49444154) parts.push(content);  // IDAT
    else if (name === 0x74524e53 && length === 2 * channels) clear = content;  // tRNS
    at += 12 + length;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer()), out = new Uint8ClampedArray(4 * width * height);
  let at = 0;
  for (const [left, across, top, down] of bytes[28] ? PASSES : [[0, 1, 0, 1]]) {
    const columns = Math.ceil((width - left) / across), rows = Math.ceil((height - top) / down);
    if (columns <= 0 || rows <= 0) continue;
    const stride = 2 * channels * columns;
    let above = new Uint8Array(stride);
    for (let row = 0; row < rows; row++, at += stride + 1) {
      const line = lines.subarray(at + 1, at + 1 + stride);
      if (line.length < stride) throw new RangeError("the picture ends inside a row");
      unfilter(lines[at], line, above, 2 * channels);
      for (let column = 0; column < columns; column++) {
        put(out, 4 * ((top + row * down) * width + left + column * across), line, 2 * channels * column, channels, clear);
      }
      above = line;
    }
  }
  return out;
}

// Values are stored as differences from their neighbours to the left and above.
function unfilter(kind, line, above, step) {
  for (let i = 0; i < line.length; i++) {
    const a = i < step ? 0 : line[i - step], b = above[i], c = i < step ? 0 : above[i - step];
    if (kind === 1) line[i] += a;
    else if (kind === 2) line[i] += b;
    else if (kind === 3) line[i] += (a + b) >> 1;
    else if (kind === 4) {
      const toLeft = Math.abs(b - c), toAbove = Math.abs(a - c), toCorner = Math.abs(a + b - 2 * c);
      line[i] += toLeft <= toAbove && toLeft <= toCorner ? a : toAbove <= toCorner ? b : c;
    }
  }
}

function put(out, o, line, i, channels, clear) {
  const value = channel => Math.floor((line[i + 2 * channel] * 256 + line[i + 2 * channel + 1] + 128) / 257);
  const colour = channels > 2;
  out[o] = value(0);
  out[o + 1] = colour ? value(1) : out[o];
  out[o + 2] = colour ? value(2) : out[o];
  if (channels % 2) out[o + 3] = clear?.every((byte, k) => byte === line[i + k]) ? 0 : 255;
  else out[o + 3] = value(channels - 1);
}

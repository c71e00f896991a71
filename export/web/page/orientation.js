// The orientation tag: browsers turn JPEG files by it. From PNG and WebP files it is taken out and obeyed here, because
// not every browser looks at it, and pixels that are decoded apart (16 bits, transparency) are never turned.

/**
 * @param {Uint8Array} bytes a picture
 * @returns {{bytes: Uint8Array, orientation: number}} the file for the browser to decode, and how its pixels are then to
 *   be turned: EXIF's 1..8
 */
export function withoutTag(bytes, type) {
  if (type === "image/png") return withoutPngTag(bytes);
  return type === "image/webp" ? withoutWebpTag(bytes) : { bytes, orientation: 1 };
}

/** RGBA pixels turned upright: {data, width, height}. */
export function upright(data, width, height, orientation) {
  if (orientation === 1) return { data, width, height };
  const sideways = orientation >= 5, [w, h] = sideways ? [height, width] : [width, height];
  const mirrored = [2, 3, 6, 7].includes(orientation), upsideDown = [3, 4, 7, 8].includes(orientation);
  const from = new Uint32Array(data.buffer, data.byteOffset, width * height), to = new Uint32Array(w * h);
  for (let row = 0, at = 0; row < h; row++) {
    const y = upsideDown ? h - 1 - row : row;
    for (let column = 0; column < w; column++, at++) {
      const x = mirrored ? w - 1 - column : column;
      to[at] = sideways ? from[x * width + y] : from[y * width + x];
    }
  }
  return { data: new Uint8ClampedArray(to.buffer), width: w, height: h };
}

// Chunks: length, name, content, checksum.
function withoutPngTag(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), parts = [];
  let kept = 0, orientation = null;
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 12 + view.getUint32(at);
    if (view.getUint32(at + 4) === 0x65584966) {  // eXIf
      orientation ??= stated(bytes.subarray(at + 8, end - 4));
      parts.push(bytes.subarray(kept, at));
      kept = Math.min(end, bytes.length);
    }
    at = end;
  }
  parts.push(bytes.subarray(kept));
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return { bytes: joined, orientation: orientation ?? 1 };
}

// Chunks: name, length, content, filled up to even lengths. A chunk of another name is passed over.
function withoutWebpTag(bytes) {
  const copy = bytes.slice(), view = new DataView(copy.buffer);
  let orientation = 1;
  for (let at = 12; at + 8 <= copy.length;) {
    const length = view.getUint32(at + 4, true);
    if (view.getUint32(at) === 0x45584946) {  // EXIF
      orientation = stated(copy.subarray(at + 8, at + 8 + length));
      view.setUint32(at, 0x6e6f6e65);
    }
    at += 8 + length + length % 2;
  }
  return { bytes: copy, orientation };
}

// Orientation of an EXIF block, with or without "Exif" before it; 1 where it states none.
function stated(exif) {
  const start = exif[0] === 0x45 && exif[1] === 0x78 ? 6 : 0;
  const view = new DataView(exif.buffer, exif.byteOffset + start, Math.max(0, exif.length - start));
  try {
    const mark = view.getUint32(0), little = mark === 0x49492a00;
    if (!little && mark !== 0x4d4d002a) return 1;
    const directory = view.getUint32(4, little), end = directory + 2 + 12 * view.getUint16(directory, little);
    for (let at = directory + 2; at < end; at += 12) {
      if (view.getUint16(at, little) === 0x0112 && view.getUint16(at + 2, little) === 3) {
        const value = view.getUint16(at + 8, little);
        return value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the block ends too early
  }
  return 1;
}

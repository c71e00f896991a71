// What kind of picture a file holds and how large it says it is, before anything decodes it.

/**
 * @param {Uint8Array} bytes the file
 * @returns {?{type: string, width: number, height: number}} null for what is no JPEG, PNG or WebP
 */
export function measure(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (view.getUint16(0) === 0xffd8) return jpeg(view);
    if (view.getUint32(0) === 0x89504e47) return { type: "image/png", width: view.getUint32(16), height: view.getUint32(20) };
    if (view.getUint32(0) === 0x52494646 && view.getUint32(8) === 0x57454250) return webp(view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the file ends inside its head
  }
  return null;
}

function jpeg(view) {
  for (let at = 2; ;) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) at += 1;
    else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { type: "image/jpeg", width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    } else at += 2 + view.getUint16(at + 2);
  }
}

function webp(view) {
  const type = "image/webp", three = at => view.getUint16(at, true) | view.getUint8(at + 2) << 16;
  switch (view.getUint32(12)) {
    case 0x56503858: return { type, width: three(24) + 1, height: three(27) + 1 };  // VP8X
    case 0x56503820: return { type, width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };  // VP8
    case 0x5650384c: {  // VP8L
      const bits = view.getUint32(21, true);
      return { type, width: (bits & 0x3fff) + 1, height: (bits >>> 14 & 0x3fff) + 1 };
    }
    default: return null;
  }
}

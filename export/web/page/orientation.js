// JPEG files are turned by their orientation tag, PNG and WebP files are not: so does Python's reader. Browsers turn all
// of them, so the tag is taken out where it must not count.

/** The bytes of a picture whose orientation tag counts or is gone, as parts of a Blob. */
export function orientedAsRead(bytes, type) {
  if (type === "image/png") return withoutPngTag(bytes);
  return type === "image/webp" ? [withoutWebpTag(bytes)] : [bytes];
}

// Chunks: length, name, content, checksum.
function withoutPngTag(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), parts = [];
  let kept = 0;
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 12 + view.getUint32(at);
    if (view.getUint32(at + 4) === 0x65584966) {  // eXIf
      parts.push(bytes.subarray(kept, at));
      kept = Math.min(end, bytes.length);
    }
    at = end;
  }
  return [...parts, bytes.subarray(kept)];
}

// Chunks: name, length, content, filled up to even lengths. A chunk of another name is passed over.
function withoutWebpTag(bytes) {
  const copy = bytes.slice(), view = new DataView(copy.buffer);
  for (let at = 12; at + 8 <= copy.length;) {
    const length = view.getUint32(at + 4, true);
    if (view.getUint32(at) === 0x45584946) view.setUint32(at, 0x6e6f6e65);  // EXIF
    at += 8 + length + length % 2;
  }
  return copy;
}

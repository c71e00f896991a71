// From a photograph's file to upright pixels, as Python's reader gives them: orientation tags are obeyed, colour profiles
// are not, transparency is laid over white.
import { PageError } from "./errors.js";
import { measure } from "./measure.js";
import { upright, withoutTag } from "./orientation.js";
import { decodeDeep, isDeep } from "./png16.js";

export const MAX_BYTES = 64 * 2 ** 20, MAX_PIXELS = 50_000_000;
const MAX_SIDE = 1280;  // pixels of the picture that is shown
const STRIP = 4_000_000;  // pixels that pass through a canvas at a time: some browsers have small canvases

const damaged = () => new PageError("The photograph is damaged: the browser cannot decode it.");

/**
 * @param {Blob} file a JPEG, PNG or WebP
 * @returns {Promise<{data: Uint8ClampedArray, width: number, height: number, picture: ImageBitmap}>} RGBA pixels
 *   without transparency, and a picture to show
 */
export async function decodePhotograph(file) {
  if (file.size > MAX_BYTES) throw new PageError(`A photograph has at most ${MAX_BYTES >> 20} MiB.`);
  const bytes = new Uint8Array(await file.arrayBuffer()), stated = measure(bytes);
  if (!stated) throw new PageError("A photograph is a JPEG, PNG or WebP file.");
  if (stated.width * stated.height > MAX_PIXELS) {
    throw new PageError(`A photograph has at most ${MAX_PIXELS / 1e6} megapixels, not ${stated.width} x ${stated.height}.`);
  }
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const untagged = withoutTag(bytes, stated.type);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([untagged.bytes], { type: stated.type }), options);
  } catch {
    throw damaged();
  }
  let data;
  if (stated.type === "image/png" && isDeep(bytes)) {
    data = await decodeDeep(bytes).catch(() => { throw damaged(); });
    layOverWhite(data);
  } else {
    data = readPixels(bitmap).data;
    if (stated.type !== "image/jpeg" && layOverWhite(data)) data = await exactTransparency(untagged.bytes, stated.type, data);
  }
  const picture = upright(data, bitmap.width, bitmap.height, untagged.orientation);
  bitmap.close();
  return { ...picture, picture: await shownPicture(picture.data, picture.width, picture.height) };
}

let canvas = null;

/** RGBA of an ImageBitmap or VideoFrame, through a canvas in strips: {data, width, height}. */
export function readPixels(image) {
  const width = image.displayWidth ?? image.width, height = image.displayHeight ?? image.height;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  if (canvas?.width !== width || canvas?.height !== rows) canvas = new OffscreenCanvas(width, rows);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const strip = (top, count) => {
    pen.clearRect(0, 0, width, rows);
    pen.drawImage(image, 0, -top);
    return pen.getImageData(0, 0, width, count).data;
  };
  if (rows === height) return { data: strip(0, height), width, height };
  const data = new Uint8ClampedArray(4 * width * height);
  for (let top = 0; top < height; top += rows) data.set(strip(top, Math.min(rows, height - top)), 4 * top * width);
  return { data, width, height };
}

// Whether anything was transparent.
function layOverWhite(data) {
  let found = false;
  for (let i = 3; i < data.length; i += 4) {
    const alpha = data[i];
    if (alpha === 255) continue;
    found = true;
    for (let c = i - 3; c < i; c++) data[c] = Math.floor((data[c] * alpha + 255 * (255 - alpha) + 127) / 255);
    data[i] = 255;
  }
  return found;
}

// A canvas keeps colours multiplied by their opacity and rounds them. Where the browser has a decoder that does not, it
// is asked again.
async function exactTransparency(bytes, type, rounded) {
  if (typeof ImageDecoder === "undefined") return rounded;
  const decoder = new ImageDecoder({ data: bytes, type, premultiplyAlpha: "none", colorSpaceConversion: "none" });
  try {
    const { image } = await decoder.decode(), data = new Uint8ClampedArray(rounded.length);
    await image.copyTo(data, { format: "RGBA" });
    image.close();
    layOverWhite(data);
    return data;
  } finally {
    decoder.close();
  }
}

async function shownPicture(data, width, height) {
  const factor = Math.min(1, MAX_SIDE / Math.max(width, height));
  const size = { resizeWidth: Math.max(1, Math.round(width * factor)), resizeHeight: Math.max(1, Math.round(height * factor)) };
  return createImageBitmap(new ImageData(data, width, height), { ...size, resizeQuality: "high" });
}

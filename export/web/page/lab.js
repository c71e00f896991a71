// LAB colours as OpenCV computes them for 8-bit sRGB: integers and two tables.

const GAMMA_BITS = 3, MATRIX_BITS = 12, ROOT_BITS = MATRIX_BITS + GAMMA_BITS;
// sRGB to XYZ over the white point D65, times 2 ** MATRIX_BITS.
const MATRIX = [1777, 1541, 778, 871, 2929, 296, 73, 448, 3575];
// Cube roots that OpenCV's float32 rounds another way than double precision does, as far as a colour shows it.
const FLOAT32_ROUNDINGS = [[49, 9454], [628, 22126]];

const linearLight = Uint16Array.from({ length: 256 }, (_, value) => {
  const v = value / 255;
  return Math.round(255 * 2 ** GAMMA_BITS * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
});

const root = Uint16Array.from({ length: 256 * 1.5 * 2 ** GAMMA_BITS }, (_, index) => {
  const v = index / (255 * 2 ** GAMMA_BITS);
  return Math.round(2 ** ROOT_BITS * (v < 0.008856 ? v * 7.787 + 16 / 116 : Math.cbrt(v)));
});
for (const [index, value] of FLOAT32_ROUNDINGS) root[index] = value;

const descaled = (value, bits) => (value + (1 << (bits - 1))) >> bits;

/**
 * @param {Uint8Array} rgb 3 bytes a pixel
 * @param {Uint8Array} lab gets 3 bytes a pixel
 */
export function toLab(rgb, lab) {
  const [xr, xg, xb, yr, yg, yb, zr, zg, zb] = MATRIX;
  const grey = 128 << ROOT_BITS, scale = Math.trunc((116 * 255 + 50) / 100);
  const shift = -Math.trunc((16 * 255 * (1 << ROOT_BITS) + 50) / 100);
  for (let i = 0; i < rgb.length; i += 3) {
    const r = linearLight[rgb[i]], g = linearLight[rgb[i + 1]], b = linearLight[rgb[i + 2]];
    const x = root[descaled(r * xr + g * xg + b * xb, MATRIX_BITS)];
    const y = root[descaled(r * yr + g * yg + b * yb, MATRIX_BITS)];
    const z = root[descaled(r * zr + g * zg + b * zb, MATRIX_BITS)];
    lab[i] = descaled(scale * y + shift, ROOT_BITS);
    lab[i + 1] = descaled(500 * (x - y) + grey, ROOT_BITS);
    lab[i + 2] = descaled(200 * (y - z) + grey, ROOT_BITS);
  }
}

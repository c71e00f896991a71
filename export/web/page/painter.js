// Paints frames in a worker of its own, so that the page's thread is free while the network runs.
import { paintFrame } from "./drawing.js";

const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext("2d");
let frame = null;

self.onmessage = ({ data }) => {
  if (data.frame) {
    frame?.picture.close();
    frame = data.frame;
  }
  const { width, height, look, lit, finest } = data.job;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  paintFrame(pen, width, height, frame, look, lit, finest);
  const picture = canvas.transferToImageBitmap();
  self.postMessage(picture, [picture]);
};

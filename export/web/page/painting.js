// The page's side of the painting worker: one job at a time, and of those that wait only the newest.
import { paste, setPainter } from "./viewer.js";

/** Paint in `worker` from now on. */
export function paintIn(worker) {
  let busy = false, waiting = null, known = null;
  const send = (frame, job) => {
    busy = document.body.dataset.painting = true;
    if (frame === known) worker.postMessage({ job });
    else {
      const { picture, labels, map, window, members, inks } = frame;
      known = frame;
      worker.postMessage({ job, frame: { picture, labels, map, window, members, inks } }, [picture]);
      frame.picture = null;  // it is the worker's
    }
  };
  worker.onmessage = ({ data: picture }) => {
    paste(picture);
    busy = false;
    delete document.body.dataset.painting;
    if (waiting) send(...waiting.splice(0));
    waiting = null;
  };
  setPainter((frame, job) => {
    if (busy) waiting = [frame, job];
    else send(frame, job);
  });
}

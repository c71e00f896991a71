// Everything that takes time happens in this worker; the page's own thread only draws.
import { decodePhotograph, readPixels } from "./decode.js";
import { segmentAreas } from "./drawing.js";
import { Engine } from "./engine.js";
import { PageError } from "./errors.js";
import { fileReader } from "./files.js";
import { toPlain } from "./result.js";

let engine = null, last = null, read = null, files = null, addressOf = null, webGpu = null;

const runtimeOf = async ({ script, binary }) => ({ address: await addressOf(script), binary: await read(binary) });

const jobs = {
  async start(job) {
    files = job.files;
    read = fileReader(job.base, job.embedded);
    addressOf = async script => job.embedded
      ? URL.createObjectURL(new Blob([await read(script)], { type: "text/javascript" })) : new URL(script, job.base).href;
    const threads = self.crossOriginIsolated ? Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1)) : 1;
    const [graph, kernel, runtime] = await Promise.all([read(files.model), read(files.kernel), runtimeOf(files.runtime)]);
    engine = await Engine.create(graph, kernel, runtime, threads);
    const { spec, info } = engine;
    return [{ type: "ready", spec, info, threads, webgpu: Boolean(files.webgpu && navigator.gpu) }];
  },

  async photograph({ file, name }) {
    const start = performance.now(), { data, width, height, picture } = await decodePhotograph(file);
    const decode = performance.now() - start;
    return answer(await engine.segment(data, width, height), picture, { decode }, name);
  },

  async frame({ image, name }) {
    const start = performance.now(), { data, width, height } = readPixels(image), reading = performance.now() - start;
    image.close();
    const result = await engine.segment(data, width, height);
    result.timing.preprocess += reading;
    return answer(result, await createImageBitmap(new ImageData(data, width, height)), {}, name);
  },

  json() {
    return [{ type: "json", text: last ? JSON.stringify(toPlain(last, engine.spec)) : null }];
  },

  async webgpu({ on }) {
    const tell = (used, why) => self.postMessage({ type: "webgpu", used, why });
    if (on) webGpu ??= await runtimeOf(files.webgpu);
    await engine.setWebGpu(on ? webGpu : null, tell);
    return [{ type: "webgpu", used: false, why: "" }];
  },
};

function answer(result, picture, timing, source) {
  result.timing = { ...timing, ...result.timing };
  result.timing.total = Object.values(result.timing).reduce((sum, ms) => sum + ms, 0);
  result.source = source;
  last = result;
  const { hierarchy, inks, map, size, unsure } = result;
  const frame = {
    picture, inks, map, size, unsure, window: [0, 0, 1, 1], labels: hierarchy.superpixels, members: hierarchy.members,
    areas: segmentAreas(hierarchy.superpixels, hierarchy.members), timing: result.timing,
    top: result.top.map(({ name, probability }) => [name.split(",")[0], probability]),
  };
  return [{ type: "result", frame }, [picture]];
}

// One job after the other, in the order of their messages.
let queue = Promise.resolve();
self.onmessage = ({ data: job }) => {
  queue = queue.then(async () => {
    try {
      const [message, transfer] = await jobs[job.type](job);
      self.postMessage({ ...message, id: job.id }, transfer || []);
    } catch (error) {
      const ours = error instanceof PageError;
      self.postMessage({ type: "failed", job: job.type, id: job.id, message: ours ? error.message : `This failed: ${error?.message ?? error}` });
    }
  });
};

// The page: photographs and the camera go to the worker, results come back and are shown. Nothing is sent anywhere.
import { Camera } from "./camera.js";
import { paintIn } from "./painting.js";
import { $, chart, element, forget, note, pill, remember, saveFile, setLevel, show, shown, startViewer, toast, ui } from "./viewer.js";

const files = JSON.parse($("files").textContent);
const gallery = [...files.samples.map(({ file, name }) => ({ name, address: file }))];
const MAX_PHOTOGRAPHS = 12;  // of one's own that are kept in the row
const LEAST = 960;  // pixels that a photograph's longer side is drawn with at least
let worker = null, asked = 0, ready = false, source = null, waiting = new Map();
let paused = false, stamps = [];

// the worker ----------------------------------------------------------------------------------------------------------

/** Send a job; the promise gives its answer. */
function ask(job, transfer = []) {
  const id = ++asked;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ ...job, id }, transfer);
  });
}

// A worker from a Blob is bound by the page's own content security policy; one from a server's file would not be.
function newWorker(name) {
  const inside = $(name)?.textContent, start = `import ${JSON.stringify(new URL(`${name}.js`, location.href).href)};`;
  const text = new Blob([inside ?? start], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(text), { type: inside ? "classic" : "module" });
}

function startWorkers() {
  const embedded = {};
  for (const part of document.querySelectorAll("script[data-file]")) {
    embedded[part.dataset.file] = part.textContent;
    part.remove();
  }
  paintIn(newWorker("painter"));
  worker = newWorker("worker");
  worker.onerror = event => fail(`Its worker stopped: ${event.message || "a file of the page is missing"}.`);
  worker.onmessage = ({ data }) => {
    if (data.type === "webgpu" && !data.id) return showWebGpu(data);
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.type === "failed") reject(new Error(data.message));
    else resolve(data);
  };
  const job = { type: "start", files, base: location.href, embedded: $("worker") ? embedded : null };
  ask(job).then(begin, error => fail(error.message));
}

function fail(why) {
  ready = false;
  camera.stop();
  pill("lost", "stopped");
  note("The page cannot run", why);
  document.body.dataset.failed = why;
}

function begin({ spec, info, threads, webgpu }) {
  ready = true;
  $("level").max = spec.clusters.length;
  setLevel(Math.min(ui.level, spec.clusters.length));
  $("title").textContent = `${spec.name} · ${spec.num_classes} classes`;
  const with_threads = threads === 1 ? "one thread" : `${threads} threads`;
  $("model").textContent = `${spec.name}: ${info.width} x ${info.height} pixels, ${info.num_superpixels} superpixels, ${info.precision}, ${with_threads}`;
  $("gpu").hidden = !webgpu;
  for (const name of ["pick", "camera", "lines", "shot", "json", "pause"]) $(name).disabled = false;
  pill("", "ready");
  document.body.dataset.ready = threads;
  fillGallery();
  if (files.samples.length) open(gallery[0]);
  else note("Drop a photograph here", "or choose one, paste one, or start the camera.");
}

// results -------------------------------------------------------------------------------------------------------------

function present({ frame }) {
  remember(frame.timing);
  show(frame);
  chart("total", camera.dropped);
  note("");
  document.body.dataset.frames = Number(document.body.dataset.frames || 0) + 1;
}

async function open(entry) {
  camera.stop();
  source = entry;
  markGallery();
  pill("", "working");
  if (!shown()) note("Segmenting " + entry.name);
  try {
    entry.file ??= await (await fetch(entry.address)).blob();
    const result = await ask({ type: "photograph", file: entry.file, name: entry.name });
    if (source !== entry) return result.frame.picture.close();
    ui.pointer = null;
    forget();
    present(result);
    $("rate").textContent = result.frame.timing.total.toFixed(0) + " ms";
    document.body.dataset.photo = entry.name;
  } catch (error) {
    if (source === entry) note("");
    toast(error.message);
  }
  if (source === entry) pill("", "ready");
}

function photographs(...chosen) {
  if (!ready) return;
  const entries = chosen.map(file => ({ name: file.name || "pasted picture", file, address: URL.createObjectURL(file), own: true }));
  gallery.unshift(...entries);
  const own = gallery.filter(entry => entry.own).slice(MAX_PHOTOGRAPHS);
  for (const entry of own) {
    URL.revokeObjectURL(entry.address);
    gallery.splice(gallery.indexOf(entry), 1);
  }
  fillGallery();
  open(entries[0]);
}

function fillGallery() {
  $("gallery").replaceChildren(...gallery.map(entry => {
    const picture = element("img"), button = element("button", "", picture);
    picture.alt = "";
    picture.loading = "lazy";
    picture.src = entry.address;
    button.title = entry.name;
    button.setAttribute("aria-label", `Segment ${entry.name}`);
    button.onclick = () => open(entry);
    entry.button = button;
    return button;
  }));
  markGallery();
}

function markGallery() {
  for (const entry of gallery) entry.button?.setAttribute("aria-pressed", entry === source);
}

// the camera ----------------------------------------------------------------------------------------------------------

const camera = new Camera($("video"), async image => {
  const result = await ask({ type: "frame", image, name: "camera" }, [image]);
  if (!camera.running) return result.frame.picture.close();
  present(result);
  const now = performance.now();
  stamps = [...stamps.filter(stamp => now - stamp < 2000), now];
  const rate = stamps.length > 1 ? (stamps.length - 1) * 1000 / (now - stamps[0]) : 0;
  $("rate").textContent = rate.toFixed(1) + " fps";
}, cameraChanged);

function cameraChanged(running, error) {
  ui.least = running ? 0 : LEAST;
  $("camera").textContent = running ? "Stop camera" : "Camera";
  $("camera").setAttribute("aria-pressed", running);
  if (running) {
    source = null;
    stamps = [];
    delete document.body.dataset.photo;
    ui.pointer = null;
    forget();
    markGallery();
    pill("live", "live");
  } else {
    pill("", "ready");
    setPaused(false);
  }
  if (error) toast(error);
}

function setPaused(value) {
  paused = value && camera.running;
  camera.paused = paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("frozen").hidden = !paused;
}

// WebGPU --------------------------------------------------------------------------------------------------------------

async function switchWebGpu() {
  const on = $("webgpu").checked;
  $("gpuState").textContent = on ? "loading" : "";
  try {
    await ask({ type: "webgpu", on });
    if (!on) return;
    $("gpuState").textContent = "comparing with the processor";
    if (source) open(source);
  } catch (error) {
    showWebGpu({ used: false, why: error.message });
  }
}

function showWebGpu({ used, why }) {
  $("webgpu").checked = used;
  $("gpuState").textContent = used ? "labels and class as on the processor" : `not used: ${why}`;
  document.body.dataset.webgpu = used ? "used" : why;
}

// controls ------------------------------------------------------------------------------------------------------------

async function saveJson() {
  const { text } = await ask({ type: "json" });
  if (text) saveFile(new Blob([text], { type: "application/json" }), "json");
}

$("camera").onclick = () => { if (ready) camera.running ? camera.stop() : camera.start(); };
$("pause").onclick = () => setPaused(!paused);
$("json").onclick = () => saveJson().catch(error => toast(error.message));
$("webgpu").onchange = switchWebGpu;
addEventListener("paste", event => {
  const pictures = Array.from(event.clipboardData.files).filter(file => file.type.startsWith("image/"));
  if (pictures.length) photographs(...pictures);
});
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !ready) return;
  if (event.key === "c") $("camera").click();
  else if (event.key === "j") $("json").click();
  else if (event.key === "o") $("pick").click();
});
startViewer(photographs, () => setPaused(!paused));
ui.least = LEAST;
chart("total", 0);
note("Loading the model", "A few seconds, once.");
startWorkers();

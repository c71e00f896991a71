// The part that the camera page and the page without a server have in common: the picture with its segments, what is
// under the pointer, classes, times, and the controls.
import { RING_CSS, carryColours, paintFrame, superpixelAt } from "./drawing.js";
import { Trails, paintTrail } from "./trails.js";

const STAGES = [["preprocess", "#94a3b8"], ["superpixels", "#38bdf8"], ["model", "#a78bfa"], ["postprocess", "#f472b6"]];
const HINT = "Point at the picture, or tap it: the segment lights up, and its ancestors are outlined.";
const MAX_SIDE = 1280;  // pixels of the canvas

export const $ = id => document.getElementById(id);
// `least`: pixels that the longer side of the canvas has at least; small pictures are enlarged to it.
export const ui = { level: 2, opacity: .45, lines: true, pointer: null, least: 0 };
let current = null, history = [], toastTimer = 0, painter = null, trails = new Trails(), charted = null;

/** The frame that is shown, or null. */
export const shown = () => current;

/** Show a frame: what `drawing.js` calls one, with `top` [[name, share]] and `picture`, an ImageBitmap. */
export function show(frame) {
  if (current) {
    carryColours(frame, current);
    current.picture?.close();
  }
  current = frame;
  if (frame.tracks) trails.add(frame);
  draw();
  describe(frame);
  tellLevel();
}

/** Forget the frame; the picture stays until the next one. */
export function forget() {
  current = null;
  trails = new Trails();
}

export function draw() {
  const frame = current;
  if (!frame) return;
  const [h, w] = frame.size, longest = Math.max(h, w);
  const scale = Math.min(Math.max(1, ui.least / longest), MAX_SIDE / longest);
  const width = Math.max(1, Math.round(w * scale)), height = Math.max(1, Math.round(h * scale));
  const finest = Math.max(320, $("stage").getBoundingClientRect().width * 1.25), lit = superpixelAt(frame, ui.pointer);
  if (painter) painter(frame, { width, height, finest, lit, look: { level: ui.level, opacity: ui.opacity, lines: ui.lines } });
  else {
    const pen = sized(width, height).getContext("2d", { willReadFrequently: true });
    paintFrame(pen, width, height, frame, ui, lit, finest);
    if (lit !== null && frame.tracks) {
      const level = Math.min(ui.level, frame.members.length - 1);
      paintTrail(pen, width, height, frame, trails.of(frame.tracks[level][frame.members[level][lit]]));
    }
  }
  tree(frame);
}

/** Leave painting to a function of a frame and {width, height, finest, lit, look}, which calls `paste` when it is done. */
export function setPainter(value) { painter = value; }

/** Show a painted picture, which is used up. */
export function paste(picture) {
  sized(picture.width, picture.height).getContext("bitmaprenderer").transferFromImageBitmap(picture);
}

function sized(width, height) {
  const view = $("view");
  if (view.width !== width || view.height !== height) {
    view.width = width;
    view.height = height;
    document.documentElement.style.setProperty("--ratio", width / height);
  }
  return view;
}

// panels --------------------------------------------------------------------------------------------------------------

export function element(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}

const css = ink => `rgb(${ink & 255}, ${ink >> 8 & 255}, ${ink >> 16 & 255})`;

function swatch(colour) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const box = document.createElementNS(made.namespaceURI, "rect");
  made.setAttribute("viewBox", "0 0 20 20");
  made.setAttribute("aria-hidden", "true");
  const look = { x: 2, y: 2, width: 16, height: 16, rx: 5, fill: colour, stroke: "none", "stroke-width": 2.5 };
  for (const [key, value] of Object.entries(look)) box.setAttribute(key, value);
  made.append(box);
  return made;
}

function tree(frame) {
  const lit = superpixelAt(frame, ui.pointer), box = $("tree"), levels = frame.members ? frame.members.length - 1 : 0;
  if (lit === null) {
    if (box.firstElementChild.tagName !== "P") box.replaceChildren(element("p", "", HINT));
    return;
  }
  if (box.children.length !== levels + 1 || box.firstElementChild.tagName === "P") {
    box.replaceChildren(...frame.members.map((_, depth) => {
      const node = element("button", "", swatch(""), element("span"), element("small"));
      node.onclick = () => setLevel(levels - depth);
      return node;
    }));
  }
  frame.members.forEach((member, level) => {  // in place, so that a click meets the button it began on
    const node = box.children[levels - level], segment = member[lit], [icon, name, share] = node.children;
    node.className = `node d${levels - level}` + (level === ui.level ? " here" : "");
    icon.firstChild.setAttribute("fill", css(frame.inks[level][segment]));
    icon.firstChild.setAttribute("stroke", level >= ui.level ? RING_CSS[level] ?? RING_CSS.at(-1) : "none");
    if (frame.tracks) name.textContent = (level ? `Level ${level}` : "Superpixel") + `, track ${frame.tracks[level][segment]}`;
    else name.textContent = level ? `Level ${level}, segment ${segment}` : `Superpixel ${segment}`;
    if (frame.ages) name.append(element("em", "", age(frame, level, segment)));
    share.textContent = (100 * frame.areas[level][segment]).toFixed(1) + " %";
  });
}

// How long a track has been there: in seconds where the frame rate is known.
function age(frame, level, segment) {
  const frames = frame.ages[level][segment];
  return frame.fps ? `${(frames / frame.fps).toFixed(1)} s` : `${frames} frames`;
}

function describe(frame) {
  $("classes").hidden = !frame.top.length;
  if (!frame.top.length) return;
  const percent = p => (100 * p).toFixed(p < .0995 ? 1 : 0) + " %", [name, best] = frame.top[0];
  const segments = frame.areas ? `${frame.areas[Math.min(ui.level, frame.areas.length - 1)].length} segments` : "No name";
  $("best").children[0].textContent = frame.unsure ? segments : name;
  $("best").children[1].textContent = frame.unsure ? "unsure" : percent(best);
  $("path")?.replaceChildren(...(frame.path || []).map(([level, name, p]) =>
    element("div", "bar", element("span", "", `${level}: ${name}`), element("span", "", percent(p)))));
  $("others").replaceChildren(...frame.top.slice(frame.unsure ? 0 : 1, frame.unsure ? 3 : 5).map(([name, p]) => {
    const bar = element("progress");
    bar.max = 1;
    bar.value = p;
    bar.setAttribute("aria-label", name);
    return element("div", "bar", element("span", "", name), element("span", "", percent(p)), bar);
  }));
}

/** Take a frame's times (milliseconds per stage) into the chart's memory. */
export function remember(timing) {
  history.push(timing);
  if (history.length > 200) history.splice(0, 100);
}

/** The chart of the last hundred frames, and the means of the last thirty: `stages` further rows [name, colour]. */
export function chart(further, dropped) {
  charted = [further, dropped];
  const canvas = $("chart"), wide = 2 * Math.round(canvas.clientWidth);  // two pixels each, or the text would be stretched
  if (wide && canvas.width !== wide) canvas.width = wide;
  const c = canvas.getContext("2d"), W = canvas.width, H = canvas.height, bars = history.slice(-100);
  const total = row => STAGES.reduce((sum, [name]) => sum + (row[name] || 0), 0), sorted = bars.map(total).sort((a, b) => a - b);
  const top = Math.max(5, (sorted[Math.floor(sorted.length * .98)] || 5) * 1.2), step = W / 100;
  const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500].find(u => top / u <= 4) || 1000;
  c.clearRect(0, 0, W, H);
  bars.forEach((row, i) => {
    let y = H;
    for (const [name, colour] of STAGES) {
      const h = (row[name] || 0) / top * H;
      c.fillStyle = colour;
      c.fillRect((100 - bars.length + i) * step, y - h, step - 1, h);
      y -= h;
    }
  });
  c.font = "20px system-ui";
  c.fillStyle = "#8b9bb0";
  c.strokeStyle = "#ffffff18";
  const labels = [];
  for (let ms = unit; ms < top; ms += unit) {
    const y = H - ms / top * H;
    c.beginPath();
    c.moveTo(0, y);
    c.lineTo(W, y);
    c.stroke();
    if (y > 20) labels.push([ms + " ms", y - 5]);
  }
  c.strokeStyle = "#0d131a";
  c.lineWidth = 6;
  for (const [text, y] of labels) {
    c.strokeText(text, 8, y);
    c.fillText(text, 8, y);
  }
  c.lineWidth = 1;
  const recent = history.slice(-30);
  const mean = name => recent.reduce((sum, row) => sum + (row[name] || 0), 0) / Math.max(1, recent.length);
  const row = (colour, name, text) => element("div", "", swatch(colour), element("span", "", name), element("b", "", text));
  const rows = [...STAGES, [further, "#e6edf5"]].map(([name, colour]) => row(colour, name, mean(name).toFixed(1) + " ms"));
  $("legend").replaceChildren(...rows, row("#475569", "dropped", String(dropped)));
}

export function note(head, text) {
  $("note").hidden = !head;
  $("note").children[0].textContent = head || "";
  $("note").children[1].textContent = text || "";
}

export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

export function pill(kind, text) {
  $("state").className = "pill " + kind;
  $("state").lastElementChild.textContent = text;
}

// controls ------------------------------------------------------------------------------------------------------------

export function setLevel(level) {
  ui.level = Number(level);
  $("level").value = ui.level;
  document.body.dataset.level = ui.level;
  tellLevel();
  draw();
}

function tellLevel() {
  const inks = current && current.inks, count = inks ? inks[Math.min(ui.level, inks.length - 1)].length : 0;
  const name = (ui.level ? `${ui.level} of ${$("level").max}` : "superpixels") + (count ? ` · ${count}` : "");
  if ($("levelName").textContent !== name) {
    $("levelName").textContent = name;
    $("level").setAttribute("aria-valuetext", count ? `${name} segments` : name);
  }
}

export function setOpacity(percent) {
  ui.opacity = percent / 100;
  $("opacity").value = percent;
  $("opacityName").textContent = percent + " %";
  draw();
}

export function toggleLines() {
  ui.lines = !ui.lines;
  $("lines").setAttribute("aria-pressed", ui.lines);
  draw();
}

/** Offer a Blob under a name with the time in it. */
export function saveFile(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `cast-${new Date().toISOString().replace(/[:.]/g, "-")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export function snapshot() {
  if (current) $("view").toBlob(blob => saveFile(blob, "png"), "image/png");
}

function point(event) {
  const view = $("view"), box = view.getBoundingClientRect(), ratio = view.width / view.height;
  const fit = Math.min(box.width / ratio, box.height), width = fit * ratio;
  const x = (event.clientX - box.left - (box.width - width) / 2) / width;
  const y = (event.clientY - box.top - (box.height - fit) / 2) / fit;
  ui.pointer = x >= 0 && y >= 0 && x < 1 && y < 1 ? [x, y] : null;
  draw();
}

/** Wire the controls that both pages have. `photograph` gets dropped or chosen files, `pause` is the space bar. */
export function startViewer(photograph, pause) {
  const view = $("view");
  view.addEventListener("pointermove", event => { if (event.pointerType === "mouse") point(event); });
  view.addEventListener("pointerleave", event => {
    if (event.pointerType !== "mouse") return;
    ui.pointer = null;
    draw();
  });
  view.addEventListener("click", event => {
    if (event.pointerType === "mouse") return;
    const before = ui.pointer;
    point(event);
    if (before && ui.pointer && Math.hypot(before[0] - ui.pointer[0], before[1] - ui.pointer[1]) < .03) {
      ui.pointer = null;
      draw();
    }
  });
  $("level").oninput = event => setLevel(event.target.value);
  $("opacity").oninput = event => setOpacity(Number(event.target.value));
  $("lines").onclick = toggleLines;
  $("shot").onclick = snapshot;
  $("pick").onclick = () => $("file").click();
  $("file").onchange = event => {
    if (event.target.files.length) photograph(...event.target.files);
    event.target.value = "";
  };
  addEventListener("dragover", event => {
    event.preventDefault();
    $("drop").hidden = false;
  });
  addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").hidden = true; });
  addEventListener("drop", event => {
    event.preventDefault();
    $("drop").hidden = true;
    if (event.dataTransfer.files.length) photograph(...event.dataTransfer.files);
  });
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[0-9]$/.test(event.key) && Number(event.key) <= Number($("level").max)) setLevel(event.key);
    else if (event.key === "b") toggleLines();
    else if (event.key === "s") snapshot();
    else if (event.key === " " && !["BUTTON", "A", "SUMMARY"].includes(event.target.tagName)) {
      event.preventDefault();
      pause();
    }
  });
  addEventListener("resize", draw);
  new ResizeObserver(() => { if (charted) chart(...charted); }).observe($("chart"));
  $("tree").firstElementChild.textContent = HINT;
  setOpacity(45);
  setLevel(2);
}

// The live page of cast-camera: frames come over a websocket, drawing happens here.
import { segmentAreas } from "./drawing.js";
import { $, chart, forget, note, pill, remember, setLevel, show, shown, startViewer, toast, ui } from "./viewer.js";

let socket = null, retry = 500, status = null, paused = false, photo = false;

// A packet: header length, header, JPEG, run lengths (uint8), run labels (uint16). See packet.py.
async function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true), start = 4 + length;
  const frame = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), after = start + frame.jpeg;
  frame.picture = await createImageBitmap(new Blob([new Uint8Array(buffer, start, frame.jpeg)], { type: "image/jpeg" }));
  if (!frame.map) return frame;
  const [rows, columns] = frame.map, labels = new Uint16Array(rows * columns);
  const lengths = new Uint8Array(buffer, after, frame.runs), values = new Uint16Array(buffer.slice(after + frame.runs));
  for (let i = 0, at = 0; i < frame.runs; at += lengths[i++]) labels.fill(values[i], at, at + lengths[i]);
  frame.labels = labels;
  frame.members = [Uint16Array.from({ length: frame.colours[0].length / 6 }, (_, i) => i)];
  for (const parents of frame.parents) frame.members.push(frame.members.at(-1).map(i => parents[i]));
  frame.inks = frame.colours.map(hex => Uint32Array.from({ length: hex.length / 6 }, (_, i) => {
    const rgb = parseInt(hex.substr(6 * i, 6), 16);
    return (rgb >> 16) | (rgb & 0xff00) | ((rgb & 0xff) << 16);
  }));
  frame.areas = segmentAreas(labels, frame.members);
  return frame;
}

const times = () => chart("latency", status ? status.dropped : 0);

function tell(news) {
  if (!status) {
    $("level").max = news.levels;
    $("level").disabled = !news.levels;
    setLevel(Math.min(news.level, news.levels));
  }
  status = news;
  $("title").textContent = news.title;
  document.title = news.title + " – cast camera";
  $("rate").textContent = news.fps.toFixed(1) + " fps";
  $("dark").hidden = !news.dark || photo;
  const { state, message, attempt, retry_in } = news.source;
  if (state === "lost") pill("lost", "reconnecting");
  else pill(state === "live" ? "live" : "", state);
  if (photo) return;
  const why = `${message.charAt(0).toUpperCase() + message.slice(1)}. Attempt ${attempt} in ${retry_in.toFixed(1)} s.`;
  if (state === "lost") note("The camera is away", why);
  else if (state === "ended") note("The source has ended");
  else if (state === "opening" || !shown()) note("Waiting for the camera");
  else note("");
}

function connect() {
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/api/stream");
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    retry = 500;
    if (paused || photo || document.hidden) socket.send("pause");
  };
  socket.onmessage = async event => {
    const line = event.target;
    if (typeof event.data === "string") {
      tell(JSON.parse(event.data));
      return;
    }
    try {
      const frame = await unpack(event.data);
      remember(frame.timing);
      if (!paused && !photo) {
        show(frame);
        times();
        document.body.dataset.frames = Number(document.body.dataset.frames || 0) + 1;
        if (status && status.source.state === "live") note("");
      } else frame.picture.close();
    } finally {
      if (line.readyState === 1) line.send("ack");
    }
  };
  socket.onclose = () => {
    pill("lost", "offline");
    if (!photo) note("No connection to the server", `Trying again in ${(retry / 1000).toFixed(1)} s.`);
    setTimeout(connect, retry);
    retry = Math.min(8000, retry * 2);
  };
}

function say(word) { if (socket && socket.readyState === 1) socket.send(word); }

function setPaused(value) {
  paused = value;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("frozen").hidden = !paused;
  say(paused ? "pause" : "resume");
}

async function photograph(file) {
  note("Segmenting " + file.name);
  try {
    const answer = await fetch("/api/segment", { method: "POST", body: file });
    if (!answer.ok) {
      const why = await answer.json().catch(() => ({ error: answer.statusText }));
      throw new Error(why.error + (why.found ? ` (${why.found})` : ""));
    }
    const frame = await unpack(await answer.arrayBuffer());
    photo = true;
    ui.pointer = null;
    say("pause");
    $("back").hidden = false;
    forget();
    show(frame);
    note("");
    document.body.dataset.photo = file.name;
  } catch (error) {
    note("");
    toast(error.message);
  }
}

function live() {
  photo = false;
  delete document.body.dataset.photo;
  $("back").hidden = true;
  forget();
  note("Waiting for the camera");
  if (!paused) say("resume");
  else setPaused(false);
}

const pause = () => setPaused(!paused);
$("back").onclick = live;
$("pause").onclick = pause;
document.addEventListener("visibilitychange", () => { if (!paused && !photo) say(document.hidden ? "pause" : "resume"); });
startViewer(photograph, pause);
times();
connect();

// Where tracked segments were: the centres of the last frames, smoothed, for each track.

const LONGEST = 90;  // centres of a track
const PULL = .3;  // of the way to the new centre: a centre jumps where a large segment gains or loses a part
const PATIENCE = 60;  // frames after which a track that does not come is forgotten

/** Centre of each segment per level, as fractions of the map: Float64Array[] of x, y, x, y, ... */
export function segmentCentres(labels, columns, members) {
  const rows = labels.length / columns, count = members[0].length;
  const area = new Float64Array(count), across = new Float64Array(count), down = new Float64Array(count);
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) {
      const label = labels[i];
      area[label]++;
      across[label] += x + .5;
      down[label] += y + .5;
    }
  }
  return members.map(member => {
    const segments = member.reduce((most, segment) => Math.max(most, segment), 0) + 1;
    const sums = new Float64Array(3 * segments), centres = new Float64Array(2 * segments);
    member.forEach((segment, i) => {
      sums[3 * segment] += across[i];
      sums[3 * segment + 1] += down[i];
      sums[3 * segment + 2] += area[i];
    });
    for (let s = 0; s < segments; s++) {
      centres[2 * s] = sums[3 * s] / sums[3 * s + 2] / columns;
      centres[2 * s + 1] = sums[3 * s + 1] / sums[3 * s + 2] / rows;
    }
    return centres;
  });
}

/** Remembers the centres of all tracks that were there lately. */
export class Trails {
  constructor() {
    this.tracks = new Map();  // track: {seen, points: [[x, y], ...]}, oldest first
    this.frame = 0;
  }

  /** Take a frame with `tracks`; a frame of another scene ends all trails. */
  add(frame) {
    if (frame.scene !== this.scene) this.tracks.clear();
    this.scene = frame.scene;
    this.frame++;
    segmentCentres(frame.labels, frame.map[1], frame.members).forEach((centres, level) => {
      frame.tracks[level].forEach((track, segment) => {
        const trail = this.tracks.get(track) ?? { points: [] };
        trail.seen = this.frame;
        const [x, y] = centres.subarray(2 * segment, 2 * segment + 2), [fromX, fromY] = trail.points.at(-1) ?? [x, y];
        trail.points.push([fromX + PULL * (x - fromX), fromY + PULL * (y - fromY)]);
        if (trail.points.length > LONGEST) trail.points.shift();
        this.tracks.set(track, trail);
      });
    });
    for (const [track, trail] of this.tracks) if (this.frame - trail.seen > PATIENCE) this.tracks.delete(track);
  }

  /** Centres of a track, oldest first, as fractions of the map. */
  of(track) { return this.tracks.get(track)?.points ?? []; }
}

/** A trail on a canvas of width x height pixels; `frame.window` places the map in the picture. */
export function paintTrail(pen, width, height, frame, points) {
  if (!points.length) return;
  const [left, top, part, tall] = frame.window, unit = Math.max(1, width / 640);
  const place = ([x, y]) => [(left + x * part) * width, (top + y * tall) * height];
  pen.save();
  pen.lineCap = pen.lineJoin = "round";
  for (const [ink, thick] of [["#05070a", 5 * unit], ["#ffffff", 2.5 * unit]]) {
    pen.strokeStyle = ink;
    pen.lineWidth = thick;
    for (let i = 1; i < points.length; i++) {  // older parts fade
      pen.globalAlpha = .15 + .75 * i / points.length;
      pen.beginPath();
      pen.moveTo(...place(points[i - 1]));
      pen.lineTo(...place(points[i]));
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
  pen.fillStyle = "#ffffff";
  pen.strokeStyle = "#05070a";
  pen.lineWidth = 1.5 * unit;
  pen.beginPath();
  pen.arc(...place(points.at(-1)), 4.5 * unit, 0, 2 * Math.PI);
  pen.fill();
  pen.stroke();
  pen.restore();
}

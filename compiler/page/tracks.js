// The timeline: rows of pieces and curves on one canvas. From afar a pixel's colour stands for its pieces and its strength for
// how much of it they cover, so that a million pieces cost as much as the pixels that show them.

const AXIS = 22, PIECE = 20, PATH = 34, THIN = 12, THINNER = 10, CURVE = 44, GAP = 3;
const MANY_QUEUES = 8;
const LEVELS = 12;
const PATH_COLUMN = 2;

class Tracks {
  constructor(canvas, labels, profile, view, scrolled) {
    Object.assign(this, { canvas, labels, profile, view, scrolled });
    this.context = canvas.getContext("2d");
    this.open = remembered("nxcc-queues") !== "closed";
    this.colouring = "layer";
    this.picked = null;
    this.region = -1;
    this.found = null;
    this.sbuf = new Steps(profile.columns.sbuf_at, profile.columns.sbuf_bytes);
    this.psum = new Steps(profile.columns.psum_at, profile.columns.psum_bytes);
    this.layOut();
  }

  layOut() {
    const { facts, path, rows, host } = this.profile;
    const engines = rows.filter(row => row.kind === "engine"), queues = rows.filter(row => row.kind === "queue");
    queues.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    this.tracks = [];
    let y = AXIS;
    const add = track => { this.tracks.push({ gap: GAP, ...track, y }); y += track.height + (track.gap ?? GAP); };
    add({ name: "critical path", kind: "path", height: PATH, pieces: path });
    for (const row of engines) add({ name: words(row.name), kind: "row", height: PIECE, pieces: row.pieces, row });
    if (host.nodes.length) add({ name: "host", kind: "host", height: PIECE, pieces: host.pieces });
    const peak = facts.roofs.dma / 1e6;
    add({ name: "DMA traffic", kind: "curve", height: CURVE, hue: 36, top: peak, queues: queues.length, label: `${si(facts.roofs.dma, "B/s")}`,
          value: (from, to) => this.profile.traffic(from, to), word: value => si(value * 1e6, "B/s") });
    const thin = queues.length > MANY_QUEUES ? { height: THINNER, gap: 1 } : { height: THIN };
    if (this.open) for (const row of queues) add({ name: row.name, kind: "row", ...thin, pieces: row.pieces, row });
    for (const [name, steps] of [["SBUF", this.sbuf], ["PSUM", this.psum]]) {
      const memory = facts.memories[name.toLowerCase()];
      add({ name, kind: "curve", height: CURVE, hue: name === "SBUF" ? 212 : 285, top: steps.top,
            label: `${digits(steps.top / 1024)} of ${kib(memory.capacity)}`,
            value: (from, to) => steps.largest(from, to), word: value => `${kib(value)} a partition` });
    }
    this.height = y;
    this.canvas.style.height = `${y}px`;
    this.labels.style.height = `${y}px`;
    this.writeLabels();
  }

  writeLabels() {
    this.labels.replaceChildren(element("div", { style: `height:${AXIS}px` }), ...this.tracks.map(track => {
      const busy = track.kind === "row" ? share(track.pieces.within(0, this.profile.length) / this.profile.length) : track.label || "";
      const name = track.queues ? element("button", {
        type: "button", "aria-expanded": String(this.open), title: "Show or hide the queues", onclick: () => this.toggleQueues(),
      }, `${this.open ? "▾" : "▸"} ${track.name}`) : element("span", {}, track.name);
      const title = track.kind === "row" ? `${track.name}: ${count(track.pieces.size)} pieces, busy ${busy}` : track.name;
      const isThin = track.height < THIN;
      return element("div", { class: isThin ? "label thin" : "label", style: `height:${track.height}px;margin-bottom:${track.gap}px`, title },
                     name, element("span", { class: "share" }, isThin ? "" : busy));
    }));
  }

  toggleQueues() {
    this.open = !this.open;
    remember("nxcc-queues", this.open ? "open" : "closed");
    this.layOut();
    this.draw();
  }

  resize() {
    const scale = window.devicePixelRatio || 1;
    this.width = Math.max(50, this.canvas.clientWidth);
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
  }

  x(time) { return (time - this.view.from) / this.view.shown * this.width; }

  time(x) { return this.view.from + x / this.width * this.view.shown; }

  trackAt(y) { return this.tracks.find(track => y >= track.y && y < track.y + track.height + track.gap); }

  // What lies at a point: { track, place } with place -1 between pieces. A piece nearby counts, so that thin ones can be hit.
  hit(x, y) {
    const track = this.trackAt(y);
    if (!track) return null;
    if (track.kind === "curve") return { track, place: -1, time: this.time(x) };
    const time = this.time(x), near = this.view.shown / this.width * 3;
    let place = track.pieces.at(time);
    if (place < 0) {
      const next = track.pieces.first(time - near);
      if (next < track.pieces.size && track.pieces.start[next] <= time + near) place = next;
    }
    return { track, place, time };
  }

  // Colours

  colourOf(track, place) {
    const { columns } = this.profile;
    if (track.kind === "host") return "hsl(0 0% 55%)";
    if (track.kind === "path") return this.fill(causeHue(this.profile.facts.causes[columns.path_cause[place]]));
    const span = track.row.first + place;
    return this.fill(this.hueOfSpan(span));
  }

  hueOfSpan(span) {
    const { columns, layerOf, nameOf } = this.profile;
    if (this.colouring === "name") return hueOf(nameOf[columns.slot[span]]);
    const region = columns.region[span];
    return hueOf(this.colouring === "layer" ? layerOf[region] : region);
  }

  fill(hue) {
    const key = Math.round(hue);
    return this.palette[key] ||= `hsl(${key} 52% ${this.lightness})`;
  }

  // Drawing

  draw() {
    const begun = performance.now();
    const style = getComputedStyle(document.documentElement);
    this.inks = Object.fromEntries(["back", "quiet", "grid", "panel", "pick", "accent"].map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.lightness = style.getPropertyValue("--lightness").trim();
    this.palette = {};
    this.resize();
    const { context } = this;
    context.clearRect(0, 0, this.width, this.height);
    this.drawGrid();
    for (const track of this.tracks) {
      context.fillStyle = this.inks.panel;
      context.fillRect(0, track.y, this.width, track.height);
      if (track.kind === "curve") this.drawCurve(track); else if (track.kind === "path") this.drawPath(track); else this.drawPieces(track);
    }
    this.drawLeftOut();
    this.drawPicked();
    this.drawAxis();
    this.lastDraw = performance.now() - begun;
  }

  // Round times with their places.
  axis() {
    const { profile, view } = this;
    const step = axisStep(profile.us(view.shown), Math.max(2, this.width / 110)), found = [];
    for (let us = Math.ceil(profile.us(view.from) / step) * step; us <= profile.us(view.to); us += step) {
      found.push([Math.round(this.x(us / profile.unit)), moment(us, step)]);
    }
    return found;
  }

  drawGrid() {
    this.context.fillStyle = this.inks.grid;
    for (const [x] of this.axis()) this.context.fillRect(x, 0, 1, this.height);
  }

  // Times stay in sight when the rows are scrolled.
  drawAxis() {
    const { context } = this, y = Math.min(Math.max(0, this.scrolled()), this.height - AXIS);
    context.fillStyle = this.inks.back;
    context.fillRect(0, y, this.width, AXIS - 2);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillStyle = this.inks.quiet;
    for (const [x, text] of this.axis()) {
      context.fillRect(x, y + 4, 1, AXIS - 8);
      context.fillText(text, x + 4, y + AXIS / 2);
    }
  }

  drawPieces(track) {
    const { context, view, width } = this, { pieces } = track, { start, end } = pieces;
    const scale = width / view.shown, last = pieces.startedBefore(view.to);
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (let place = pieces.first(view.from); place < last;) {
      const x = (start[place] - view.from) * scale, wide = (end[place] - start[place]) * scale;
      if (wide >= 1.5) {
        this.drawPiece(track, place, Math.max(x, -1), Math.min(x + wide, width + 1));
        place++;
        continue;
      }
      const pixel = Math.max(0, Math.floor(x)), until = view.from + (pixel + 1) / scale;
      let next = Math.max(place + 1, lowerBound(start, until, place, last));
      if (next - 1 > place && (end[next - 1] - start[next - 1]) * scale >= 1.5) next--;
      const covered = Math.min(1, (pieces.covered[next] - pieces.covered[place]) * scale);
      this.drawDense(track, place, next, pixel, covered);
      place = next;
    }
    context.globalAlpha = 1;
  }

  drawPiece(track, place, from, to) {
    const { context } = this, wide = to - from, gap = wide > 4 ? 1 : 0;
    context.globalAlpha = track.pieces.anyMarked(place, place + 1) ? 1 : 0.16;
    context.fillStyle = this.colourOf(track, place);
    context.fillRect(from, track.y, wide - gap, track.height);
    if (wide > 34 && track.height >= PIECE) this.drawLabel(track, place, from, wide);
  }

  drawLabel(track, place, from, wide) {
    const { context } = this, most = Math.floor((wide - 8) / 6.1);
    const text = this.labelOf(track, place);
    context.fillStyle = "#0b0d10";
    context.font = "11px system-ui, sans-serif";
    context.fillText(text.length <= most ? text : most > 3 ? `${text.slice(0, most - 1)}…` : "", from + 4, track.y + track.height / 2 + 0.5);
  }

  labelOf(track, place) {
    const { profile } = this;
    if (track.kind === "path") return `${words(profile.facts.causes[profile.columns.path_cause[place]])}  ${profile.regions[profile.columns.path_region[place]].name}`;
    if (track.kind === "host") return profile.host.nodes[place].name;
    const span = track.row.first + place;
    return `${profile.slots[profile.columns.slot[span]].name}  ${profile.regions[profile.columns.region[span]].name}`;
  }

  drawDense(track, place, next, pixel, covered) {
    const { context } = this;
    const level = Math.ceil(Math.sqrt(covered) * LEVELS) / LEVELS;
    context.globalAlpha = track.pieces.anyMarked(place, next) ? 0.15 + 0.85 * level : 0.07;
    context.fillStyle = this.colourOf(track, (place + next - 1) >> 1);
    context.fillRect(pixel, track.y, 1, track.height);
  }

  // Turns of loops that repeat those before them: their time, without their pieces.
  drawLeftOut() {
    const { context, inks, profile, width } = this;
    for (const { start_us, us, turns, turn_us } of profile.facts.left_out) {
      const from = Math.max(-1, this.x(start_us / profile.unit)), to = Math.min(width + 1, this.x((start_us + us) / profile.unit));
      if (to - from < 2) continue;
      context.globalAlpha = 0.12;
      context.fillStyle = inks.accent;
      context.fillRect(from, AXIS + PATH + GAP, to - from, this.height);
      context.globalAlpha = 1;
      const text = `× ${count(turns)} turns like those before, ${time(turn_us)} each`;
      if (to - from < text.length * 6.1) continue;
      context.fillStyle = inks.quiet;
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(text, (from + to) / 2, AXIS + PATH + GAP + PIECE / 2);
    }
  }

  // Where pieces are too thin, what the path is made of within a column.
  drawPath(track) {
    const { context, width, view } = this, { pathSums, facts } = this.profile, { pieces } = track;
    const first = pieces.first(view.from), last = pieces.startedBefore(view.to);
    if (last - first < width / 4 || pieces.marks) return this.drawPieces(track);
    const per = view.shown / width * PATH_COLUMN;
    for (let x = 0; x < width; x += PATH_COLUMN) {
      const from = lowerBound(pieces.start, view.from + x / PATH_COLUMN * per, 0, pieces.size);
      const to = Math.max(from + 1, lowerBound(pieces.start, view.from + (x / PATH_COLUMN + 1) * per, from, pieces.size));
      const total = pieces.covered[Math.min(to, pieces.size)] - pieces.covered[from];
      let y = track.y;
      for (let cause = 0; cause < facts.causes.length && total > 0; cause++) {
        const part = (pathSums[cause][Math.min(to, pieces.size)] - pathSums[cause][from]) / total * track.height;
        if (part <= 0) continue;
        context.fillStyle = this.fill(causeHue(facts.causes[cause]));
        context.fillRect(x, y, PATH_COLUMN, part + 0.3);
        y += part;
      }
    }
  }

  drawCurve(track) {
    const { context, width } = this, perPixel = this.view.shown / width;
    const top = Math.max(track.top, 1e-9), floor = track.y + track.height;
    context.beginPath();
    context.moveTo(0, floor);
    for (let x = 0; x < width; x++) {
      const from = this.view.from + x * perPixel;
      context.lineTo(x, floor - Math.min(1, track.value(from, from + perPixel) / top) * track.height);
    }
    context.lineTo(width, floor);
    context.fillStyle = this.fill(track.hue);
    context.globalAlpha = 0.7;
    context.fill();
    context.globalAlpha = 1;
  }

  drawPicked() {
    const { context, picked } = this;
    if (!picked) return;
    const track = this.tracks.find(row => row.row === picked.row);
    if (!track) return;
    if (picked.after >= 0) this.drawArrow(picked, track);
    const from = Math.max(-4, this.x(picked.start)), to = Math.min(this.width + 4, Math.max(this.x(picked.end), from + 3));
    context.lineWidth = 2;
    context.strokeStyle = this.inks.pick;
    context.strokeRect(from - 1, track.y - 1, to - from + 2, track.height + 2);
  }

  // From the end of what was waited for.
  drawArrow(picked, track) {
    const { context } = this, before = this.profile.span(picked.after);
    const other = this.tracks.find(row => row.row === before.row);
    if (!other) return;
    const from = [this.x(before.end), other.y + other.height / 2], to = [this.x(picked.start), track.y + track.height / 2];
    if (Math.max(from[0], to[0]) < 0 || Math.min(from[0], to[0]) > this.width) return;
    context.strokeStyle = this.inks.pick;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(...from);
    context.bezierCurveTo(from[0] + 24, from[1], to[0] - 24, to[1], ...to);
    context.stroke();
    context.strokeRect(this.x(before.start), other.y, Math.max(3, this.x(before.end) - this.x(before.start)), other.height);
  }

  // Which pieces stand out: those of a region, or those that a search found.
  mark(isMarked) {
    const { profile } = this, { columns } = profile;
    for (const row of profile.rows) {
      row.pieces.mark(isMarked && (place => isMarked(columns.region[row.first + place], columns.slot[row.first + place])));
    }
    profile.path.mark(isMarked && (place => isMarked(columns.path_region[place], -1)));
  }
}

const kib = value => `${digits(value / 1024)} KiB`;

// The whole call in one strip, with the part that is shown framed.
class Overview {
  constructor(canvas, profile, view) {
    Object.assign(this, { canvas, profile, view });
    this.height = 30;
    canvas.style.height = `${this.height}px`;
    this.watch();
  }

  draw() {
    const { canvas, profile, view, height } = this;
    const scale = window.devicePixelRatio || 1, width = Math.max(50, canvas.clientWidth);
    if (canvas.width !== Math.round(width * scale) || this.theme !== document.documentElement.dataset.theme) this.drawWhole(width, scale);
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.whole, 0, 0);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const ink = getComputedStyle(document.documentElement);
    const from = view.from / profile.length * width, to = Math.max(from + 2, view.to / profile.length * width);
    context.fillStyle = ink.getPropertyValue("--back");
    context.globalAlpha = 0.62;
    context.fillRect(0, 0, from, height);
    context.fillRect(to, 0, width - to, height);
    context.globalAlpha = 1;
    context.strokeStyle = ink.getPropertyValue("--accent");
    context.lineWidth = 2;
    context.strokeRect(from + 1, 1, Math.max(1, to - from - 2), height - 2);
  }

  drawWhole(width, scale) {
    this.theme = document.documentElement.dataset.theme;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(this.height * scale);
    this.whole = document.createElement("canvas");
    this.whole.width = this.canvas.width;
    this.whole.height = this.canvas.height;
    const context = this.whole.getContext("2d");
    context.scale(scale, scale);
    const rows = this.profile.rows.filter(row => row.kind === "engine");
    const tall = (this.height - 6) / (rows.length + 1), per = this.profile.length / width;
    for (let x = 0; x < width; x++) {
      rows.forEach((row, number) => {
        context.globalAlpha = Math.min(1, row.pieces.within(x * per, (x + 1) * per) / per);
        context.fillStyle = `hsl(${causeHue(["pe", "scalar", "vector", "gpsimd", "sync"][number])} 55% 50%)`;
        context.fillRect(x, 3 + number * tall, 1, tall - 0.5);
      });
      context.globalAlpha = Math.min(1, this.profile.traffic(x * per, (x + 1) * per) * 1e6 / this.profile.facts.roofs.dma);
      context.fillStyle = "hsl(36 75% 50%)";
      context.fillRect(x, 3 + rows.length * tall, 1, tall - 0.5);
    }
  }

  watch() {
    const { canvas, view, profile } = this;
    const place = event => {
      const middle = (event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth * profile.length;
      view.show(middle - view.shown / 2, middle + view.shown / 2);
    };
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      view.visited.push([view.from, view.to]);
      place(event);
    });
    canvas.addEventListener("pointermove", event => { if (event.buttons) place(event); });
  }
}

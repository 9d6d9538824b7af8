// The columns of the page as typed arrays, and what is looked up in them. Times are counts of facts.unit_ns.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f8: Float64Array };

async function readColumns(facts) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack the page's data (DecompressionStream): Chromium 80, Firefox 113, Safari 16.4 or newer can");
  }
  const text = atob(byId("packed").textContent.trim());
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const buffer = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const columns = {};
  for (const [name, type, first, length] of facts.columns) columns[name] = new TYPES[type](buffer, first, length);
  return columns;
}

// First place in [low, high) whose value is not less than wanted.
function lowerBound(values, wanted, low, high) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low;
}

function summed(steps) {
  const times = new Float64Array(steps.length);
  let at = 0;
  for (let i = 0; i < steps.length; i++) times[i] = at += steps[i];
  return times;
}

// Pieces of one row, in order, not overlapping: start, end, and running sums of what is drawn from afar.
class Pieces {
  constructor(start, end) {
    this.start = start;
    this.end = end;
    this.size = start.length;
    this.covered = new Float64Array(this.size + 1);
    for (let i = 0; i < this.size; i++) this.covered[i + 1] = this.covered[i] + end[i] - start[i];
    this.marks = null;
  }

  first(time) { return lowerBound(this.end, time, 0, this.size); }

  startedBefore(time) { return lowerBound(this.start, time, 0, this.size); }

  at(time) {
    const place = this.first(time);
    return place < this.size && this.start[place] <= time ? place : -1;
  }

  // How much of [from, to) is covered, as time.
  within(from, to) {
    const a = this.first(from), b = this.startedBefore(to);
    if (b <= a) return 0;
    const over = Math.max(0, from - this.start[a]) + Math.max(0, this.end[b - 1] - to);
    return this.covered[b] - this.covered[a] - over;
  }

  // marked: for each piece whether it stands out; null: none is asked for.
  mark(marked) {
    this.marks = marked && new Uint32Array(this.size + 1);
    if (marked) for (let i = 0; i < this.size; i++) this.marks[i + 1] = this.marks[i] + (marked(i) ? 1 : 0);
  }

  get marked() { return this.marks ? this.marks[this.size] : 0; }

  anyMarked(from, to) { return !this.marks || this.marks[to] > this.marks[from]; }
}

class Profile {
  constructor(facts, columns) {
    this.facts = facts;
    this.columns = columns;
    this.unit = facts.unit_ns / 1e3;
    this.length = facts.length_us / this.unit;
    this.regions = facts.region_facts;
    this.slots = facts.slots;
    this.count = columns.start.length;
    this.rows = facts.rows.map(([name, kind, first, size]) => this.row(name, kind, first, size));
    const pathStart = summed(columns.path_start);
    this.path = new Pieces(pathStart, pathStart.map((start, i) => start + columns.path_length[i]));
    this.pathSums = facts.causes.map((_, cause) => this.sumsOfCause(cause));
    this.host = this.hostPieces();
    this.layers = [...new Set(this.regions.map(region => region.layer || region.name))];
    this.layerOf = this.regions.map(region => this.layers.indexOf(region.layer || region.name));
    this.names = [...new Set(this.slots.map(slot => slot.name))];
    this.nameOf = this.slots.map(slot => this.names.indexOf(slot.name));
    this.regionSpans = this.sortByRegion();
  }

  row(name, kind, first, size) {
    const start = summed(this.columns.start.subarray(first, first + size));
    const end = start.map((from, i) => from + this.columns.length[first + i]);
    const row = { name, kind, first, size, pieces: new Pieces(start, end) };
    if (kind === "queue") {
      row.bytes = new Float64Array(size + 1);
      for (let i = 0; i < size; i++) row.bytes[i + 1] = row.bytes[i] + (this.slots[this.columns.slot[first + i]].bytes || 0);
    }
    return row;
  }

  // Running sums of the critical path that one cause has.
  sumsOfCause(cause) {
    const { path, columns } = this, sums = new Float64Array(path.size + 1);
    for (let i = 0; i < path.size; i++) sums[i + 1] = sums[i] + (columns.path_cause[i] === cause ? path.end[i] - path.start[i] : 0);
    return sums;
  }

  hostPieces() {
    const nodes = this.facts.nodes.filter(node => node.executor === "host");
    const start = Float64Array.from(nodes, node => node.start_us / this.unit);
    return { nodes, pieces: new Pieces(start, start.map((from, i) => from + nodes[i].us / this.unit)) };
  }

  // Spans of each region in order of number: places in `spans` from bounds[region] on.
  sortByRegion() {
    const bounds = new Uint32Array(this.regions.length + 1);
    for (let i = 0; i < this.count; i++) bounds[this.columns.region[i] + 1]++;
    for (let i = 0; i < this.regions.length; i++) bounds[i + 1] += bounds[i];
    const next = bounds.slice(), spans = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) spans[next[this.columns.region[i]]++] = i;
    return { bounds, spans };
  }

  rowOf(span) { return this.rows.find(row => span >= row.first && span < row.first + row.size); }

  span(number) {
    const row = this.rowOf(number), place = number - row.first;
    const after = this.columns.after[number];
    return {
      number, row, place, start: row.pieces.start[place], end: row.pieces.end[place], slot: this.slots[this.columns.slot[number]],
      region: this.columns.region[number], after: after === 0 ? -1 : number - after, isTransfer: row.kind === "queue",
    };
  }

  us(time) { return time * this.unit; }

  // Bytes a microsecond that queues move in [from, to).
  traffic(from, to) {
    let total = 0;
    for (const row of this.rows) {
      if (row.kind !== "queue") continue;
      const { start, end } = row.pieces;
      const a = row.pieces.first(from), b = row.pieces.startedBefore(to);
      if (b <= a) continue;
      const part = i => (row.bytes[i + 1] - row.bytes[i]) / Math.max(1e-9, end[i] - start[i]);
      total += row.bytes[b] - row.bytes[a] - Math.max(0, from - start[a]) * part(a) - Math.max(0, end[b - 1] - to) * part(b - 1);
    }
    return total / this.us(to - from);
  }
}

// A quantity that changes at times; from afar the largest value within a pixel.
class Steps {
  constructor(steps, values) {
    this.times = summed(steps);
    this.values = values;
    this.top = values.reduce((a, b) => Math.max(a, b), 0);
  }

  largest(from, to) {
    let place = Math.max(0, lowerBound(this.times, from, 0, this.times.length) - (this.times.length ? 1 : 0));
    if (this.times[place + 1] <= from) place++;
    let top = 0;
    for (; place < this.times.length && this.times[place] < to; place++) top = Math.max(top, this.values[place]);
    return top;
  }

  at(time) { return this.largest(time, time + 1e-9); }
}

// Which part of the call is shown, and where the reader came from.

const LEAST_SHOWN = 16;

class View {
  constructor(length, changed) {
    this.length = Math.max(length, LEAST_SHOWN);
    this.changed = changed;
    this.visited = [];
    this.from = 0;
    this.to = this.length;
  }

  get shown() { return this.to - this.from; }

  show(from, to) {
    const wide = Math.min(this.length, Math.max(LEAST_SHOWN, to - from));
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(0, middle - wide / 2), this.length - wide);
    this.to = this.from + wide;
    this.changed();
  }

  // A jump that Back undoes.
  go(from, to) {
    this.visited.push([this.from, this.to]);
    if (this.visited.length > 200) this.visited.shift();
    this.show(from, to);
  }

  back() {
    const before = this.visited.pop();
    if (before) this.show(...before);
    return Boolean(before);
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    const wide = Math.min(this.length, Math.max(LEAST_SHOWN, this.shown * factor));
    const scale = wide / this.shown;
    const from = at - (at - this.from) * scale;
    this.show(from, from + wide);
  }

  pan(part) { this.show(this.from + part * this.shown, this.to + part * this.shown); }
}

// Round steps for an axis: at most `most` of them.
function axisStep(shown, most) {
  const rough = shown / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find(step => step * power >= rough);
}

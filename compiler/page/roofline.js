// Regions as points: operations a byte of HBM against operations a second, below what the machine could do.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, properties = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value); else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

class Roofline {
  constructor(holder, facts, chosen) {
    this.points = new Map();
    const regions = facts.region_facts.map((region, number) => ({ region, number }))
      .filter(({ region }) => region.us > 0 && region.operations > 0 && region.hbm_bytes > 0);
    if (!regions.length) {
      holder.append(element("p", { class: "quiet" }, "No region both computes and moves bytes of HBM."));
      return;
    }
    const left = facts.region_facts.length - regions.length;
    holder.append(element("p", { class: "quiet" }, "Each point is a region: products and sums of the tensor engine, and elements that other engines compute, over its part of the critical path. " +
      "The area is its time. One whose loads hide behind others' work can lie above the roof." + (left ? ` ${left === 1 ? "One other only moves data or stands" : `${left} others only move data or stand`} beside the critical path.` : "")));
    this.frame(facts.roofs, regions);
    const most = Math.max(...regions.map(({ region }) => region.us));
    const picture = svg("svg", { viewBox: `0 0 ${this.width} ${this.height}`, class: "roofline", role: "img",
      "aria-label": `Roofline plot of ${regions.length} regions; the table of HLO instructions holds the same numbers` });
    picture.append(...this.axes(), ...this.roofs(facts.roofs));
    for (const { region, number } of regions.sort((a, b) => b.region.us - a.region.us)) {
      const point = svg("circle", {
        cx: this.x(region.operations / region.hbm_bytes), cy: this.y(region.operations / region.us * 1e6),
        r: (3 + 11 * Math.sqrt(region.us / most)).toFixed(2), fill: colour(hueOf(number)), onclick: () => chosen(number) },
        svg("title", {}, `${region.name}: ${time(region.us)}, ${digits(region.operations / region.hbm_bytes)} operations a byte, ${si(region.operations / region.us * 1e6, "op/s")}`));
      this.points.set(number, point);
      picture.append(point);
    }
    holder.append(picture);
  }

  frame(roofs, regions) {
    this.width = 860;
    this.height = 420;
    const intensities = regions.map(({ region }) => region.operations / region.hbm_bytes);
    const rates = regions.map(({ region }) => region.operations / region.us * 1e6);
    const ridge = roofs.pe / roofs.dma;
    this.range = {
      x: [Math.log10(Math.min(...intensities, 0.1)) - 0.2, Math.log10(Math.max(...intensities, ridge * 4)) + 0.2],
      y: [Math.log10(Math.min(...rates)) - 0.3, Math.log10(roofs.pe) + 0.25],
    };
  }

  x(value) { return this.scaled(Math.log10(value), this.range.x, 64, this.width - 14); }

  y(value) { return this.scaled(Math.log10(value), this.range.y, this.height - 40, 14); }

  scaled(value, [low, high], from, to) { return from + (value - low) / (high - low) * (to - from); }

  axes() {
    const parts = [];
    for (let power = Math.ceil(this.range.x[0]); power <= this.range.x[1]; power++) {
      const x = this.x(10 ** power);
      parts.push(svg("path", { class: "lines", d: `M${x} 14V${this.height - 40}` }), svg("text", { x, y: this.height - 24, "text-anchor": "middle" }, digits(10 ** power)));
    }
    for (let power = Math.ceil(this.range.y[0]); power <= this.range.y[1]; power++) {
      const y = this.y(10 ** power);
      parts.push(svg("path", { class: "lines", d: `M64 ${y}H${this.width - 14}` }), svg("text", { x: 58, y: y + 4, "text-anchor": "end" }, si(10 ** power, "op/s")));
    }
    parts.push(svg("text", { x: this.width / 2, y: this.height - 6, "text-anchor": "middle" }, "operations a byte of HBM"));
    return parts;
  }

  roofs(roofs) {
    const least = 10 ** this.range.x[0], most = 10 ** this.range.x[1];
    const ridge = roofs.pe / roofs.dma, low = 10 ** this.range.y[0];
    const begin = Math.max(least, low / roofs.dma);
    const line = (rate, name, extra) => {
      const from = Math.max(begin, rate / roofs.dma);
      return [svg("path", { class: `roof ${extra}`, d: `M${this.x(from)} ${this.y(rate)}H${this.x(most)}` }),
              svg("text", { x: this.x(most) - 4, y: this.y(rate) - 5, "text-anchor": "end" }, `${name} ${si(rate, "op/s")}`)];
    };
    const [x, y] = [this.x(Math.sqrt(begin * ridge)), this.y(roofs.dma * Math.sqrt(begin * ridge))];
    const turn = Math.atan2(this.y(roofs.pe) - this.y(roofs.dma * begin), this.x(ridge) - this.x(begin)) * 180 / Math.PI;
    const parts = [svg("path", { class: "roof", d: `M${this.x(begin)} ${this.y(roofs.dma * begin)}L${this.x(ridge)} ${this.y(roofs.pe)}` }),
      svg("text", { x, y: y - 6, transform: `rotate(${turn} ${x} ${y - 6})`, "text-anchor": "middle" }, `DMA ${si(roofs.dma, "B/s")}`),
      ...line(roofs.pe, "PE, 1 pass", "")];
    if (roofs.pe_slowest < roofs.pe) parts.push(...line(roofs.pe_slowest, "PE, f32", "dashed"));
    parts.push(...line(roofs.vector, "Vector", "dashed"));
    return parts;
  }

  pick(number) {
    for (const [other, point] of this.points) point.setAttribute("aria-selected", String(other === number));
    const point = this.points.get(number);
    if (point) point.parentNode.append(point);
  }
}

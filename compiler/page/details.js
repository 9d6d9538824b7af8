// What is known about the selection, in words: for the panel at the side and for the tooltip.

function pairs(rows) {
  return element("dl", {}, rows.filter(row => row && row[1] !== "" && row[1] !== null && row[1] !== undefined)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function link(text, action) { return element("button", { type: "button", class: "link", onclick: action }, text); }

// Rows of a table of a region's critical path, longest first.
function pathTable(pathUs) {
  const total = Object.values(pathUs).reduce((a, b) => a + b, 0);
  return element("table", { class: "pairs" }, element("tbody", {}, Object.entries(pathUs).map(([cause, us]) => element("tr", {},
    element("td", {}, element("span", { class: "swatch", style: `background:${colour(causeHue(cause))}` }), words(cause)),
    element("td", { class: "number" }, time(us)), element("td", { class: "number" }, total ? share(us / total) : "")))));
}

const busyWords = busy => Object.entries(busy).map(([name, us]) => `${name} ${time(us)}`).join(", ");

class Details {
  constructor(holder, profile, actions) {
    Object.assign(this, { holder, profile, actions });
    this.nothing();
  }

  nothing() {
    this.holder.replaceChildren(element("h2", {}, "Nothing selected"),
      element("p", { class: "quiet" }, "Click a piece of the timeline, a point of the roofline, or a row of a table. Press ? for the keys."));
  }

  span(span) {
    const { profile, actions } = this, { slot } = span;
    const region = profile.regions[span.region];
    const us = profile.us(span.end - span.start);
    const before = span.after >= 0 ? profile.span(span.after) : null;
    this.holder.replaceChildren(
      element("h2", {}, span.isTransfer ? `Transfer of ${bytes(slot.bytes)}` : slot.name),
      pairs([
        [span.isTransfer ? "queue" : "engine", words(span.row.name)],
        ["from", moment(profile.us(span.start), us / 100)], ["to", moment(profile.us(span.end), us / 100)], ["takes", time(us)],
        ["HLO", link(region.name, () => actions.region(span.region))],
        ["layer", region.layer], ["operator", region.op], ["source", region.source],
        slot.flops && !span.isTransfer ? ["work", `${si(slot.flops, "flop")}, ${si(slot.flops / us * 1e6, "flop/s")}`] : null,
        span.isTransfer ? ["rate", `${si(slot.bytes / us * 1e6, "B/s")} over ${slot.engines} DMA engines`] : null,
        before ? [span.isTransfer ? "triggered by" : "waited for", link(`${before.isTransfer ? "transfer" : before.slot.name} on ${words(before.row.name)}, ${profile.regions[before.region].name}`, () => actions.span(before))] : null,
        ["code", `${slot.function}, ${slot.engine} instruction ${slot.index}`],
      ]),
      element("pre", {}, slot.text),
      element("div", { class: "buttons" },
        element("button", { type: "button", onclick: () => actions.zoom(span.start, span.end) }, "Zoom to it (f)"),
        element("button", { type: "button", onclick: () => actions.region(span.region) }, "Its region"),
        element("button", { type: "button", onclick: () => actions.step(-1) }, "◂ before"),
        element("button", { type: "button", onclick: () => actions.step(1) }, "next ▸")));
  }

  region(number) {
    const { profile, actions } = this, region = profile.regions[number];
    const rate = region.us ? region.operations / region.us * 1e6 : 0;
    this.holder.replaceChildren(
      element("h2", {}, region.name),
      pairs([
        ["critical path", `${time(region.us)} (${share(region.us / profile.facts.length_us)})`],
        ["runs", `${moment(region.start_us, (region.end_us - region.start_us) / 100)} to ${moment(region.end_us, (region.end_us - region.start_us) / 100)}`],
        ["layer", region.layer ? link(region.layer, () => actions.layer(region.layer)) : ""],
        ["operator", region.op], ["source", region.source], ["code", region.functions.join(", ")],
        ["instructions", count(region.instructions)],
        ["transfers", region.transfers ? `${count(region.transfers)}, ${bytes(region.hbm_bytes)} of HBM` : ""],
        region.operations ? ["work", `${si(region.operations, "op")}, of the PE ${si(region.pe_flops, "flop")}`] : null,
        region.operations && region.us ? ["rate", `${si(rate, "op/s")}; ${share(region.pe_flops / region.us * 1e6 / profile.facts.roofs.pe)} of the PE's peak`] : null,
        region.hbm_bytes && region.us ? ["traffic", `${si(region.hbm_bytes / region.us * 1e6, "B/s")}`] : null,
        region.hbm_bytes && region.operations ? ["intensity", `${digits(region.operations / region.hbm_bytes)} operations a byte`] : null,
        ["busy", busyWords(region.busy_us)],
      ]),
      element("h3", {}, "Its critical path"), pathTable(region.path_us),
      element("div", { class: "buttons" },
        element("button", { type: "button", onclick: () => actions.zoomRegion(number) }, "Show in the timeline (f)"),
        element("button", { type: "button", onclick: () => actions.showRow(number) }, "Show in the table")));
  }

  group(row, kind) {
    const { actions } = this;
    this.holder.replaceChildren(
      element("h2", {}, words(row.name)),
      pairs([
        ["kind", kind], ["critical path", `${time(row.us)} (${share(row.us / this.profile.facts.length_us)})`],
        ["runs", `${time(row.start_us)} to ${time(row.end_us)}`], ["instructions", count(row.instructions)],
        ["transfers", row.transfers ? `${count(row.transfers)}, ${bytes(row.hbm_bytes)} of HBM` : ""], ["busy", busyWords(row.busy_us)],
      ]),
      element("h3", {}, "Its critical path"), pathTable(row.path_us),
      element("h3", {}, `Its regions (${row.regions.length})`),
      element("div", {}, row.regions.slice(0, 60).map(number => actions.place(number)).filter(place => place >= 0)
        .map(place => element("div", {}, link(this.profile.regions[place].name, () => actions.region(place)), ` ${time(this.profile.regions[place].us)}`))),
      row.regions.length > 60 ? element("p", { class: "quiet" }, `${row.regions.length - 60} more`) : null,
      element("div", { class: "buttons" }, element("button", { type: "button", onclick: () => actions.zoom(row.start_us / this.profile.unit, row.end_us / this.profile.unit) }, "Show in the timeline (f)")));
  }

  // Lines of a tooltip for what lies under the pointer.
  tip(hit) {
    const { profile } = this, { track } = hit;
    if (track.kind === "curve") return [track.name, track.word(track.value(hit.time, hit.time + hit.wide))];
    if (hit.place < 0) return null;
    if (track.kind === "host") { const node = profile.host.nodes[hit.place]; return [node.name, "host", time(node.us)]; }
    if (track.kind === "path") {
      const region = profile.regions[profile.columns.path_region[hit.place]];
      return [words(profile.facts.causes[profile.columns.path_cause[hit.place]]), region.name, region.layer,
              `${time(profile.us(track.pieces.end[hit.place] - track.pieces.start[hit.place]))} of the critical path`];
    }
    const span = profile.span(track.row.first + hit.place), region = profile.regions[span.region];
    return [span.isTransfer ? `transfer of ${bytes(span.slot.bytes)}` : span.slot.name, region.name, region.layer,
            `${time(profile.us(span.end - span.start))} from ${moment(profile.us(span.start), profile.us(span.end - span.start) / 100)} to ${moment(profile.us(span.end), profile.us(span.end - span.start) / 100)}`,
            span.isTransfer ? `${si(span.slot.bytes / profile.us(span.end - span.start) * 1e6, "B/s")}` : span.slot.flops ? si(span.slot.flops, "flop") : ""];
  }
}

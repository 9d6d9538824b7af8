// The page of a profile: what the reader does, and which parts answer.

const KEYS = [
  ["w s", "zoom in, out"], ["a d", "pan left, right"], ["0", "the whole call"], ["f", "zoom to the selection"], ["Backspace", "back to where the timeline was"],
  ["/", "search"], ["n p", "next, previous match"], ["← →", "piece before, after on the same engine"], ["g", "to what the piece waited for"], ["Enter", "from a piece to its region, from a region to its row"],
  ["Escape", "select nothing, search for nothing"], ["c", "other colours"], ["t", "light or dark"], ["?", "this list"],
  ["wheel + Ctrl", "zoom at the pointer"], ["wheel + Shift", "pan"], ["drag", "pan; with Shift: zoom to what is covered"], ["double click", "zoom to the piece"],
];

class Page {
  constructor(facts, columns) {
    this.facts = facts;
    this.profile = new Profile(facts, columns);
    this.view = new View(this.profile.length, () => this.redraw());
    this.tracks = new Tracks(byId("tracks"), byId("labels"), this.profile, this.view, () => byId("timeline").scrollTop);
    this.overview = new Overview(byId("overview"), this.profile, this.view);
    this.selection = null;
    this.query = null;
    this.placeOf = new Map(facts.region_facts.map((region, place) => [region.number, place]));
    this.details = new Details(byId("details"), this.profile, {
      span: span => this.pickSpan(span, true), region: number => this.pickRegion(number, false), layer: name => this.pickLayer(name),
      zoom: (from, to) => this.zoomTo(from, to), zoomRegion: number => this.zoomRegion(number), step: step => this.step(step),
      place: number => this.placeOf.get(number) ?? -1, showRow: number => this.showRow(number),
    });
    this.fillHead();
    this.fillTables();
    this.fillLegend();
    this.listen();
    setUpTheme(byId("theme"), () => { this.overview.theme = null; this.redraw(); });
    new ResizeObserver(() => this.redraw()).observe(byId("strip"));
  }

  redraw() {
    byId("back").disabled = this.view.visited.length === 0; // at once: a click may come before the next frame
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.draw(); });
  }

  draw() {
    this.tracks.draw();
    this.overview.draw();
    const { view, profile } = this;
    byId("window").textContent = `${moment(profile.us(view.from), profile.us(view.shown) / 1000)} – ${moment(profile.us(view.to), profile.us(view.shown) / 1000)} (${time(profile.us(view.shown))})`;
  }

  // Head and legend

  fillHead() {
    const { estimate } = this.facts;
    byId("file").textContent = estimate.file;
    byId("subtitle").textContent = `NeuronCore-${estimate.target}; simulated, predicted from documented and assumed numbers of the machine`;
    byId("subtitle").className = "quiet";
    const figures = [
      ["on the device", time(estimate.device_us), `${time(estimate.simulated_us)} simulated + ${time(estimate.fixed_us)} fixed`],
      ["host call beside it", time(estimate.host_us), `submission ${time(estimate.host.submit_us)}, copies ${time(estimate.host.copy_us)}`],
      ["bound by", estimate.bound_by, ""],
      ["roofline", estimate.roofline_us === null ? "unknown" : time(estimate.roofline_us), estimate.roofline_us ? `${(estimate.device_us / estimate.roofline_us).toFixed(2)} times it; ${estimate.roofline.bound_by}` : ""],
      ["work", si(estimate.pe_flops_per_second, "flop/s"), `${si(estimate.pe_flops, "flop")} of the PE`],
      ["traffic", si(estimate.hbm_bytes_per_second, "B/s"), `${bytes(estimate.hbm_bytes)} of HBM`],
      ["instructions", count(estimate.instructions), `${count(estimate.transfers)} transfers`],
    ];
    byId("figures").append(...figures.map(([name, value, note]) => element("div", {}, element("dt", {}, name), element("dd", {}, value, element("small", {}, note)))));
    if (estimate.assumed_branches) byId("subtitle").append(`; ${estimate.assumed_branches} branches depend on data and were assumed`);
  }

  fillLegend() {
    const used = Object.entries(this.facts.estimate.critical_path).sort((a, b) => b[1] - a[1]);
    byId("legend").replaceChildren(element("span", {}, "critical path:"), ...used.map(([cause, part]) => element("span", {},
      element("span", { class: "swatch", style: `background:${colour(causeHue(cause))}` }), `${words(cause)} ${share(part)}`)));
    byId("keylist").append(...KEYS.map(([keys, what]) => element("tr", {}, element("td", {}, keys.split(" ").map(key => element("kbd", {}, key))), element("td", {}, what))));
  }

  // Tables

  fillTables() {
    const tabs = this.tabs = new Tabs(byId("tabs"), byId("panels"));
    this.fillOverview(tabs.add("overview", "Overview"));
    const total = this.facts.estimate.simulated_us || 1;
    const grid = (name, title, rows, kind) => new Grid(tabs.add(name, title), this.regionColumns(total, title), rows,
      { sort: "us", describe: title, chosen: row => kind === "HLO instruction" && row.regions.length === 1 ? this.pickRegion(this.placeOf.get(row.regions[0]), true) : this.pickGroup(row, kind, true) });
    this.grids = { layers: grid("layers", "Layers", this.facts.layers, "layer"), hlo: grid("hlo", "HLO instructions", this.facts.hlo, "HLO instruction"),
                   functions: grid("functions", "Lowered code", this.facts.functions, "lowered code") };
    this.fillMachine(tabs.add("machine", "Machine instructions"));
    this.roofline = new Roofline(tabs.add("roofline", "Roofline"), this.facts, number => this.pickRegion(number, true));
  }

  regionColumns(total, title) {
    const number = (key, name, value, text, hint) => ({ key, title: name, value, text, kind: "number", hint });
    return [
      { key: "name", title: title.replace(/s$/, ""), value: row => row.name, text: row => row.name, kind: "name" },
      number("us", "time", row => row.us, row => time(row.us), "Part of the critical path: the column adds up to the simulated time"),
      number("share", "share", row => row.us, row => share(row.us / total)),
      { key: "mostly", title: "made of", kind: "number", value: row => row.mostly, text: row => row.mostly, hint: "Causes on the critical path",
        cell: row => element("span", { title: Object.entries(row.path_us).map(([cause, us]) => `${words(cause)} ${time(us)}`).join(", ") },
          bar(Object.entries(row.path_us).map(([cause, us]) => [us / (row.us || 1), causeHue(cause), words(cause)]))) },
      number("pe", "PE busy", row => row.busy_us.PE || 0, row => row.busy_us.PE ? time(row.busy_us.PE) : ""),
      number("dma", "DMA busy", row => row.busy_us.DMA || 0, row => row.busy_us.DMA ? time(row.busy_us.DMA) : "", "Mean over the DMA engines"),
      number("bytes", "HBM", row => row.hbm_bytes, row => row.hbm_bytes ? bytes(row.hbm_bytes) : ""),
      number("intensity", "op/B", row => row.hbm_bytes ? row.operations / row.hbm_bytes : 0, row => row.hbm_bytes && row.operations ? digits(row.operations / row.hbm_bytes) : ""),
      number("rate", "op/s", row => row.us ? row.operations / row.us : 0, row => row.us && row.operations ? si(row.operations / row.us * 1e6, "") : ""),
      number("instructions", "instructions", row => row.instructions, row => count(row.instructions)),
    ];
  }

  fillOverview(panel) {
    const { estimate, queues } = this.facts;
    const table = rows => element("table", { class: "pairs" }, element("tbody", {}, rows));
    const engines = Object.entries(estimate.engines).map(([name, part]) => element("tr", {}, element("td", {}, words(name)), element("td", {}, bar([[part, causeHue("pe"), share(part)]])), element("td", { class: "number" }, share(part))));
    const causes = Object.entries(estimate.critical_path).sort((a, b) => b[1] - a[1]).map(([name, part]) => element("tr", {},
      element("td", {}, words(name)), element("td", {}, bar([[part, causeHue(name), share(part)]])), element("td", { class: "number" }, share(part))));
    const lanes = queues.map(queue => element("tr", {}, element("td", {}, queue.queue), element("td", {}, bar([[queue.under_way_us / (estimate.simulated_us || 1), 36, ""]])),
      element("td", { class: "number" }, `${count(queue.transfers)} × ${bytes(queue.bytes / queue.transfers)}`)));
    const box = (title, ...content) => element("section", {}, element("h2", {}, title), ...content);
    panel.append(element("div", { class: "columns" }, box("Critical path", table(causes)), box("Busy share of engines", table(engines)), box("DMA queues: time with a transfer under way", table(lanes))));
    if (estimate.advice && estimate.advice.length) panel.append(box("Advice", element("ul", {}, estimate.advice.map(one => element("li", {}, one.text || one)))));
  }

  fillMachine(panel) {
    const number = (key, title, text) => ({ key, title, kind: "number", value: row => row[key], text: row => text(row[key]) });
    this.grids.machine = new Grid(panel, [
      { key: "instruction", title: "instruction", kind: "name", value: row => row.instruction, text: row => row.instruction },
      { key: "engine", title: "engine", kind: "name", value: row => row.engine, text: row => row.engine },
      number("count", "count", count), number("busy_us", "busy", time), number("idle_before_us", "engine idle before", time),
    ], this.facts.machine, { sort: "busy_us", describe: "Machine instructions", chosen: row => { byId("search").value = row.instruction; this.search(row.instruction); } });
  }

  // Selection

  pickSpan(span, show) {
    this.selection = { span };
    this.tracks.picked = span;
    this.details.span(span);
    this.pickRows(span.region);
    if (show && (span.end < this.view.from || span.start > this.view.to)) this.zoomTo(span.start, span.end, 20);
    this.markAgain();
  }

  // region: place among the region facts.
  pickRegion(region, zoom) {
    this.selection = { region };
    this.tracks.picked = null;
    this.details.region(region);
    this.pickRows(region);
    if (zoom) this.zoomRegion(region);
    this.markAgain();
  }

  pickLayer(name) {
    const row = this.facts.layers.find(one => one.name === name);
    if (row) this.pickGroup(row, "layer", true);
  }

  pickGroup(row, kind, zoom) {
    this.selection = { group: row, places: new Set(row.regions.map(number => this.placeOf.get(number))) };
    this.tracks.picked = null;
    this.details.group(row, kind);
    for (const grid of Object.values(this.grids)) grid.pick(grid.rows.includes(row) ? row : null);
    if (zoom) this.zoomTo(row.start_us / this.profile.unit, row.end_us / this.profile.unit);
    this.markAgain();
  }

  pickRows(region) {
    const facts = this.profile.regions[region];
    const row = table => this.facts[table].find(one => one.regions.includes(facts.number));
    for (const table of ["layers", "hlo", "functions"]) this.grids[table].pick(row(table));
    this.roofline.pick(region);
  }

  showRow(region) {
    this.tabs.show("hlo");
    this.pickRows(region);
    this.grids.hlo.body.querySelector("[aria-selected]")?.focus();
  }

  clear() {
    this.selection = null;
    this.tracks.picked = null;
    this.details.nothing();
    for (const grid of Object.values(this.grids)) grid.pick(null);
    byId("search").value = "";
    this.search("");
  }

  step(step) {
    const { selection } = this;
    if (!selection?.span) return this.stepFromNowhere();
    const { row, place } = selection.span;
    const next = place + step;
    if (next >= 0 && next < row.size) this.pickSpan(this.profile.span(row.first + next), true);
  }

  stepFromNowhere() {
    const row = this.profile.rows.find(one => one.pieces.first(this.view.from) < one.size);
    if (row) this.pickSpan(this.profile.span(row.first + row.pieces.first(this.view.from)), true);
  }

  zoomTo(from, to, room = 1.15) {
    const middle = (from + to) / 2, half = Math.max(to - from, 1) / 2 * room;
    this.view.go(middle - half, middle + half);
  }

  zoomRegion(region) {
    const { start_us: start, end_us: end } = this.profile.regions[region];
    this.zoomTo(start / this.profile.unit, end / this.profile.unit);
  }

  zoomSelection() {
    const { selection } = this;
    if (selection?.span) this.zoomTo(selection.span.start, selection.span.end, 2);
    else if (selection?.group) this.zoomTo(selection.group.start_us / this.profile.unit, selection.group.end_us / this.profile.unit);
    else if (selection) this.zoomRegion(selection.region);
  }

  // Search

  search(text) {
    const query = text.trim().toLowerCase();
    this.query = null;
    if (query) {
      const has = (...names) => names.some(name => name && name.toLowerCase().includes(query));
      this.query = {
        regions: this.profile.regions.map(region => has(region.name, region.layer, region.op, region.source)),
        slots: this.profile.slots.map(slot => has(slot.name, slot.function)),
      };
    }
    const { query: found } = this;
    for (const table of ["layers", "hlo", "functions"]) {
      this.grids[table].filter(query && (row => row.name.toLowerCase().includes(query) || row.regions.some(number => found.regions[this.placeOf.get(number)])));
    }
    this.grids.machine.filter(query && (row => row.instruction.includes(query) || !found.slots.some(Boolean)));
    this.markAgain();
    byId("matches").textContent = query ? `${count(this.hits())} pieces` : "";
  }

  hits() { return this.profile.rows.reduce((sum, row) => sum + row.pieces.marked, 0); }

  markAgain() {
    const { selection, query } = this;
    let marked = null;
    if (query) marked = (region, slot) => query.regions[region] || (slot >= 0 && query.slots[slot]);
    else if (selection?.group) marked = region => selection.places.has(region);
    else if (selection?.region >= 0) marked = region => region === selection.region;
    this.tracks.mark(marked);
    this.redraw();
  }

  // The next piece that the search found, forwards or backwards from the selection or the left edge.
  nextMatch(step) {
    if (!this.query || !this.hits()) return;
    const here = this.selection?.span ? this.selection.span.start : step > 0 ? this.view.from - 1 : this.view.to + 1;
    const candidates = this.profile.rows.map(row => this.matchIn(row, here, step)).filter(found => found !== null);
    if (!candidates.length) return;
    candidates.sort((a, b) => step * (a.start - b.start));
    const [best] = candidates;
    this.pickSpan(this.profile.span(best.number), false);
    if (best.start < this.view.from || best.start > this.view.to) this.view.go(best.start - this.view.shown / 2, best.start + this.view.shown / 2);
  }

  matchIn(row, here, step) {
    const { pieces } = row;
    if (!pieces.marked) return null;
    const before = pieces.marks[lowerBound(pieces.start, step > 0 ? here + 1e-6 : here, 0, pieces.size)];
    const wanted = step > 0 ? before + 1 : before;
    if (wanted < 1 || wanted > pieces.marked) return null;
    const place = lowerBound(pieces.marks, wanted, 0, pieces.size + 1) - 1;
    return { number: row.first + place, start: pieces.start[place] };
  }

  // Input

  listen() {
    const search = byId("search");
    search.addEventListener("input", () => this.search(search.value));
    search.addEventListener("keydown", event => {
      if (event.key === "Enter") { event.preventDefault(); this.nextMatch(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { this.clear(); byId("tracks").focus({ preventScroll: true }); }
    });
    const clicks = { next: () => this.nextMatch(1), previous: () => this.nextMatch(-1), "zoom-in": () => this.view.zoom(0.5), "zoom-out": () => this.view.zoom(2),
                     fit: () => this.view.go(0, this.view.length), back: () => this.view.back(), help: () => byId("keys").showModal() };
    for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
    byId("colouring").addEventListener("change", event => { this.tracks.colouring = event.target.value; this.redraw(); });
    document.addEventListener("keydown", event => this.key(event));
    this.listenToPointer(byId("tracks"));
    byId("timeline").addEventListener("scroll", () => this.redraw());
    this.listenToDivider(byId("divider"));
  }

  listenToDivider(divider) {
    const main = divider.parentNode;
    const set = part => { main.style.setProperty("--split", `${(100 * Math.min(0.85, Math.max(0.15, part))).toFixed(1)}%`); this.redraw(); };
    const now = () => byId("timeline").offsetHeight / main.offsetHeight;
    divider.addEventListener("pointerdown", event => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", event => { if (event.buttons) set((event.clientY - main.getBoundingClientRect().top) / main.offsetHeight); });
    divider.addEventListener("keydown", event => {
      const step = { ArrowUp: -0.05, ArrowDown: 0.05 }[event.key];
      if (step) { event.preventDefault(); set(now() + step); }
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    if (event.target.matches("[type=search], select")) return;
    const inTable = event.target.closest("table, [role=tablist], button, a");
    const actions = {
      w: () => this.view.zoom(0.7, this.pointed), s: () => this.view.zoom(1 / 0.7, this.pointed), a: () => this.view.pan(-0.15), d: () => this.view.pan(0.15),
      0: () => this.view.go(0, this.view.length), Home: () => this.view.go(0, this.view.length), f: () => this.zoomSelection(), Backspace: () => this.view.back(),
      "/": () => byId("search").focus(), n: () => this.nextMatch(1), p: () => this.nextMatch(-1), g: () => this.toWaited(), Escape: () => this.clear(),
      c: () => this.turnColours(), t: () => byId("theme").click(), "?": () => byId("keys").showModal(),
    };
    if (!inTable) Object.assign(actions, { ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1), Enter: () => this.enter() });
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  enter() {
    const { selection } = this;
    if (selection?.span) this.pickRegion(selection.span.region, false);
    else if (selection?.region >= 0) this.showRow(selection.region);
  }

  toWaited() {
    const before = this.selection?.span?.after ?? -1;
    if (before >= 0) this.pickSpan(this.profile.span(before), true);
  }

  turnColours() {
    const choice = byId("colouring");
    choice.selectedIndex = (choice.selectedIndex + 1) % choice.options.length;
    choice.dispatchEvent(new Event("change"));
  }

  listenToPointer(canvas) {
    const place = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    let pressed = null;
    canvas.addEventListener("pointerdown", event => {
      if (event.button) return;
      const [x, y] = place(event);
      pressed = { x, y, from: this.view.from, to: this.view.to, moved: false, covers: event.shiftKey };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      const [x, y] = place(event);
      this.pointed = this.tracks.time(x);
      if (pressed && Math.abs(x - pressed.x) > 3) this.drag(pressed, x);
      if (pressed?.moved) this.tip(null); else this.tip(event, x, y);
    });
    canvas.addEventListener("pointerup", event => {
      const [x, y] = place(event);
      canvas.classList.remove("panning");
      const press = pressed;
      pressed = null;
      if (!press) return;
      if (!press.moved) this.click(x, y);
      else if (press.covers) this.cover(press, x);
      else this.view.visited.push([press.from, press.to]);
      this.redraw();
    });
    canvas.addEventListener("pointerleave", () => { this.pointed = undefined; this.tip(null); });
    canvas.addEventListener("dblclick", event => { this.click(...place(event)); this.zoomSelection(); });
    canvas.addEventListener("wheel", event => this.wheel(event), { passive: false });
  }

  drag(pressed, x) {
    pressed.moved = true;
    if (pressed.covers) { this.frame(pressed.x, x); return; }
    byId("tracks").classList.add("panning");
    const shift = (pressed.x - x) / this.tracks.width * (pressed.to - pressed.from);
    this.view.show(pressed.from + shift, pressed.to + shift);
  }

  frame(from, to) {
    this.tracks.draw();
    const { context, inks, height } = this.tracks;
    context.globalAlpha = 0.15;
    context.fillStyle = inks.accent;
    context.fillRect(Math.min(from, to), 0, Math.abs(to - from), height);
    context.globalAlpha = 1;
    byId("window").textContent = `${time(this.profile.us(Math.abs(this.tracks.time(to) - this.tracks.time(from))))} covered`;
  }

  cover(pressed, x) {
    const [from, to] = [pressed.x, x].sort((a, b) => a - b).map(at => this.tracks.time(at));
    this.view.go(from, to);
  }

  wheel(event) {
    const x = event.clientX - byId("tracks").getBoundingClientRect().left;
    const across = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.shiftKey ? event.deltaY : 0;
    if (event.ctrlKey || event.metaKey) this.view.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 100), this.tracks.time(x));
    else if (across) this.view.pan(across / this.tracks.width);
    else return;
    event.preventDefault();
  }

  click(x, y) {
    const hit = this.tracks.hit(x, y);
    if (!hit || hit.place < 0) return;
    if (hit.track.kind === "path") this.pickRegion(this.profile.columns.path_region[hit.place], false);
    else if (hit.track.kind === "row") this.pickSpan(this.profile.span(hit.track.row.first + hit.place), false);
  }

  tip(event, x, y) {
    const box = byId("tooltip");
    const hit = event && this.tracks.hit(x, y);
    if (hit) hit.wide = this.view.shown / this.tracks.width;
    const lines = hit && this.details.tip(hit);
    box.hidden = !lines;
    if (!lines) return;
    box.replaceChildren(element("strong", {}, lines[0]), ...lines.slice(1).filter(Boolean).map(line => element("div", {}, line)));
    const wide = box.offsetWidth, tall = box.offsetHeight;
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - wide - 6)}px`;
    box.style.top = `${event.clientY + 18 + tall > innerHeight ? event.clientY - tall - 10 : event.clientY + 18}px`;
  }
}

async function start() {
  try {
    const begun = performance.now();
    const facts = readFacts();
    const page = new Page(facts, await readColumns(facts));
    page.draw();
    page.loaded = performance.now() - begun;
    window.nxccProfile = page;
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    byId("failure").textContent = `The page cannot show its data: ${error.message}`;
    byId("failure").hidden = false;
    throw error;
  }
}

start();

// The page of a comparison: one table a view, with bars that go left where time was saved and right where it was lost.

const VIEWS = [["layers", "Layers"], ["hlo", "HLO instructions"], ["critical_path", "Critical path"], ["engines", "Engines"], ["machine", "Machine instructions"]];
const LEAST_US = 0.0005;

const signed = us => `${us < 0 ? "−" : "+"}${time(Math.abs(us))}`;

// From the middle: to the left what is faster, to the right what is slower.
function deltaBar(us, most) {
  const part = Math.min(1, Math.abs(us) / (most || 1)) * 50;
  return element("span", { class: "delta", title: signed(us) }, element("i", {
    class: us < 0 ? "fill-better" : "fill-worse", style: us < 0 ? `right:50%;width:${part.toFixed(2)}%` : `left:50%;width:${part.toFixed(2)}%` }));
}

function changeColumns(title, rows) {
  const most = Math.max(...rows.map(row => Math.abs(row.delta_us)), 0);
  const side = key => ({ key, title: key.startsWith("before") ? "before" : "after", kind: "number", value: row => row[key] ?? -1, text: row => row[key] === null ? "–" : time(row[key]) });
  const columns = [
    { key: "name", title, kind: "name", value: row => row.name, text: row => row.name },
    side("before_us"), side("after_us"),
    { key: "delta_us", title: "change", kind: "number", value: row => Math.abs(row.delta_us), text: row => signed(row.delta_us), hint: "After minus before; sorted by size",
      cell: row => element("span", { class: Math.abs(row.delta_us) < LEAST_US ? "quiet" : row.delta_us < 0 ? "better" : "worse" }, Math.abs(row.delta_us) < LEAST_US ? "same" : signed(row.delta_us)) },
    { key: "percent", title: "%", kind: "number", value: row => row.before_us ? row.delta_us / row.before_us : 0,
      text: row => row.before_us === null ? "new" : row.after_us === null ? "gone" : row.before_us ? `${(100 * row.delta_us / row.before_us).toFixed(1)}` : "" },
    { key: "bar", title: "faster | slower", kind: "number", value: row => row.delta_us, text: row => "", cell: row => deltaBar(row.delta_us, most) },
  ];
  if (rows.some(row => "before_count" in row)) {
    columns.push(...["before_count", "after_count"].map(key => ({ key, title: key === "before_count" ? "count before" : "after", kind: "number", value: row => row[key], text: row => count(row[key]) })));
  }
  return columns;
}

function startComparison() {
  const facts = readFacts(), { before, after } = facts;
  byId("subtitle").textContent = `${before.file} → ${after.file}, NeuronCore-${facts.target}; simulated`;
  const figures = [
    ["before", time(before.device_us), before.bound_by], ["after", time(after.device_us), after.bound_by],
    ["change", signed(facts.delta_us), facts.ratio === null ? "" : `${facts.ratio.toFixed(3)} times`],
    ["instructions", `${after.instructions - before.instructions >= 0 ? "+" : "−"}${count(Math.abs(after.instructions - before.instructions))}`, `${count(before.instructions)} before`],
    ["HBM", `${after.hbm_bytes >= before.hbm_bytes ? "+" : "−"}${bytes(Math.abs(after.hbm_bytes - before.hbm_bytes))}`, `${bytes(before.hbm_bytes)} before`],
    ["host call", signed(after.host_us - before.host_us), `${time(before.host_us)} before`],
  ];
  byId("figures").append(...figures.map(([name, value, note]) => element("div", {}, element("dt", {}, name),
    element("dd", { class: name === "change" ? (facts.delta_us < 0 ? "better" : facts.delta_us > 0 ? "worse" : "") : "" }, value, element("small", {}, note)))));
  const tabs = new Tabs(byId("tabs"), byId("panels"));
  const grids = VIEWS.map(([key, title]) => new Grid(tabs.add(key, title), changeColumns(title.replace(/s$/, ""), facts[key]), facts[key], { sort: "delta_us", describe: title }));
  const narrow = () => {
    const query = byId("search").value.trim().toLowerCase(), onlyChanged = byId("changed").checked;
    for (const grid of grids) grid.filter(row => row.name.toLowerCase().includes(query) && (!onlyChanged || Math.abs(row.delta_us) >= LEAST_US));
    const grid = grids[VIEWS.findIndex(([key]) => key === tabs.current)];
    byId("matches").textContent = `${count(grid.shown.length)} of ${count(grid.rows.length)} rows`;
  };
  byId("search").addEventListener("input", narrow);
  byId("changed").addEventListener("change", narrow);
  tabs.shown = narrow;
  document.addEventListener("keydown", event => {
    if (event.key === "/" && !event.target.matches("[type=search]")) { event.preventDefault(); byId("search").focus(); }
  });
  setUpTheme(byId("theme"), () => {});
  narrow();
  window.nxccComparison = { facts, grids };
  document.documentElement.dataset.ready = "true";
}

startComparison();

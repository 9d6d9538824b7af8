// Tables that sort by any column and stay quick with thousands of rows.

const ROWS_AT_ONCE = 400;

// columns: { key, title, value(row), text(row), kind: "name" | "number" | "bar", hint }
class Grid {
  constructor(holder, columns, rows, { sort, chosen, describe } = {}) {
    Object.assign(this, { holder, columns, rows, chosen, describe });
    this.sort = sort || columns[0].key;
    this.falling = true;
    this.limit = ROWS_AT_ONCE;
    this.keep = () => true;
    this.made = new Map();
    this.build();
  }

  build() {
    this.body = element("tbody");
    this.heads = this.columns.map(column => element("th", { class: column.kind === "name" ? "" : "number", scope: "col", title: column.hint },
      element("button", { type: "button", onclick: () => this.sortBy(column) }, column.title)));
    this.more = element("button", { type: "button", class: "more", onclick: () => { this.limit += ROWS_AT_ONCE * 5; this.fill(); } });
    this.table = element("table", { class: "grid", "aria-label": this.describe }, element("thead", {}, element("tr", {}, this.heads)), this.body);
    this.scroll = element("div", { class: "scroll" }, this.table, this.more);
    this.holder.append(this.scroll);
    this.fill();
  }

  sortBy(column) {
    this.falling = this.sort === column.key ? !this.falling : column.kind !== "name";
    this.sort = column.key;
    this.fill();
  }

  filter(keep) {
    this.keep = keep || (() => true);
    this.fill();
  }

  fill() {
    const column = this.columns.find(one => one.key === this.sort);
    const turn = this.falling ? -1 : 1;
    this.shown = this.rows.filter(row => this.keep(row));
    this.shown.sort((a, b) => {
      const [left, right] = [column.value(a), column.value(b)];
      return turn * (left < right ? -1 : left > right ? 1 : 0);
    });
    this.heads.forEach((head, place) => {
      const isSort = this.columns[place] === column;
      if (isSort) head.setAttribute("aria-sort", this.falling ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
      head.firstChild.textContent = this.columns[place].title + (isSort ? (this.falling ? " ▾" : " ▴") : "");
    });
    const visible = this.shown.slice(0, this.limit);
    this.body.replaceChildren(...visible.map(row => this.line(row)));
    const left = this.shown.length - visible.length;
    this.more.hidden = left === 0;
    this.more.textContent = `${count(left)} more`;
  }

  line(row) {
    let made = this.made.get(row);
    if (!made) {
      const choose = () => this.chosen && this.chosen(row);
      made = element("tr", { tabindex: this.chosen ? 0 : undefined, onclick: choose,
        onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } } },
        this.columns.map(column => element("td", { class: column.kind === "name" ? "name" : "number" }, column.cell ? column.cell(row) : column.text(row))));
      this.made.set(row, made);
    }
    return made;
  }

  // Make a row stand out and come into sight; null: none.
  pick(row) {
    for (const made of this.body.querySelectorAll("[aria-selected]")) made.removeAttribute("aria-selected");
    if (!row) return;
    const place = this.shown.indexOf(row);
    if (place < 0) return;
    if (place >= this.limit) { this.limit = place + ROWS_AT_ONCE; this.fill(); }
    const made = this.line(row);
    made.setAttribute("aria-selected", "true");
    const box = this.scroll.getBoundingClientRect();
    if (box.height) this.scroll.scrollTop += made.getBoundingClientRect().top - box.top - box.height / 3;
  }
}

// Parts of a whole as one bar: [[share, hue, title], ..].
function bar(parts) {
  return element("span", { class: "bar" }, parts.map(([part, hue, title]) => element("i", {
    style: `width:${(100 * part).toFixed(2)}%;background:${colour(hue)}`, title })));
}

class Tabs {
  constructor(list, panels) {
    this.list = list;
    this.panels = panels;
    this.tabs = [];
    list.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const place = (this.tabs.findIndex(tab => tab.name === this.current) + step + this.tabs.length) % this.tabs.length;
      this.show(this.tabs[place].name);
      this.tabs[place].button.focus();
    });
  }

  add(name, title) {
    const panel = element("div", { class: "panel", role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` });
    const button = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => this.show(name) }, title);
    this.tabs.push({ name, panel, button });
    this.list.append(button);
    this.panels.append(panel);
    if (this.tabs.length === 1) this.show(name); else { panel.hidden = true; button.setAttribute("aria-selected", "false"); button.tabIndex = -1; }
    return panel;
  }

  show(name) {
    this.current = name;
    for (const tab of this.tabs) {
      tab.panel.hidden = tab.name !== name;
      tab.button.setAttribute("aria-selected", String(tab.name === name));
      tab.button.tabIndex = tab.name === name ? 0 : -1;
    }
    this.shown?.(name);
  }
}

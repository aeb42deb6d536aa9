// The page around the picture. Text from the profile enters the document through textContent only.

const $ = (id) => document.getElementById(id);
const ROWS = 200; // of the function table before "Show all"

function element(tag, text, properties) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

const data = decode(JSON.parse($("profile").textContent));
const graph = $("graph");
const chart = new Chart(data, graph, $("spacer"), $("canvas"));
const state = { found: null, at: -1, sort: "flat", all: false, item: 0 };

const functionOf = (node) => data.functions[data.owner[node]];
const source = (f) => (f.file ? f.file + (f.line > 0 ? ":" + f.line : "") : "");
const values = (type, value) => share(value, type.total) + " (" + amount(value, type.unit) + ")";

// --- the selected frame --------------------------------------------------------------------------

function select(node) {
  if (node < 0) return;
  chart.select(node);
  const f = functionOf(node);
  const { type } = chart;
  graph.dataset.selected = f.name;
  $("name").textContent = f.name;
  $("source").textContent = source(f);
  describeLines(node);
  $("zoom").disabled = node === chart.zoomed;
  $("acts").hidden = node === 0;
  $("numbers").tBodies[0].replaceChildren(...data.types.map((t) => {
    const row = element("tr");
    if (t === type) row.setAttribute("aria-current", "true");
    row.append(element("th", t.name, { scope: "row" }));
    for (const value of [t.flat[node], t.cum[node]]) {
      row.append(element("td", amount(value, t.unit)), element("td", share(value, t.total)));
    }
    return row;
  }));
  // A screen reader speaks when the active descendant changes, so two elements take turns.
  state.item = 1 - state.item;
  const item = $("frame-" + state.item);
  item.textContent = f.name + ", " + share(type.cum[node], type.total) + " of " + type.name +
    ", flat " + share(type.flat[node], type.total);
  item.setAttribute("aria-level", String(data.depth[node] + 1));
  item.setAttribute("aria-selected", "true");
  item.hidden = false;
  $("frame-" + (1 - state.item)).hidden = true;
  graph.setAttribute("aria-activedescendant", item.id);
}

// Where in the function the samples were, over the whole profile.
function describeLines(node) {
  const { type } = chart;
  const lines = node ? linesOf(data, type, data.owner[node]).filter((l) => l.line > 0) : [];
  const whole = type.cumOf[data.owner[node]];
  const parts = [];
  for (const l of lines.slice(0, 4)) {
    parts.push(parts.length ? ", " : "Lines by share of the function: ", element("b", String(l.line)), " " + share(l.cum, whole));
  }
  if (lines.length > 4) parts.push(", …");
  $("lines").replaceChildren(...(node ? parts : ["Click a frame to zoom into it."]));
}

// --- zoom ----------------------------------------------------------------------------------------

// Zooming out keeps the selected frame.
function zoom(node) {
  if (node < 0 || !(chart.type.cum[node] > 0)) return;
  const out = chart.selected >= node && chart.selected < data.end[node];
  chart.zoom(node);
  select(out ? chart.selected : node);
  crumbs();
  report();
}

function crumbs() {
  const path = [];
  for (let i = chart.zoomed; i >= 0; i = chart.parentOf(i)) path.unshift(i);
  const list = $("crumbs");
  list.replaceChildren(...path.map((node) => {
    const item = element("li");
    const button = element("button", functionOf(node).name, { type: "button" });
    if (node === chart.zoomed) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      zoom(node);
      graph.focus();
    });
    item.append(button);
    return item;
  }));
  list.scrollLeft = list.scrollWidth;
  $("reset").hidden = chart.zoomed === 0;
  graph.dataset.zoomed = functionOf(chart.zoomed).name;
}

// --- search --------------------------------------------------------------------------------------

function runSearch() {
  const term = $("term").value;
  const regex = $("regex").getAttribute("aria-pressed") === "true";
  $("term").removeAttribute("aria-invalid");
  state.found = null;
  state.at = -1;
  if (term) {
    try {
      state.found = { matches: matcher(term, regex) };
    } catch {
      $("term").setAttribute("aria-invalid", "true");
    }
  }
  report();
  if (!$("table").hidden) table();
}

// The share found; it depends on the sample type and, in its second half, on the zoom.
function report() {
  const { type, zoomed } = chart;
  const out = $("found");
  if (!state.found) {
    chart.setHits(null);
    out.textContent = $("term").hasAttribute("aria-invalid") ? "not a regular expression" : "";
    return;
  }
  Object.assign(state.found, search(data, type, state.found.matches, zoomed));
  const { frames, sum, within, hit } = state.found;
  chart.setHits(hit);
  if (!frames.length) {
    out.textContent = "nothing found in " + type.name;
    return;
  }
  const rest = " · " + amount(sum, type.unit) + " · " + frames.length + (frames.length === 1 ? " frame" : " frames");
  const inner = zoomed ? " · " + share(within, type.cum[zoomed]) + " of the zoomed frame" : "";
  out.replaceChildren(element("b", share(sum, type.total) + " of " + type.name), rest + inner);
}

function step(direction) {
  const frames = (state.found?.frames ?? []).filter((i) => chart.reachable(i));
  if (!frames.length) return;
  const at = frames.indexOf(chart.selected);
  select(frames[(at < 0 ? (direction > 0 ? 0 : frames.length - 1) : at + direction + frames.length) % frames.length]);
}

function findEverywhere(name) {
  $("term").value = name;
  $("regex").setAttribute("aria-pressed", "false");
  runSearch();
}

// --- the table of functions ----------------------------------------------------------------------

function table() {
  const { type } = chart;
  const { flatOf, cumOf, total } = type;
  const order = data.functions.map((_, i) => i).filter((i) => cumOf[i] > 0 && i !== data.owner[0]);
  const byName = (a, b) => (data.functions[a].name < data.functions[b].name ? -1 : 1);
  order.sort({
    flat: (a, b) => flatOf[b] - flatOf[a] || cumOf[b] - cumOf[a] || byName(a, b),
    cum: (a, b) => cumOf[b] - cumOf[a] || flatOf[b] - flatOf[a] || byName(a, b),
    name: byName,
  }[state.sort]);
  let sum = 0;
  const sums = new Map(order.map((i) => [i, (sum += flatOf[i])]));
  const wanted = state.found?.hit ? order.filter((i) => state.found.hit[i]) : order;
  const shown = state.all ? wanted : wanted.slice(0, ROWS);
  $("rows").replaceChildren(...shown.map((i) => {
    const f = data.functions[i];
    const row = element("tr");
    const flat = element("td", share(flatOf[i], total), { className: "bar" });
    const cum = element("td", share(cumOf[i], total), { className: "bar" });
    flat.style.backgroundSize = (100 * flatOf[i]) / total + "%";
    cum.style.backgroundSize = (100 * cumOf[i]) / total + "%";
    const name = element("td");
    name.dataset.kind = f.kind;
    const button = element("button", f.name, { type: "button", title: "Find in the flame graph" });
    button.addEventListener("click", () => {
      findEverywhere(f.name);
      show("graph");
      step(1);
      graph.focus();
    });
    name.append(button, " ", element("small", source(f)));
    const plain = (value) => element("td", amount(value, type.unit), { className: "amount" });
    row.append(plain(flatOf[i]), flat,
      element("td", share(sums.get(i), total), { className: "sum" }), plain(cumOf[i]), cum, name);
    return row;
  }));
  $("more").hidden = shown.length === wanted.length;
  $("more").firstElementChild.textContent = shown.length + " of " + wanted.length + " functions";
  for (const button of document.querySelectorAll("[data-sort]")) {
    const th = button.parentElement;
    if (button.dataset.sort === state.sort) th.setAttribute("aria-sort", state.sort === "name" ? "ascending" : "descending");
    else th.removeAttribute("aria-sort");
  }
}

function show(view) {
  const graphShown = view === "graph";
  graph.hidden = !graphShown;
  $("where").hidden = $("details").hidden = !graphShown;
  $("table").hidden = graphShown;
  $("show-graph").setAttribute("aria-pressed", String(graphShown));
  $("show-table").setAttribute("aria-pressed", String(!graphShown));
  if (graphShown) chart.layout();
  else table();
}

// --- sample type, theme, head --------------------------------------------------------------------

function setType(index) {
  chart.setType(index);
  const { type } = chart;
  graph.dataset.type = type.name;
  graph.setAttribute("aria-label", "Flame graph of " + type.name);
  $("empty").hidden = type.total > 0;
  $("empty").textContent = "This profile has no samples of type " + type.name + ".";
  select(type.cum[chart.selected] > 0 ? chart.selected : chart.zoomed);
  crumbs();
  report();
  if (!$("table").hidden) table();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
  chart.setTheme(theme);
}

function toggleTheme() {
  state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(state.theme);
}

function head() {
  document.title = data.title;
  $("title").textContent = data.title;
  $("facts").textContent = [...data.facts, ...data.notes].join(" · ");
  for (const item of $("legend").children) {
    item.hidden = !data.functions.some((f, i) => i !== data.owner[0] && f.kind === Number(item.dataset.kind));
  }
  if (data.notes.length) {
    $("notes").append(element("h3", "About this profile"), ...data.notes.map((note) => element("p", note)));
  }
  data.types.forEach((type, i) => {
    const label = element("label", type.name);
    const input = element("input", undefined, { type: "radio", name: "type", value: String(i), checked: i === data.type });
    input.addEventListener("change", () => setType(i));
    label.prepend(input);
    $("types").append(label);
  });
}

// --- events --------------------------------------------------------------------------------------

function point(event) {
  const box = $("canvas").getBoundingClientRect();
  return chart.at(event.clientX - box.left, event.clientY - box.top);
}

function tip(event, node) {
  const box = $("tip");
  box.hidden = node < 0;
  if (node < 0) return;
  const f = functionOf(node);
  const { type } = chart;
  const [name, numbers, where] = box.children;
  name.textContent = f.name;
  numbers.textContent = "cum " + values(type, type.cum[node]) + " · flat " + values(type, type.flat[node]);
  where.textContent = source(f);
  const x = event.clientX + 14;
  const y = event.clientY + 16;
  const { offsetWidth: w, offsetHeight: h } = box;
  box.style.left = Math.max(4, x + w > innerWidth ? innerWidth - w - 4 : x) + "px";
  box.style.top = (y + h > innerHeight ? event.clientY - h - 10 : y) + "px";
}

function pointers() {
  const canvas = $("canvas");
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const node = point(event);
    chart.hover(node);
    canvas.style.cursor = node < 0 ? "default" : "pointer";
    tip(event, node);
  });
  const leave = () => {
    chart.hover(-1);
    $("tip").hidden = true;
  };
  canvas.addEventListener("pointerleave", leave);
  graph.addEventListener("scroll", leave, { passive: true });
  canvas.addEventListener("click", (event) => {
    const node = point(event);
    $("tip").hidden = true;
    if (node < 0) return;
    chart.selected = node;
    zoom(node);
  });
}

const GRAPH_KEYS = {
  ArrowUp: () => select(chart.parentOf(chart.selected)),
  ArrowDown: () => select(chart.childOf(chart.selected)),
  ArrowLeft: () => select(chart.besides(chart.selected, -1)),
  ArrowRight: () => select(chart.besides(chart.selected, 1)),
  Home: () => select(0),
  Enter: () => zoom(chart.selected),
  " ": () => zoom(chart.selected),
  Backspace: () => zoom(chart.parentOf(chart.zoomed)),
};

const PAGE_KEYS = {
  Escape: () => (chart.zoomed ? zoom(0) : clearSearch()),
  "/": () => focusSearch(),
  "?": () => $("keys").showModal(),
  n: () => step(1),
  p: () => step(-1),
  t: toggleTheme,
  v: () => show(graph.hidden ? "graph" : "table"),
};

function focusSearch() {
  $("term").focus();
  $("term").select();
}

function clearSearch() {
  $("term").value = "";
  runSearch();
}

function keys() {
  document.addEventListener("keydown", (event) => {
    if ($("keys").open) return;
    const typing = event.target === $("term");
    if ((event.ctrlKey || event.metaKey) && event.key === "f" && !event.altKey && !event.shiftKey) {
      if (typing) return; // the second time is for the browser's own search
      event.preventDefault();
      focusSearch();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const graphKey = !graph.hidden && (event.target === graph || event.target === document.body) && GRAPH_KEYS[event.key];
    const act = graphKey || PAGE_KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    if (graphKey) graph.focus();
    act();
  });
  $("term").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      step(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      event.preventDefault();
      clearSearch();
      graph.focus();
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      graph.focus();
    }
  });
}

function controls() {
  $("search").addEventListener("submit", (event) => event.preventDefault());
  $("term").addEventListener("input", runSearch);
  $("regex").addEventListener("click", () => {
    $("regex").setAttribute("aria-pressed", String($("regex").getAttribute("aria-pressed") !== "true"));
    runSearch();
  });
  $("reset").addEventListener("click", () => {
    zoom(0);
    graph.focus();
  });
  $("zoom").addEventListener("click", () => zoom(chart.selected));
  $("same").addEventListener("click", () => findEverywhere(functionOf(chart.selected).name));
  $("show-graph").addEventListener("click", () => show("graph"));
  $("show-table").addEventListener("click", () => show("table"));
  $("all-rows").addEventListener("click", () => {
    state.all = true;
    table();
  });
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      state.sort = button.dataset.sort;
      table();
    });
  }
  $("theme").addEventListener("click", toggleTheme);
  $("help").addEventListener("click", () => $("keys").showModal());
  graph.addEventListener("focus", () => chart.paint());
  graph.addEventListener("blur", () => chart.paint());
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const preferred = () => state.theme ?? (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => setTheme(preferred()));
  addEventListener("beforeprint", () => setTheme("light")); // paper is white
  addEventListener("afterprint", () => setTheme(preferred()));
  setTheme(preferred());
}

head();
controls();
pointers();
keys();
setType(data.type);

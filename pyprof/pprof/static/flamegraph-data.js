// The profile of the page: decoding, totals, search and numbers as text. Touches no part of the document.
//
// Nodes come in depth-first order: the subtree of node i is the range [i, end[i]), and a loop over
// all nodes meets every parent before its children. Node 0 is the root, "all", and always there. No function here recurses: stacks may be deep.

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

// Control characters and direction overrides could make one name look like another: show their codes.
function visible(text) {
  return text.replace(UNSEEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function decode(raw) {
  const strings = raw.strings.map(visible);
  const [name, file, line, kind] = raw.functions;
  const functions = name.map((text, i) => ({
    name: strings[text],
    file: strings[file[i]],
    line: line[i],
    kind: kind[i],
    shade: hash(strings[text]),
  }));
  const [depths, owners, ...flats] = raw.nodes;
  const count = depths.length;
  const depth = Uint32Array.from(depths);
  const owner = Uint32Array.from(owners);
  const parent = new Int32Array(count).fill(-1);
  const end = new Int32Array(count);
  const path = [];
  for (let i = 0; i < count; i++) {
    path.length = depth[i];
    if (path.length) parent[i] = path[path.length - 1];
    path.push(i);
  }
  for (let i = count - 1; i >= 0; i--) {
    end[i] = Math.max(end[i], i + 1);
    if (parent[i] >= 0) end[parent[i]] = Math.max(end[parent[i]], end[i]);
  }
  const tree = { count, depth, owner, parent, end, functions };
  const types = raw.types.map(([type, unit], t) => ({ name: strings[type], unit: strings[unit],
    ...columns(tree, Float64Array.from(flats[t])) }));
  return { ...tree, types, type: raw.type, title: visible(raw.title), facts: raw.facts.map(visible),
    notes: raw.notes.map(visible), lines: raw.lines };
}

// The lines of a function that the samples hit, the largest cum of `type` first: [{line, flat, cum}].
function linesOf(data, type, owner) {
  const [owners, lines, ...values] = data.lines;
  const index = data.types.indexOf(type);
  const found = [];
  for (let i = 0; i < owners.length; i++) {
    if (owners[i] !== owner) continue;
    found.push({ line: lines[i], flat: values[2 * index][i], cum: values[2 * index + 1][i] });
  }
  return found.filter((l) => l.cum > 0).sort((a, b) => b.cum - a.cum || a.line - b.line);
}

// Flat values of one sample type -> cum values, left edges, and the totals of every function.
function columns(tree, flat) {
  const { count, depth, owner, parent, functions } = tree;
  const cum = Float64Array.from(flat);
  for (let i = count - 1; i > 0; i--) cum[parent[i]] += cum[i];
  const left = new Float64Array(count);
  const next = new Float64Array(count);
  const flatOf = new Float64Array(functions.length);
  const cumOf = new Float64Array(functions.length);
  const onPath = new Uint32Array(functions.length);
  const path = [];
  for (let i = 0; i < count; i++) {
    if (i) {
      left[i] = next[parent[i]];
      next[parent[i]] += cum[i];
    }
    next[i] = left[i];
    while (path.length > depth[i]) onPath[path.pop()]--;
    flatOf[owner[i]] += flat[i];
    if (onPath[owner[i]]++ === 0) cumOf[owner[i]] += cum[i]; // recursion counts once
    path.push(owner[i]);
  }
  return { flat, cum, left, flatOf, cumOf, total: cum[0] };
}

// A test for function names: plain text or a regular expression; letter case counts if the term has capitals.
function matcher(term, regex) {
  const letters = regex ? term.replace(/\\./g, "") : term;
  const fold = letters === letters.toLowerCase();
  if (regex) {
    const expression = new RegExp(term, fold ? "i" : "");
    return (name) => expression.test(name);
  }
  return fold ? (name) => name.toLowerCase().includes(term) : (name) => name.includes(term);
}

// Which functions match, the frames of `type` that do, and what they hold below node `top`.
// A stack with several matching frames counts once: only the outermost one is added.
function search(data, type, matches, top) {
  const hit = Uint8Array.from(data.functions, (f) => (matches(f.name) ? 1 : 0));
  hit[data.owner[0]] = 0; // the root is no function
  const frames = [];
  let sum = 0;
  let within = 0;
  let counted = 0;
  for (let i = 1; i < data.count; i++) {
    if (!hit[data.owner[i]] || type.cum[i] <= 0) continue;
    frames.push(i);
    if (i < counted) continue;
    counted = data.end[i];
    sum += type.cum[i];
    if (i >= top && i < data.end[top]) within += type.cum[i];
    else if (i < top && top < data.end[i]) within = type.cum[top];
  }
  return { hit, frames, sum, within };
}

function hash(text) {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return (h ^ (h >>> 15)) >>> 0;
}

function share(value, total) {
  return total > 0 ? ((100 * value) / total).toFixed(1) + " %" : "–";
}

const SCALES = {
  nanoseconds: [[3600e9, "h"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],
  bytes: [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
};
const IN_NANOSECONDS = { microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };

function amount(value, unit) {
  if (unit in IN_NANOSECONDS) [value, unit] = [value * IN_NANOSECONDS[unit], "nanoseconds"];
  const scales = value ? SCALES[unit] : undefined;
  if (!scales) return value.toLocaleString("en") + (value && unit && unit !== "count" ? " " + unit : "");
  const [factor, symbol] = scales.find(([f]) => value >= f) ?? scales[scales.length - 1];
  const scaled = value / factor;
  const digits = factor === 1 || scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2;
  return scaled.toFixed(digits) + " " + symbol;
}

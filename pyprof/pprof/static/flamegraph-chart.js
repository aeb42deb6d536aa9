// The picture: frames on a canvas that is as large as its viewport, whatever the size of the profile.
// Only frames that can be seen are painted: subtrees narrower than NARROW or outside the view are skipped whole.

const NARROW = 0.3; // CSS pixels; a frame narrower than this cannot be seen
const ZOOM_MS = 160;

// Fills by kind of code (see KIND_* in flamegraph.py) and the colour of the text on them.
const PALETTES = {
  light: {
    text: "#241a10",
    fills: [
      ["#dcd8d2", "#d4d0ca", "#e2dfd9"],
      ["#ffb454", "#ffa94d", "#ffc078", "#f9a65a", "#ffbd66", "#fb9f6b"],
      ["#8fd0d8", "#7cc4dc", "#9ad8cf", "#86c8c8", "#a2d4e6", "#8ac0e0"],
      ["#c6bfe6", "#bbb4e0", "#d2c8ea", "#b8bce6", "#cdb9de", "#c0c6ec"],
    ],
    match: "#c2185b",
    matchText: "#ffffff",
    dim: "#e9e6e1",
    dimText: "#5f5a53",
    sliver: "#cfc9c1",
    hover: "#00000038",
    ring: "#111111",
  },
  dark: {
    text: "#fff6ec",
    fills: [
      ["#4b4a50", "#454449", "#525157"],
      ["#994a18", "#9a4b18", "#9c4a1e", "#9d481e", "#954f16", "#955019"],
      ["#1d6b7a", "#22688a", "#196c6b", "#256a76", "#1a6590", "#286a78"],
      ["#5b5392", "#63589c", "#534f8c", "#5a5aa0", "#6b5490", "#4f5896"],
    ],
    match: "#ff7eb6",
    matchText: "#1c0a13",
    dim: "#2e2d32",
    dimText: "#aaa6a0",
    sliver: "#46444b",
    hover: "#ffffff40",
    ring: "#ffffff",
  },
};

class Chart {
  constructor(data, viewport, spacer, canvas) {
    Object.assign(this, { data, viewport, spacer, canvas });
    this.context = canvas.getContext("2d");
    this.type = data.types[data.type];
    this.zoomed = 0;
    this.selected = 0;
    this.hovered = -1;
    this.hit = null;
    this.theme = "light";
    this.widths = new Map();
    this.view = [0, this.type.total]; // the values at the left and the right edge
    viewport.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(viewport);
  }

  // Sizes that follow from the style sheet and the window.
  layout() {
    const style = getComputedStyle(this.viewport);
    this.row = parseFloat(style.getPropertyValue("--row"));
    this.font = style.getPropertyValue("--frame-font").trim();
    this.gap = style.backgroundColor;
    this.width = this.viewport.clientWidth;
    this.height = this.viewport.clientHeight;
    const ratio = Math.max(1, window.devicePixelRatio || 1);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.width = this.width + "px";
    this.canvas.style.height = this.height + "px";
    this.context.setTransform(this.canvas.width / this.width, 0, 0, this.canvas.height / this.height, 0, 0);
    this.widths.clear();
    this.fit();
    this.draw(); // at once: setting its size has cleared the canvas
  }

  // Room for the deepest frame below the zoomed one that is wide enough to be seen.
  fit() {
    const { depth, end } = this.data;
    const [from, to] = this.target();
    const least = (NARROW * (to - from)) / Math.max(1, this.width);
    let deepest = depth[this.zoomed];
    for (let i = this.zoomed; i < end[this.zoomed]; ) {
      if (this.type.cum[i] < least) i = end[i];
      else deepest = Math.max(deepest, depth[i++]);
    }
    this.rows = deepest + 1;
    this.spacer.style.height = Math.max(0, this.rows * this.row - this.height) + "px";
    this.paint();
  }

  target() {
    const { left, cum } = this.type;
    return [left[this.zoomed], left[this.zoomed] + cum[this.zoomed]];
  }

  setType(index) {
    this.type = this.data.types[index];
    while (this.zoomed && !(this.type.cum[this.zoomed] > 0)) this.zoomed = this.data.parent[this.zoomed];
    this.view = this.target();
    this.fit();
  }

  setTheme(theme) {
    this.theme = theme;
    this.layout();
  }

  setHits(hit) {
    this.hit = hit;
    this.paint();
  }

  zoom(node) {
    this.zoomed = node;
    this.fit();
    const from = this.view;
    const to = this.target();
    const top = Math.max(0, (this.data.depth[node] - 2) * this.row);
    const first = this.viewport.scrollTop;
    const last = node === 0 ? 0 : this.data.depth[node] * this.row > this.height / 2 ? top : first;
    cancelAnimationFrame(this.animation);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const begin = performance.now();
    const step = (now) => {
      const t = still ? 1 : Math.min(1, Math.max(0, (now - begin) / ZOOM_MS));
      const eased = 1 - (1 - t) ** 3;
      this.view = t === 1 ? to : from.map((edge, k) => edge + (to[k] - edge) * eased);
      this.viewport.scrollTop = first + (last - first) * eased;
      this.draw();
      if (t < 1) this.animation = requestAnimationFrame(step);
    };
    step(begin);
  }

  select(node) {
    this.selected = node;
    const y = this.data.depth[node] * this.row;
    const { scrollTop } = this.viewport;
    if (y < scrollTop) this.viewport.scrollTop = y;
    else if (y + this.row > scrollTop + this.height) this.viewport.scrollTop = y + this.row - this.height;
    this.paint();
  }

  hover(node) {
    if (node === this.hovered) return;
    this.hovered = node;
    this.paint();
  }

  paint() {
    cancelAnimationFrame(this.painting);
    this.painting = requestAnimationFrame(() => this.draw());
  }

  scale() {
    return this.width / (this.view[1] - this.view[0]);
  }

  // Left edge and width of a frame in CSS pixels, cut to the viewport.
  box(node) {
    const scale = this.scale();
    const x0 = (this.type.left[node] - this.view[0]) * scale;
    const x1 = x0 + this.type.cum[node] * scale;
    return [Math.max(0, x0), Math.min(this.width, x1), x1 - x0];
  }

  // Whether keys can reach the frame: it is painted when its row is scrolled into view.
  reachable(node) {
    if (this.type.total <= 0) return false;
    const [x0, x1, width] = this.box(node);
    return width >= NARROW && x1 - x0 > 1e-6 * this.width;
  }

  draw() {
    const { data, type, context, row, width, height } = this;
    if (!width || !height) return;
    const { depth, end, owner } = data;
    const palette = PALETTES[this.theme];
    const scroll = this.viewport.scrollTop;
    const scale = this.scale();
    const from = this.view[0];
    const first = Math.floor(scroll / row) - 1;
    const last = Math.ceil((scroll + height) / row);
    const zoomDepth = depth[this.zoomed];
    context.clearRect(0, 0, width, height);
    this.canvas.dataset.frames = "0";
    if (!(type.total > 0)) return;
    context.font = this.font;
    context.textBaseline = "middle";
    context.direction = "ltr";
    this.painted = 0;
    const slivers = new Map(); // row -> [left, right] of a run of frames too narrow to tell apart
    const flush = (d, run) => {
      context.fillStyle = palette.sliver;
      context.fillRect(run[0], d * row - scroll, Math.max(0.5, run[1] - run[0]), row - 1);
    };
    for (let i = 0; i < data.count; ) {
      const d = depth[i];
      const x = (type.left[i] - from) * scale;
      const w = type.cum[i] * scale;
      if (d > last || w <= 0 || x + w <= 0 || x >= width) {
        i = end[i];
        continue;
      }
      if (w < NARROW) {
        if (d > first) {
          const run = slivers.get(d);
          if (run && x - run[1] < 0.5) run[1] = x + w;
          else {
            if (run) flush(d, run);
            slivers.set(d, [x, x + w]);
          }
        }
        i = end[i];
        continue;
      }
      if (d > first) this.frame(i, Math.max(0, x), Math.min(width, x + w), d * row - scroll, palette,
        d < zoomDepth, this.hit && this.hit[owner[i]]);
      i++;
    }
    for (const [d, run] of slivers) flush(d, run);
    this.mark(this.hovered, palette.hover, scroll, true);
    if (this.viewport.matches(":focus-visible")) this.mark(this.selected, palette.ring, scroll, false);
    else if (this.selected) this.mark(this.selected, palette.ring, scroll, false, 1);
    this.canvas.dataset.frames = String(this.painted);
  }

  frame(node, x0, x1, y, palette, above, hit) {
    const { context, row, data } = this;
    const f = data.functions[data.owner[node]];
    const whole = node ? f.name : f.name + "   " + amount(this.type.total, this.type.unit);
    const shades = palette.fills[f.kind];
    const dim = !hit && (above || this.hit);
    context.fillStyle = hit ? palette.match : dim ? palette.dim : shades[f.shade % shades.length];
    const w = x1 - x0;
    context.fillRect(x0, y, w > 3 ? w - 1 : w > 1 ? w - 0.3 : w, row - 1); // the background shows as the gap
    this.painted++;
    if (w < 24) return;
    const label = this.label(whole, w - 10);
    if (!label) return;
    context.fillStyle = hit ? palette.matchText : dim ? palette.dimText : palette.text;
    context.fillText(label, x0 + 5, y + row / 2);
    if (!node || label !== whole) return;
    const part = share(this.type.cum[node], this.type.total);
    const start = this.measure(label) + 18;
    if (start + this.measure(part) > w - 6) return;
    context.globalAlpha = dim ? 1 : 0.85;
    context.fillText(part, x0 + start, y + row / 2);
    context.globalAlpha = 1;
  }

  // An outline or a veil over one frame; at least 4 px wide, so that it can be seen on a narrow one.
  mark(node, colour, scroll, veil, line = 2) {
    if (node < 0 || !(this.type.cum[node] > 0)) return;
    const { context, row } = this;
    const [x0, x1, width] = this.box(node);
    if (x1 <= x0) return;
    const y = this.data.depth[node] * row - scroll;
    const w = Math.max(4, width > 3 ? x1 - x0 - 1 : x1 - x0);
    if (veil) {
      context.fillStyle = colour;
      context.fillRect(x0, y, w, row - 1);
      return;
    }
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x0 + line / 2, y + line / 2, w - line, row - 1 - line);
  }

  measure(text) {
    let width = this.widths.get(text);
    if (width === undefined) this.widths.set(text, (width = this.context.measureText(text).width));
    return width;
  }

  // The most telling form of a name that fits: whole, without leading packages and classes, or cut short.
  label(name, room) {
    if (this.measure(name) <= room) return name;
    let short = name;
    for (let dot = short.indexOf("."); dot > 0 && dot < short.length - 1; dot = short.indexOf(".")) {
      short = short.slice(dot + 1);
      if (this.measure(short) <= room) return short;
    }
    const letters = Array.from(short);
    const fits = Math.floor((letters.length * room) / this.measure(short)) - 1;
    return fits >= 2 ? letters.slice(0, fits).join("") + "…" : "";
  }

  // The frame under a point of the viewport (CSS pixels), or -1.
  at(x, y) {
    const { depth, end, count } = this.data;
    const { left, cum, total } = this.type;
    if (!(total > 0)) return -1;
    const level = Math.floor((y + this.viewport.scrollTop) / this.row);
    const value = this.view[0] + x / this.scale();
    for (let i = 0; i < count; ) {
      if (value < left[i] || value >= left[i] + cum[i]) i = end[i];
      else if (depth[i] === level) return i;
      else i++;
    }
    return -1;
  }

  parentOf(node) {
    return node ? this.data.parent[node] : -1;
  }

  // The largest child that can be seen, or -1.
  childOf(node) {
    const { end } = this.data;
    let best = -1;
    for (let c = node + 1; c < end[node]; c = end[c]) {
      if (best < 0 || this.type.cum[c] > this.type.cum[best]) best = c;
    }
    return best >= 0 && this.reachable(best) ? best : -1;
  }

  // The next frame to the right (step 1) or to the left (-1) on the same level that can be seen, or -1.
  besides(node, step) {
    const { depth, count } = this.data;
    for (let i = node + step; i >= 0 && i < count; i += step) {
      if (depth[i] === depth[node] && this.reachable(i)) return i;
    }
    return -1;
  }
}

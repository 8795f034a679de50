/**
 * A chart: uPlot's axes and selection, our lines, marks and cursor.
 *
 * Drag to zoom, double-click to see all again. With the keyboard: arrows move the cursor,
 * + and - zoom around it, Escape shows all.
 */

import {bounded, decades, even, labels, nice, numbers, overlap, padded, real} from "./axes.js";
import {draw, drawBand, extent, nearest, nearestInX, scaled} from "./lines.js";
import {drawMarks, drawSpans} from "./marks.js";
import {element, short, unzoomed} from "./page.js";
import {Tip} from "./tip.js";

const REACH = 12; // pixels beyond its ends in which a line is still under the cursor
const GUTTER = 86; // for the numbers of y, equal for panels below one another

const inks = () => getComputedStyle(document.body);

export class Chart {
  /**
   * `options`: `label` says what it shows; `height` in pixels at first; `onCursor(t)`,
   * `onZoom(x)` hear of the cursor and of a new [low, high] of x, both as on the axis's scale.
   */
  constructor(options) {
    this.options = options;
    this.words = new Tip();
    this.tip = this.words.root;
    this.rule = element("div", {className: "rule", hidden: true});
    this.dot = element("div", {className: "dot", hidden: true});
    this.plot = element("div", {
      className: "plot",
      tabIndex: 0,
      role: "application",
      "aria-label": `${options.label}. Arrow keys move the cursor, plus and minus zoom, Escape shows all.`,
    });
    this.root = element("figure", {className: "chart"}, this.plot);
    this.plot.addEventListener("keydown", (event) => this.#key(event));
    this.plot.addEventListener("blur", () => this.leave());
    this.content = {lines: [], bands: [], marks: []};
    this.zoom = {x: null, y: null};
    // {t, left, share, mouse}: x on the axis's scale and in pixels, the share of the height
    // from above, and whether it is the mouse's. The keyboard's stays at its x.
    this.cursor = null;
    this.scale = 1; // of the pixels, while a picture is made
    this.followed = null; // where another panel's cursor is
    this.resizing = new ResizeObserver(() => this.#resize());
    this.resizing.observe(this.root);
  }

  /**
   * Show other things. `lines` as in lines.js; `bands`: {low, high, color, alpha}, two
   * lines; `marks` as in marks.js; `xLog`, `yLog`; `xLabel`, `yLabel`; `xRange`,
   * `yRange`: what to show of x and y at first, where not all.
   */
  show(content) {
    const before = this.content;
    const scale = (line) => scaled(line, content.xLog, content.yLog);
    this.content = {
      ...content,
      lines: content.lines.map(scale),
      bands: (content.bands ?? []).map((band) => ({
        ...band,
        low: scale(band.low),
        high: scale(band.high),
      })),
      marks: content.marks ?? [],
    };
    if (content.xLog !== before.xLog) this.zoom.x = null;
    if (content.yLog !== before.yLog) this.zoom.y = null;
    const {cursor, followed} = this;
    const here = cursor?.mouse ? this.plot.matches(":hover") : document.activeElement === this.plot;
    this.#build();
    this.follow(followed);
    // After uPlot's own.
    if (cursor && here) queueMicrotask(() => this.#put(cursor));
    else if (cursor) this.leave();
  }

  /** Zoom to [low, high] of the axes' own scales; null shows all. */
  zoomTo(zoom) {
    Object.assign(this.zoom, zoom);
    this.#rescale();
  }

  /** Put the cursor's rule at x = t, without the box of words. */
  follow(t) {
    this.followed = t;
    this.rule.hidden = t === null || !this.chart;
    if (this.rule.hidden) return;
    const share = (t - this.x[0]) / (this.x[1] - this.x[0]);
    this.rule.hidden = !(share >= 0 && share <= 1);
    this.rule.style.left = `${share * this.chart.over.clientWidth}px`;
  }

  /** Take the cursor away. */
  leave() {
    this.#hide();
    this.options.onCursor?.(null);
  }

  #hide() {
    this.cursor = null;
    this.follow(null);
    this.tip.hidden = this.dot.hidden = true;
  }

  /** The picture of the chart as a canvas. */
  get canvas() {
    return this.chart.ctx.canvas;
  }

  /** Be as high as this, in pixels. */
  grow(height) {
    if (height === this.options.height) return;
    this.options.height = height;
    this.#resize();
  }

  /** The picture in twice the pixels that it has on a plain screen, as a canvas. */
  async sharp() {
    this.scale = 2 / devicePixelRatio;
    this.chart.setSize(this.#size());
    await Promise.resolve(); // uPlot draws in a microtask
    const copy = element("canvas", {width: this.canvas.width, height: this.canvas.height});
    copy.getContext("2d").drawImage(this.canvas, 0, 0);
    this.scale = 1;
    this.chart.setSize(this.#size());
    return copy;
  }

  /** Take more pixels, after uPlot has set their number; all is drawn after this. */
  #scaleUp() {
    if (this.scale === 1) return;
    this.canvas.width *= this.scale;
    this.canvas.height *= this.scale;
    this.chart.ctx.scale(this.scale, this.scale);
  }

  // ---------------------------------------------------------------------- axes

  #build() {
    const size = this.#size(); // with a scrollbar, which may go with the chart before
    this.chart?.destroy();
    const {xLog, yLog, xLabel, yLabel} = this.content;
    this.#ranges();
    const color = inks().getPropertyValue("--ink");
    const grid = {stroke: inks().getPropertyValue("--grid"), width: 1};
    const axis = {
      stroke: color,
      grid,
      ticks: grid,
      font: "12px Roboto, sans-serif",
      labelFont: "12px Roboto, sans-serif",
      labelSize: 18,
      values: (_, splits) => labels(splits),
    };
    const scale = (name, log) => ({
      time: false,
      distr: log ? 3 : 1,
      range: () => real(this[name], log),
    });
    // Where an axis has its lines, and which of them have numbers.
    const lines = (name, log) => ({
      incrs: nice,
      ...(log ? {splits: decades, filter: numbers(name)} : {splits: even}),
    });
    const options = {
      ...size,
      scales: {x: scale("x", xLog), y: scale("y", yLog)},
      series: [{}, {paths: () => null, points: {show: false}}],
      legend: {show: false},
      axes: [
        {
          ...axis,
          ...(xLabel ? {label: xLabel} : {}),
          ...lines("x", xLog),
          size: 30,
        },
        {
          ...axis,
          label: yLabel,
          ...lines("y", yLog),
          space: 22,
          size: GUTTER - axis.labelSize,
        },
      ],
      cursor: {
        x: false,
        y: false,
        points: {show: false},
        drag: {x: true, y: true, uni: 20, setScale: false},
        bind: {
          dblclick: () => () => this.#zoomed({x: null, y: null}),
          mousedown: unzoomed,
          mousemove: unzoomed,
          mouseup: unzoomed,
        },
      },
      hooks: {
        draw: [() => this.#draw()],
        setSize: [() => this.#scaleUp()],
        setCursor: [(u) => this.#pointer(u)],
        setSelect: [(u) => this.#selected(u)],
      },
    };
    const data = [real(this.x, xLog), real(this.y, yLog)];
    this.chart = new window.uPlot(options, data, this.plot);
    this.chart.over.append(this.rule, this.dot, this.tip);
    this.#hide();
  }

  #size() {
    return {width: Math.max(200, this.root.clientWidth || 600), height: this.options.height};
  }

  #resize() {
    if (!this.chart || !this.root.clientWidth) return;
    this.chart.setSize(this.#size());
    queueMicrotask(() => this.#again()); // after uPlot's own
  }

  /** What of x and y is seen, on the axes' own scales. */
  #ranges() {
    const {lines, xRange, yRange, xLog, yLog} = this.content;
    const first = (range, log) => {
      const ends = range?.map((v) => (log ? Math.log10(v) : v));
      return ends?.every(Number.isFinite) ? ends : null;
    };
    const all = (axis, within) => extent(lines, axis, within);
    const {x, y} = this.zoom;
    this.x = bounded(x ?? padded(first(xRange, xLog) ?? all("x") ?? [0, 1], 0.01), xLog);
    const part = first(yRange, yLog);
    const seen = x ? all("y", x) : null; // of a part of x, what is there
    const whole = seen ? padded(overlap(seen, part), 0.05) : part;
    this.y = bounded(y ?? whole ?? padded(all("y") ?? [0, 1], 0.05), yLog);
  }

  #rescale() {
    if (!this.chart) return;
    this.#ranges();
    const {xLog, yLog} = this.content;
    this.chart.setData([real(this.x, xLog), real(this.y, yLog)]);
    this.#again();
  }

  /** Put the cursor where it belongs after the axes have changed. */
  #again() {
    if (this.cursor) this.#put(this.cursor);
    else this.follow(this.followed);
  }

  /** From places on the axes' own scales to pixels: of the canvas, or of the page. */
  #at(left, top, width, height) {
    const [x, y] = [this.x, this.y];
    return {
      x: (t) => left + ((t - x[0]) / (x[1] - x[0])) * width,
      y: (t) => top + ((y[1] - t) / (y[1] - y[0])) * height,
    };
  }

  // ---------------------------------------------------------------------- picture

  #draw() {
    const context = this.chart.ctx;
    const {left, top, width, height} = this.chart.bbox;
    const at = this.#at(left, top, width, height);
    const ratio = devicePixelRatio;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    const {marks, xLog, yLog} = this.content;
    const scale = (log) => (v) => (log ? Math.log10(v) : v);
    const [tx, ty] = [scale(xLog), scale(yLog)];
    const valueAt = {x: (v) => at.x(tx(v)), y: (v) => at.y(ty(v))};
    drawSpans(context, marks, valueAt, this.chart.bbox);
    for (const band of this.content.bands) drawBand(context, band, at);
    for (const line of this.content.lines) draw(context, line, at, ratio);
    drawMarks(context, marks, valueAt, this.chart.bbox, ratio);
    context.restore();
  }

  // ---------------------------------------------------------------------- cursor

  #selected(u) {
    const {left, top, width, height} = u.select;
    if (width > 4 || height > 4) {
      const over = u.over;
      const [x, y] = [this.x, this.y];
      const part = ([low, high], a, b) => [low + a * (high - low), low + b * (high - low)];
      const zoom = {};
      if (width > 4 && width < over.clientWidth) {
        zoom.x = part(x, left / over.clientWidth, (left + width) / over.clientWidth);
      }
      if (height > 4 && height < over.clientHeight) {
        const bottom = 1 - (top + height) / over.clientHeight;
        zoom.y = part(y, bottom, 1 - top / over.clientHeight);
      }
      this.#zoomed(zoom);
    }
    if (width || height) u.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
  }

  #zoomed(zoom) {
    this.zoomTo(zoom);
    if ("x" in zoom) this.options.onZoom?.(zoom.x);
  }

  #pointer(u) {
    const {left, top} = u.cursor;
    if (left < 0 || left === undefined) {
      if (this.cursor?.mouse) this.leave();
    } else {
      this.#move({left, top, mouse: true});
    }
  }

  /** Put a cursor there again: the mouse is at the same pixel, the keyboard's at its x. */
  #put({t, left, share, mouse}) {
    const {clientWidth: width, clientHeight: height} = this.chart.over;
    const top = share * height;
    const at = ((t - this.x[0]) / (this.x[1] - this.x[0])) * width;
    if (mouse) this.chart.setCursor({left: Math.min(left, width), top});
    else if (at >= -0.5 && at <= width + 0.5) this.#move({left: at, top});
    else this.leave();
  }

  #move({left, top, mouse = false}) {
    const {clientWidth: width, clientHeight: height} = this.chart.over;
    const t = this.x[0] + (left / width) * (this.x[1] - this.x[0]);
    this.cursor = {t, left, share: top / height, mouse};
    this.follow(t);
    this.options.onCursor?.(t);
    const hits = this.#hits(t, top, this.#at(0, 0, width, height));
    this.tip.hidden = this.dot.hidden = hits.length === 0;
    if (hits.length === 0) return;
    const [first] = hits;
    this.dot.style.left = `${first.px}px`;
    this.dot.style.top = `${first.py}px`;
    this.dot.style.background = first.line.color;
    const inside = first.px >= 0 && first.px <= width && first.py >= 0 && first.py <= height;
    this.dot.hidden = !inside;
    this.words.say(hits, this.content.xLabel);
    this.words.place(left, top);
  }

  /** The points under the cursor, the nearest first: {line, i, px, py, distance}. */
  #hits(t, py, at) {
    const hits = [];
    const px = at.x(t);
    for (const line of this.content.lines.filter((line) => line.name)) {
      const [i, distance] = line.ordered
        ? [nearestInX(line, t), 0]
        : nearest(line, at, px, py);
      if (i === null || (!line.ordered && distance > (3 * REACH) ** 2)) continue;
      const hit = {line, i, px: at.x(line.tx[i]), py: at.y(line.ty[i]), distance};
      if (line.ordered) {
        hit.distance = (hit.py - py) ** 2;
        const ends = [line.tx.find((v) => !Number.isNaN(v)), line.tx.at(-1)];
        const [low, high] = ends.map((v) => at.x(v));
        if (px < low - REACH || px > high + REACH) continue;
      }
      hits.push(hit);
    }
    return hits.sort((one, other) => one.distance - other.distance);
  }

  #key(event) {
    const {clientWidth: width, clientHeight: height} = this.chart.over;
    const {left, share} = this.cursor ?? {left: width / 2, share: 0.5};
    const top = share * height;
    const far = event.shiftKey ? 0.1 : 0.01;
    const moves = {
      ArrowLeft: [-far * width, 0],
      ArrowRight: [far * width, 0],
      ArrowUp: [0, -far * height],
      ArrowDown: [0, far * height],
    };
    const between = (v, most) => Math.min(Math.max(v, 0), most);
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      this.#move({left: between(left + dx, width), top: between(top + dy, height)});
    } else if (event.key === "+" || event.key === "=" || event.key === "-") {
      const factor = event.key === "-" ? 2 : 0.5;
      const t = this.x[0] + (left / width) * (this.x[1] - this.x[0]);
      this.#zoomed({x: this.x.map((end) => t + (end - t) * factor)});
    } else if (event.key === "Escape") {
      this.#zoomed({x: null, y: null});
    } else {
      return;
    }
    event.preventDefault();
  }
}

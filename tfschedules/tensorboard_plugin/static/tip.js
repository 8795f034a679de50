/** The box of words at the cursor: what is near it, from top to bottom. */

import {element, short, zoomOf} from "./page.js";

const MOST_NAMED = 12; // lines: those nearest to the cursor
const BESIDE = 14; // pixels from the cursor
const EDGE = 4; // pixels to the ends of what is seen

export class Tip {
  constructor() {
    this.root = element("div", {className: "tip", role: "status", hidden: true});
  }

  /**
   * Say what is at the cursor. `hits` are {line, i, py, distance}, the nearest first;
   * `xLabel` names x where the line has no words of its own.
   */
  say(hits, xLabel) {
    const [{line, i}] = hits;
    const near = hits.slice(0, MOST_NAMED);
    const rows = near
      .toSorted((one, other) => one.py - other.py) // as they lie in the picture
      .map((hit) => this.#row(hit, hit === hits[0], line.x[i]));
    const more = hits.length - near.length;
    const words = line.words?.(i) ?? `${xLabel} ${short(line.x[i], 6)}`;
    this.root.replaceChildren(element("div", {}, words), ...rows);
    if (more > 0) this.root.append(element("div", {}, `and ${more} more`));
  }

  #row({line, i}, nearest, x) {
    return element(
      "div",
      {className: nearest ? "near" : ""},
      element("span", {className: "swatch", style: `background:${line.color}`}),
      element("b", {}, short(line.y[i])),
      element("bdi", {}, ` ${line.name}`),
      line.x[i] === x ? "" : ` at ${short(line.x[i])}`,
    );
  }

  /** Put the box beside a place of its parent, where all of it is seen. */
  place(left, top) {
    const {root} = this;
    const zoom = zoomOf(root);
    const boxOf = (one) => {
      const {left, top, right, bottom, width, height} = one.getBoundingClientRect();
      const all = {left, top, right, bottom, width, height};
      return Object.fromEntries(Object.entries(all).map(([name, v]) => [name, v / zoom]));
    };
    root.style.left = root.style.top = "0";
    const [own, parent] = [root, root.offsetParent].map(boxOf);
    const area = boxOf(root.closest("main") ?? document.body);
    const right = left + BESIDE;
    const fits = parent.left + right + own.width <= area.right - EDGE;
    const x = fits ? right : left - BESIDE - own.width;
    const least = area.left - parent.left + EDGE;
    const lowest = Math.min(area.bottom, innerHeight / zoom) - parent.top - own.height - EDGE;
    const highest = area.top - parent.top + EDGE;
    root.style.left = `${Math.max(x, least)}px`;
    root.style.top = `${Math.max(Math.min(top, lowest), highest)}px`;
  }
}

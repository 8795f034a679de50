/** The X–Y plot: any scalar against any scalar of the same run. */

import {Chart} from "./chart.js";
import {withoutDivergence} from "./divergence.js";
import {downloads} from "./download.js";
import {checkBox, choice, element, short, slider} from "./page.js";
import {smooth} from "./smoothing.js";

const STEP = "step";
const TIME = "seconds since the run began";
const FEW = 0.02; // the share of a run's points at either end that may be left out of x
const EMPTY = 1; // decades, with next to nothing in them
const FIRST = ["schedule/learning_rate", "schedule/loss"];

/**
 * [low, high] of x without decades in which there is next to nothing: a rate that ends near
 * 0 goes through many of them in its last steps. `null` where that leaves out nothing much.
 */
function decadesOf(lines) {
  const ends = [];
  for (const {x} of lines) {
    const seen = Float64Array.from(x.filter((v) => v > 0 && Number.isFinite(v))).sort();
    if (seen.length === 0) continue;
    const at = (share) => seen[Math.round(share * (seen.length - 1))];
    ends.push([at(0), at(FEW), at(1 - FEW), at(1)].map(Math.log10));
  }
  if (ends.length === 0) return null;
  const least = (i) => Math.min(...ends.map((own) => own[i]));
  const most = (i) => Math.max(...ends.map((own) => own[i]));
  const [whole, part] = [most(3) - least(0), most(2) - least(1)];
  if (!(part > 0 && whole > EMPTY + part)) return null;
  // Only ends that are far away are cut off.
  const low = least(1) - least(0) > EMPTY / 2 ? least(1) : least(0);
  const high = most(3) - most(2) > EMPTY / 2 ? most(2) : most(3);
  return [10 ** low, 10 ** high];
}

/** Whether it spans decades, as rates do. */
const isRate = (tag) => tag.includes("learning_rate");

/**
 * y over x where both are known. x was perhaps kept at other steps than y: between two
 * of its steps it is read off the line between them, before and after them it is not.
 */
export function pairs(x, y) {
  const found = {x: new Float64Array(y.steps.length), between: 0};
  let [place, begin, end] = [0, 0, 0];
  for (let i = 0; i < y.steps.length; i++) {
    const step = y.steps[i];
    while (place < x.steps.length && x.steps[place] < step) place++;
    if (place === x.steps.length) break;
    if (x.steps[place] === step) {
      found.x[i] = x.values[place];
    } else if (place > 0) {
      const [a, b] = [place - 1, place];
      const share = (step - x.steps[a]) / (x.steps[b] - x.steps[a]);
      found.x[i] = x.values[a] + share * (x.values[b] - x.values[a]);
      found.between++;
    } else {
      begin = i + 1;
    }
    end = i + 1;
  }
  const part = (values) => values.subarray(begin, end);
  return {...found, x: part(found.x), y: part(y.values), steps: part(y.steps)};
}

export class Versus {
  name = "X–Y plot";
  key = "versus";
  isHere = (run) => Object.keys(run.scalars).length > 0;
  empty = [
    "There are no scalars in this folder. To see some here, record a training:",
    `import tfschedules as tfs

callbacks = [tfs.OneCycle(max_lr=0.1), tfs.TensorBoardLogger("logs")]
model.fit(x, y, epochs=10, callbacks=callbacks)`,
  ];

  constructor(changed) {
    this.seen = {x: "", y: "", xLog: true, yLog: false, dots: false, all: false, smoothing: 0};
    const set = (name) => (value) => {
      this.seen[name] = value;
      if (name === "x" || name === "y") this.chart.zoom[name] = null;
      if (name === "x") this.xLog.control.checked = this.seen.xLog = isRate(value);
      changed();
    };
    this.xLog = checkBox("log x", true, set("xLog"));
    this.choices = {x: choice("x", set("x")), y: choice("y", set("y"))};
    this.chart = new Chart({label: "One scalar against another", height: 480});
    this.lines = [];
    this.drawn = new Set();
    this.part = {xRange: null, yRange: null}; // what of the axes is shown
    this.pairs = new Map();
    this.root = element(
      "div",
      {},
      element(
        "div",
        {className: "row"},
        this.choices.y.label,
        "against",
        this.choices.x.label,
        this.xLog,
        checkBox("log y", false, set("yLog")),
        checkBox("points", false, set("dots")),
        checkBox("show all", false, set("all")),
        slider("smoothing of y", 0, set("smoothing")),
        downloads("scalars", () => this.#content()),
      ),
      this.chart.root,
    );
  }

  fit(height) {
    this.chart.grow(Math.max(260, height - (this.root.offsetHeight - this.chart.root.offsetHeight)));
  }

  /** Show one scalar of these runs against another. */
  async draw(runs, data) {
    this.#offer(runs);
    const {x, y} = this.seen;
    const names = runs
      .filter(({scalars}) => y in scalars && (x in scalars || x === STEP || x === TIME))
      .map(({run}) => run);
    const curves = (tag) => data.scalars(tag, names);
    const computed = x === STEP || x === TIME;
    const [ys, xs] = await Promise.all([curves(y), computed ? null : curves(x)]);
    return () => this.#show(runs, ys, xs);
  }

  #offer(runs) {
    const tags = [...new Set(runs.flatMap((run) => Object.keys(run.scalars)))].sort();
    const options = tags.map((tag) => [tag, tag]);
    const {seen} = this;
    // What was chosen stays, also while no run that is shown has it.
    const kept = (tag) => (tag && !tags.includes(tag) ? [[tag, `${tag} (in no run shown)`]] : []);
    if (!seen.y) seen.y = tags.includes(FIRST[1]) ? FIRST[1] : (tags[0] ?? "");
    if (!seen.x && tags.length) {
      seen.x = tags.includes(FIRST[0]) ? FIRST[0] : STEP;
      this.xLog.control.checked = seen.xLog = isRate(seen.x);
    }
    const computed = [STEP, TIME].map((name) => [name, name]);
    const missing = computed.some(([name]) => name === seen.x) ? [] : kept(seen.x);
    this.choices.x.set([...computed, ...options, ...missing], seen.x);
    this.choices.y.set([...options, ...kept(seen.y)], seen.y);
  }

  #show(runs, ys, xs) {
    const {x, y, xLog, yLog, dots, smoothing} = this.seen;
    let between = 0;
    const pairOf = (run, own, other) => {
      const key = JSON.stringify([run, x, y]);
      const known = this.pairs.get(key);
      if (known?.own === own) return known.pair; // nothing was read anew
      const pair = pairs(other(), own);
      this.pairs.set(key, {own, pair});
      return pair;
    };
    this.lines = runs
      .filter(({run}) => ys.has(run) && (xs === null || xs.has(run)))
      .map(({run, name, color}) => {
        const own = ys.get(run);
        const times = own.wall_times;
        const computed = {
          [STEP]: () => own.steps,
          [TIME]: () => times.map((time) => time - times[0]),
        };
        const other = () => xs?.get(run) ?? {steps: own.steps, values: computed[x]()};
        const pair = pairOf(run, own, other);
        between += pair.between;
        const words = (i) => `step ${pair.steps[i]}, ${x} ${short(pair.x[i])}`;
        const ordered = pair.x.every((v, i) => i === 0 || v >= pair.x[i - 1]);
        const line = {...pair, color, dots, run, name, words};
        return {...line, alpha: 0.85, ordered: ordered && !dots};
      });
    this.drawn = new Set(this.lines.map(({run}) => run));
    const faint = (line) => ({...line, name: "", alpha: 0.2, width: 1});
    const smoothed = (line) => ({...line, y: smooth(line.y, smoothing), width: 2});
    const lines = smoothing
      ? [...this.lines.map(faint), ...this.lines.map(smoothed)]
      : this.lines;
    const all = this.lines.map((line) => line.y);
    const {range} = this.seen.all ? {range: null} : withoutDivergence(all, yLog);
    this.part = {xRange: xLog && !this.seen.all ? decadesOf(this.lines) : null, yRange: range};
    this.chart.show({lines, xLog, yLog, xLabel: x, yLabel: y, ...this.part});
    return this.#note(between);
  }

  #note(between) {
    const {xLog, yLog} = this.seen;
    const bad = (values, log) => values.filter((v) => !Number.isFinite(v) || (log && v <= 0)).length;
    const lost = this.lines.reduce(
      (sum, line) => sum + Math.max(bad(line.x, xLog), bad(line.y, yLog)),
      0,
    );
    const most = Math.max(0, ...this.lines.map(({steps}) => steps.length));
    const notes = [
      `Up to ${most} points a run. Of a longer run TensorBoard keeps 1000, unless it is started with --samples_per_plugin=scalars=10000; more are not shown.`,
    ];
    if (between) notes.push(`At ${between} points x was not kept, and is read off the line between its neighbours.`);
    const outside = this.#outside();
    if (outside) notes.push(`${outside} points lie outside of the axes: check “show all” to see them.`);
    if (lost) notes.push(`${lost} points are left out: not finite${xLog || yLog ? ", or not positive on a logarithmic axis" : ""}.`);
    return notes.join(" ");
  }

  /** How many points are beyond what the axes show at first. */
  #outside() {
    const {xRange, yRange} = this.part;
    const out = (v, range) => range !== null && (v < range[0] || v > range[1]);
    let count = 0;
    for (const {x, y} of this.lines) {
      for (let i = 0; i < x.length; i++) {
        if (Number.isFinite(y[i]) && (out(x[i], xRange) || out(y[i], yRange))) count++;
      }
    }
    return count;
  }

  #content() {
    const rows = [["run", "step", this.seen.x, this.seen.y]];
    for (const {run, steps, x, y} of this.lines) {
      steps.forEach((step, i) => rows.push([run, step, x[i], y[i]]));
    }
    const legend = this.lines.map(({color, run}) => ({color, name: run}));
    const title = `${this.seen.y} against ${this.seen.x}`;
    return {title, charts: [this.chart], legend, rows};
  }
}

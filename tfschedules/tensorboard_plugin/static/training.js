/** Training: rate, momentum and loss over the steps, in panels under one cursor. */

import {Chart} from "./chart.js";
import {withoutDivergence} from "./divergence.js";
import {downloads} from "./download.js";
import {between, seenOf, whole} from "./extremes.js";
import {arrange, checkBox, choice, element, short, slider} from "./page.js";
import {smooth} from "./smoothing.js";
import {badEnd, isTraining, LOSS, PREFIX, RATE} from "./training_data.js";

// One for each group of layers, after the line of the base rate.
const DASHES = [[6, 3], [2, 2], [10, 3, 2, 3], [12, 4], [1, 3], [6, 2, 2, 2]];
const MOST_WRITTEN = 8; // runs that are not finite, with words beside them
const MOST_SAID = 3; // of them, in the note
const X_LABELS = {step: "step", hours: "hours since the run began"};

// The rates of the compiled optimizer, and those of another one by its name.
const RATES = /^schedule\/(?:[^/]+\/)??learning_rate(?=\/|$)/;

export const panelOf = (tag) => RATES.exec(tag)?.[0] ?? tag;

/** Whose rate it is of the groups of layers; "" for the optimizer's own. */
const groupOf = (tag) => tag.slice(panelOf(tag).length + 1);

const dashOf = (group) => DASHES[group % DASHES.length];

/** The tags of all groups' rates. */
function groupsOf(runs) {
  const tags = new Set(runs.flatMap((run) => Object.keys(run.scalars)));
  return [...tags].filter((tag) => panelOf(tag) !== tag).sort();
}

/** A short line as it is drawn. */
function dashes(pattern) {
  const name = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(name, "svg");
  const line = document.createElementNS(name, "path");
  for (const [key, value] of [["width", 36], ["height", 8]]) picture.setAttribute(key, value);
  line.setAttribute("d", "M0 4H32");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("stroke-width", 1.5);
  line.setAttribute("stroke-dasharray", pattern.join(" "));
  picture.append(line);
  return picture;
}

/** Rates first, the loss last, as one reads them; others by name between. */
function order(panels) {
  const first = [RATE, `${PREFIX}momentum`, `${PREFIX}weight_decay`];
  const place = (tag) => (tag === LOSS ? 9 : first.includes(tag) ? first.indexOf(tag) : 5);
  return [...panels].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}

/** What TensorBoard has kept of the steps, and what of them is drawn. */
function kept(curves) {
  const parts = curves.map(seenOf).filter(({kept, all}) => kept < all);
  if (parts.length === 0) return ["TensorBoard has kept every step."];
  const most = (list) => list.reduce((one, other) => (other.all > one.all ? other : one));
  const seen = parts.filter(({reach}) => reach >= 0);
  const unseen = parts.filter(({reach}) => reach < 0);
  const said = ({kept, all}) =>
    `TensorBoard has kept ${kept} of ${all} steps of a run, chosen at random`;
  const notes = [];
  if (seen.length) {
    const late = seen.filter(({reach, last}) => reach < last).map(({reach}) => reach);
    const until = late.length ? ` up to step ${Math.min(...late)}` : "";
    notes.push(
      `${said(most(seen))}. Of every few steps the lowest and the highest are drawn ` +
        `besides${until}: a spike of one step is seen.`,
    );
  }
  if (unseen.length) {
    notes.push(
      `${said(most(unseen))}${seen.length ? ", without these" : ""}. ` +
        "To see more, up to the 10,000 that are shown here at most, start it with " +
        "--samples_per_plugin=scalars=10000.",
    );
  }
  return notes;
}

export class Training {
  name = "Training";
  key = "training";
  isHere = isTraining;
  empty = [
    "No training with a schedule was recorded in this folder. To see one here, record it:",
    `import tfschedules as tfs

callbacks = [tfs.OneCycle(max_lr=0.1), tfs.TensorBoardLogger("logs")]
model.fit(x, y, epochs=10, callbacks=callbacks)`,
  ];

  constructor(changed) {
    this.seen = {x: "step", logRate: false, logLoss: false, all: false, smoothing: 0.6};
    const set = (name) => (value) => {
      this.seen[name] = value;
      changed();
    };
    const x = choice("over", (value) => {
      for (const panel of this.panels.values()) panel.chart.zoom.x = null;
      set("x")(value);
    });
    x.set([["step", "steps"], ["hours", "hours"]], "step");
    this.panels = new Map(); // from tags to {chart, lines}
    this.place = element("div");
    this.dashes = element("div", {className: "row"});
    this.root = element(
      "div",
      {},
      element(
        "div",
        {className: "row"},
        x.label,
        checkBox("log rate", false, set("logRate")),
        checkBox("log loss", false, set("logLoss")),
        checkBox("show divergence", false, set("all")),
        slider("smoothing of the loss", this.seen.smoothing, set("smoothing")),
        downloads("training", () => this.#content()),
      ),
      this.dashes,
      this.place,
    );
    this.legend = [];
    this.bad = new Map(); // from runs to where their loss is not finite
    this.beyond = []; // losses that go beyond their axis
    this.drawn = new Set();
  }

  /** Share a height among the panels: more for the rate and the loss. */
  fit(height) {
    const share = (tag) => ({[RATE]: 3, [LOSS]: 5})[tag] ?? 2;
    const tags = [...this.panels.keys()];
    const sum = tags.reduce((total, tag) => total + share(tag), 0);
    const rest = height - (this.root.offsetHeight - this.place.offsetHeight) - 4 * tags.length;
    for (const [tag, {chart}] of this.panels) {
      chart.grow(Math.max(tag === LOSS ? 220 : 110, Math.floor((rest * share(tag)) / sum)));
    }
  }

  /** Show what was recorded of these runs. */
  async draw(runs, data) {
    const tags = new Set(runs.flatMap((run) => Object.keys(run.scalars)));
    const ours = [...tags].filter((tag) => tag.startsWith(PREFIX));
    const having = (tag) => runs.filter((run) => tag in run.scalars).map(({run}) => run);
    const wholes = (curves) => new Map([...curves].map(([run, curve]) => [run, whole(curve)]));
    const curvesOf = async (tag) => [tag, wholes(await data.scalars(tag, having(tag)))];
    const found = new Map(await Promise.all(ours.map(curvesOf)));
    return () => {
      this.drawn = new Set([...found.values()].flatMap((curves) => [...curves.keys()]));
      this.legend = runs.filter(({run}) => this.drawn.has(run)).map(({color, run}) => ({color, name: run}));
      this.names = new Map(runs.map(({run, name}) => [run, name]));
      this.bad = this.#bad(found);
      this.wrong = new Map([...this.bad].map(([run, {text}]) => [run, text]));
      this.beyond = [];
      this.#panels(runs, found);
      return this.#note(found);
    };
  }

  /** A Map from runs whose loss is somewhere not finite to where that is. */
  #bad(found) {
    const [losses, rates] = [LOSS, RATE].map((tag) => found.get(tag) ?? new Map());
    const all = [...losses].map(([run, loss]) => [run, badEnd(loss, rates.get(run))]);
    return new Map(all.filter(([, bad]) => bad !== null));
  }

  #panels(runs, found) {
    const panels = order(new Set([...found.keys()].map(panelOf)));
    for (const [tag, panel] of this.panels) {
      if (panels.includes(tag)) continue;
      panel.chart.root.remove();
      this.panels.delete(tag);
    }
    const zoom = this.panels.values().next().value?.chart.zoom.x ?? null;
    const all = new Map([...found].map(([tag, curves]) => [tag, this.#lines(tag, runs, curves)]));
    // One for all panels: steps whose values are not finite belong to it, too.
    const ends = [...all.values()].flat().flatMap(({x}) => [x[0], x.at(-1)]);
    const xRange = [Math.min(...ends), Math.max(...ends)];
    for (const tag of panels) {
      if (!this.panels.has(tag)) this.panels.set(tag, this.#panel(tag, zoom));
      const lines = [...found.keys()]
        .filter((one) => panelOf(one) === tag)
        .sort()
        .flatMap((one) => all.get(one));
      const panel = this.panels.get(tag);
      panel.lines = lines;
      panel.chart.show({
        lines,
        marks: this.#marks(tag, runs, found),
        xRange,
        xLog: false,
        yLog: this.#isLog(tag),
        yRange: tag === LOSS ? this.#withoutDivergence(runs, found.get(LOSS)) : null,
        xLabel: tag === panels.at(-1) ? X_LABELS[this.seen.x] : "",
        yLabel: tag.slice(PREFIX.length).replaceAll("_", " "),
      });
    }
    arrange(this.place, panels.map((tag) => this.panels.get(tag).chart.root));
    this.#legend(groupsOf(runs));
  }

  #isLog(tag) {
    return (RATES.test(tag) && this.seen.logRate) || (tag === LOSS && this.seen.logLoss);
  }

  /** What of y shows the losses, and not how they diverge. */
  #withoutDivergence(runs, losses) {
    const curves = runs.filter(({run}) => losses.has(run)).map(({run}) => losses.get(run).values);
    if (this.seen.all) return null;
    const {range, beyond} = withoutDivergence(curves, this.seen.logLoss);
    this.beyond = beyond.map((i) => curves[i]);
    return range;
  }

  /** Where losses are not finite, on the rate and on the loss. */
  #marks(tag, runs, found) {
    if (tag !== LOSS && tag !== RATE) return [];
    const bad = runs.filter(({run}) => this.bad.has(run) && found.get(tag).has(run));
    return bad.map(({run, color}) => {
      const {i, last, rate, text} = this.bad.get(run);
      const {steps, wall_times: times, values} = found.get(LOSS).get(run);
      const x = this.seen.x === "step" ? steps[i] : (times[i] - times[0]) / 3600;
      const words = bad.length <= MOST_WRITTEN && tag === LOSS ? text : "";
      return {kind: "cross", x, y: tag === RATE ? rate : values[last], color, text: words};
    });
  }

  /** Which dashes are which group's. */
  #legend(groups) {
    const named = groups.map((tag, i) =>
      element("span", {}, dashes(dashOf(i)), element("bdi", {}, groupOf(tag))),
    );
    const first = element("span", {}, dashes([]), "learning rate of the optimizer; by group:");
    this.dashes.replaceChildren(...(named.length ? [first, ...named] : []));
  }

  #panel(tag, zoom) {
    const others = (act) => {
      for (const [key, {chart}] of this.panels) if (key !== tag) act(chart);
    };
    const chart = new Chart({
      label: `${tag.slice(PREFIX.length)} over ${X_LABELS[this.seen.x]}`,
      height: tag === LOSS ? 300 : 190,
      onCursor: (t) => others((chart) => chart.follow(t)),
      onZoom: (x) => others((chart) => chart.zoomTo({x})),
    });
    chart.zoom.x = zoom;
    return {chart, lines: []};
  }

  #lines(tag, runs, curves) {
    const smoothed = (steps, sampled) => {
      const own = smooth(sampled.values, this.seen.smoothing);
      return steps === sampled.steps ? own : between(steps, sampled.steps, own);
    };
    const group = groupOf(tag);
    const dash = group ? dashOf(groupsOf(runs).indexOf(tag)) : [];
    return runs
      .filter(({run}) => curves.has(run))
      .flatMap(({run, name: own, color}) => {
        const {steps, wall_times: times, values, sampled} = curves.get(run);
        const hours = () => times.map((time) => (time - times[0]) / 3600);
        const x = this.seen.x === "step" ? steps : hours();
        const name = group ? `${own}, ${group}` : own;
        const words = (i) => `step ${steps[i]}, ${new Date(times[i] * 1000).toLocaleString()}`;
        const line = {x, y: values, color, dash, ordered: true, name, words, run, tag, steps};
        if (tag !== LOSS || this.seen.smoothing === 0) return [line];
        const curve = {
          ...line,
          y: smoothed(steps, sampled),
          width: 2,
          words: (i) => `${words(i)}, raw ${short(values[i])}`,
        };
        return [{...line, name: "", alpha: 0.3, width: 1}, curve];
      });
  }

  #note(found) {
    const curves = [...found.values()].flatMap((runs) => [...runs.values()]);
    const notes = [];
    if (this.bad.size) {
      const runs = [...this.bad].slice(0, MOST_SAID).map(([run, {text}]) => `${this.names.get(run)}: ${text}`);
      const more = this.bad.size - runs.length;
      notes.push(`The loss is not finite of ${runs.join("; ")}${more ? `; and ${more} more` : ""}.`);
    }
    if (this.beyond.length) {
      const most = this.beyond.flatMap((values) => [...values.filter(Number.isFinite)]);
      const farthest = most.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
      const count = this.beyond.length === 1 ? "One run goes" : `${this.beyond.length} runs go`;
      notes.push(
        `The axis of the loss shows the descent. ${count} on beyond it, as far as ` +
          `${short(farthest, 3)}: check “show divergence” to see that.`,
      );
    }
    notes.push(...kept(curves));
    return notes.join(" ");
  }

  #content() {
    const rows = [["run", "tag", "step", "value"]];
    for (const {lines} of this.panels.values()) {
      for (const {run, tag, steps, y, alpha, width} of lines) {
        if (width === 2 && alpha === undefined) continue; // the raw ones are there
        steps.forEach((step, i) => rows.push([run, tag, step, y[i]]));
      }
    }
    const charts = [...this.panels.values()].map(({chart}) => chart);
    return {title: "Training", charts, legend: this.legend, rows};
  }
}

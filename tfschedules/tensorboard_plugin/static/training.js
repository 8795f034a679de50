/** Training: rate, momentum and loss over the steps, in panels under one cursor. */

import {Chart} from "./chart.js";
import {downloads} from "./download.js";
import {arrange, checkBox, choice, element, short, slider} from "./page.js";
import {smooth} from "./smoothing.js";

const PREFIX = "schedule/";
const RATE = `${PREFIX}learning_rate`;
const LOSS = `${PREFIX}loss`;
// One for each group of layers, after the line of the base rate.
const DASHES = [[6, 3], [2, 2], [10, 3, 2, 3], [12, 4], [1, 3], [6, 2, 2, 2]];
// A row of the HParams tab: the ends of some epochs of the run that holds it.
const ROW = /\/fit_\d+$/;
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

/** What was kept of a run's steps, where that is not all of them. */
function sampled(curves) {
  for (const {steps} of curves) {
    const all = steps.at(-1) - steps[0] + 1;
    if (steps.length < all) return [steps.length, all];
  }
  return null;
}

export class Training {
  name = "Training";
  key = "training";
  isHere = ({run, scalars}) =>
    !ROW.test(run) && Object.keys(scalars).some((tag) => tag.startsWith(PREFIX));
  empty = [
    "No training with a schedule was recorded in this folder. To see one here, record it:",
    `import tfschedules as tfs

callbacks = [tfs.OneCycle(max_lr=0.1), tfs.TensorBoardLogger("logs")]
model.fit(x, y, epochs=10, callbacks=callbacks)`,
  ];

  constructor(changed) {
    this.seen = {x: "step", logRate: false, logLoss: false, smoothing: 0.6};
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
        slider("smoothing of the loss", this.seen.smoothing, set("smoothing")),
        downloads("training", () => this.#content()),
      ),
      this.dashes,
      this.place,
    );
    this.legend = [];
  }

  /** Show what was recorded of these runs. */
  async draw(runs, data) {
    const tags = new Set(runs.flatMap((run) => Object.keys(run.scalars)));
    const ours = [...tags].filter((tag) => tag.startsWith(PREFIX));
    const having = (tag) => runs.filter((run) => tag in run.scalars).map(({run}) => run);
    const found = new Map(
      await Promise.all(ours.map(async (tag) => [tag, await data.scalars(tag, having(tag))])),
    );
    return () => {
      this.legend = runs.map(({color, run}) => ({color, name: run}));
      this.#panels(runs, found);
      return this.#note(found);
    };
  }

  #panels(runs, found) {
    const panels = order(new Set([...found.keys()].map(panelOf)));
    for (const [tag, panel] of this.panels) {
      if (panels.includes(tag)) continue;
      panel.chart.root.remove();
      this.panels.delete(tag);
    }
    const zoom = this.panels.values().next().value?.chart.zoom.x ?? null;
    for (const tag of panels) {
      if (!this.panels.has(tag)) this.panels.set(tag, this.#panel(tag, zoom));
      const lines = [...found.keys()]
        .filter((one) => panelOf(one) === tag)
        .sort()
        .flatMap((one) => this.#lines(one, runs, found.get(one)));
      const panel = this.panels.get(tag);
      panel.lines = lines;
      panel.chart.show({
        lines,
        xLog: false,
        yLog: (RATES.test(tag) && this.seen.logRate) || (tag === LOSS && this.seen.logLoss),
        xLabel: tag === panels.at(-1) ? X_LABELS[this.seen.x] : "",
        yLabel: tag.slice(PREFIX.length).replaceAll("_", " "),
      });
    }
    arrange(this.place, panels.map((tag) => this.panels.get(tag).chart.root));
    this.#legend(groupsOf(runs));
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
    const group = groupOf(tag);
    const dash = group ? dashOf(groupsOf(runs).indexOf(tag)) : [];
    return runs
      .filter(({run}) => curves.has(run))
      .flatMap(({run, color}) => {
        const {steps, wall_times: times, values} = curves.get(run);
        const hours = () => times.map((time) => (time - times[0]) / 3600);
        const x = this.seen.x === "step" ? steps : hours();
        const name = group ? `${run}, ${group}` : run;
        const words = (i) => `step ${steps[i]}, ${new Date(times[i] * 1000).toLocaleString()}`;
        const line = {x, y: values, color, dash, ordered: true, name, words, run, tag, steps};
        if (tag !== LOSS || this.seen.smoothing === 0) return [line];
        const curve = {
          ...line,
          y: smooth(values, this.seen.smoothing),
          width: 2,
          words: (i) => `${words(i)}, raw ${short(values[i])}`,
        };
        return [{...line, name: "", alpha: 0.3, width: 1}, curve];
      });
  }

  #note(found) {
    const curves = [...found.values()].flatMap((runs) => [...runs.values()]);
    const part = sampled(curves);
    if (part === null) return "Every step is shown.";
    const [kept, all] = part;
    return (
      `TensorBoard has kept ${kept} of ${all} steps of a run, chosen at random. ` +
      "To see more, up to the 10,000 that are shown here at most, start it with " +
      "--samples_per_plugin=scalars=10000."
    );
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
    return {charts, legend: this.legend, rows};
  }
}

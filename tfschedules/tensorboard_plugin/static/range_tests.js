/** Range tests: loss against rate, raw and smoothed, with what they suggest. */

import {Chart} from "./chart.js";
import {downloads} from "./download.js";
import {checkBox, element, short} from "./page.js";

const MOST_CYCLES = 3; // shaded at once: more would hide one another
const MOST_APART = 5; // times the start of one test that another may begin at
const MOST_WRITTEN = 8; // suggestions with their numbers beside them

const sorted = (values) => Float64Array.from(values.filter(Number.isFinite)).sort();
const alike = (name) => (name === "loss" ? "batch loss" : name);

/** What shows the descent: the losses of a divergence would flatten it to a line. */
function limits(test, log) {
  const sign = test.higher_is_better ? -1 : 1;
  const scaled = (values) =>
    values.map((v) => sign * (log ? Math.log10(v) : v)).filter(Number.isFinite);
  const curve = scaled(test.curves.smoothed_values);
  const raw = sorted(scaled(test.curves.values));
  if (curve.length < 2 || raw.length < 1) return null;
  const begin = curve.slice(0, Math.max(3, Math.floor(curve.length / 5)));
  const low = Math.min(sorted(curve)[0], raw[0]);
  const top = Math.max(sorted(begin).at(-1), raw[Math.floor(raw.length / 2)]);
  const margin = 0.15 * (top - low) || 1;
  const ends = [sign * (low - margin / 2), sign * (top + 2 * margin)];
  return ends.map((t) => (log ? 10 ** t : t)).sort((a, b) => a - b);
}

/** The lowest and the highest of all sweeps at each rate; null for a single sweep. */
function band(test) {
  const sweeps = Object.entries(test.curves)
    .filter(([name]) => name.startsWith("sweep "))
    .map(([, values]) => values);
  if (sweeps.length < 2) return null;
  const over = (choose) =>
    Float64Array.from(test.curves.learning_rates, (_, i) => {
      const seen = sweeps.map((values) => values[i]).filter(Number.isFinite);
      return seen.length ? choose(...seen) : NaN;
    });
  return {low: over(Math.min), high: over(Math.max)};
}

/** The curve's height at a rate between two of its points. */
function heightAt(test, rate) {
  const {learning_rates: rates, smoothed_values: values} = test.curves;
  const seen = [...rates.keys()].filter((i) => Number.isFinite(values[i]));
  const next = seen.findIndex((i) => rates[i] >= rate);
  if (next < 1) return values[seen.at(next)];
  const [a, b] = [seen[next - 1], seen[next]];
  const share = (rate - rates[a]) / (rates[b] - rates[a]);
  return values[a] + share * (values[b] - values[a]);
}

/** The reason, without the suggestion, which has a column of its own. */
const why = (reason) => reason.replace(/^(Rule "[^"]*") suggests [^ ,:]+(?=[,:] )/, "$1");

/** The columns of all tests, without those that are another one's in each of them. */
function different(tests) {
  const all = [...new Set(tests.flatMap((curves) => Object.keys(curves)))];
  const equal = (one, other) => one?.length === other?.length && !one?.some((v, i) => !Object.is(v, other[i]));
  const twice = (name, i) =>
    all.slice(0, i).some((other) => tests.every((curves) => equal(curves[name], curves[other])));
  return all.filter((name, i) => !twice(name, i));
}

/** What the smoothed curve begins with; NaN if it has no number. */
const startOf = (test) => test.curves.smoothed_values.find(Number.isFinite) ?? NaN;

/** The test with its values as parts of what they were at the start. */
function relative(test) {
  const start = startOf(test);
  const curves = Object.fromEntries(
    Object.entries(test.curves).map(([name, values]) => [
      name,
      name === "learning_rates" ? values : values.map((v) => v / start),
    ]),
  );
  return {...test, curves, absolute: test.curves};
}

export class RangeTests {
  name = "Range tests";
  key = "range_tests";
  isHere = (run) => run.range_test;
  empty = [
    "There is no range test in this folder. To see one here, write it:",
    `import tfschedules as tfs

result = tfs.find_learning_rate(model, x, y, log_dir="logs")`,
  ];

  constructor(changed) {
    this.seen = {raw: true, band: true, marks: true, all: false};
    Object.assign(this.seen, {relative: false, xLog: true, yLog: false});
    const box = (name, text) =>
      checkBox(text, this.seen[name], (on) => {
        this.seen[name] = on;
        changed();
      });
    this.charts = new Map(); // one for each metric
    this.place = element("div");
    this.table = element("div", {className: "scroll"});
    this.root = element(
      "div",
      {},
      element(
        "div",
        {className: "row"},
        box("raw", "raw"),
        box("band", "band of repeats"),
        box("marks", "suggestions"),
        box("all", "show divergence"),
        box("relative", "relative to the start"),
        box("xLog", "log rate"),
        box("yLog", "log loss"),
        downloads("range_tests", () => this.#content()),
      ),
      this.place,
      this.table,
    );
    this.tests = [];
    this.drawn = new Set();
  }

  /** Share a height among the pictures, and leave some of it for the table. */
  fit(height) {
    const controls = this.root.firstElementChild.offsetHeight + 16;
    const table = Math.min(this.table.offsetHeight, 0.3 * height);
    const own = Math.floor((height - controls - table) / this.charts.size);
    for (const chart of this.charts.values()) chart.grow(Math.max(300, own));
  }

  /** Show the range tests of these runs. */
  async draw(runs, data) {
    const found = await data.rangeTests(runs.map(({run}) => run));
    return () => {
      this.tests = runs
        .filter(({run}) => found.has(run))
        .map((run) => ({...run, ...found.get(run.run)}));
      this.drawn = new Set(this.tests.filter((test) => !test.error).map(({run}) => run));
      this.#charts();
      this.table.replaceChildren(this.#rows());
      return this.#note();
    };
  }

  /** How much is shown, and what is not. */
  #note() {
    const good = this.tests.filter((test) => !test.error);
    const damaged = this.tests.length - good.length;
    const notes = good
      .filter((test) => test.rows)
      .map(({name, rows, count}) => `Of ${name}, ${rows.length} of ${count} points are shown.`);
    if (notes.length === 0) notes.push("Every point of a range test is kept and shown.");
    else if (notes.length < good.length) notes.push("Of the others every point is shown.");
    const without = good.filter((test) => !(startOf(test) > 0));
    if (this.seen.relative && without.length) {
      const names = without.map(({name}) => name).join(", ");
      notes.unshift(`Not drawn, as they do not begin above 0: ${names}.`);
    }
    if (!this.seen.relative && this.#differ(good)) {
      notes.unshift("The losses begin at very different values: check “relative to the start” to compare them.");
    }
    if (damaged) {
      notes.unshift(`${good.length} of ${this.tests.length} range tests are shown: the table says why.`);
    }
    return notes.join(" ");
  }

  /** Whether one test would flatten another in the same picture. */
  #differ(tests) {
    const metrics = [...new Set(tests.map(({metric}) => metric))];
    return metrics.some((metric) => {
      const starts = tests.filter((test) => test.metric === metric).map(startOf);
      const sizes = starts.map(Math.abs).filter((size) => size > 0);
      return Math.max(...sizes) > MOST_APART * Math.min(...sizes);
    });
  }

  #charts() {
    const good = this.tests.filter((test) => !test.error);
    const metrics = [...new Set(good.map((test) => test.metric))];
    for (const [metric, chart] of this.charts) {
      if (metrics.includes(metric)) continue;
      chart.root.remove();
      this.charts.delete(metric);
    }
    for (const metric of metrics) {
      if (!this.charts.has(metric)) {
        const label = `${alike(metric)} against learning rate`;
        this.charts.set(metric, new Chart({label, height: 420}));
        this.place.append(this.charts.get(metric).root);
      }
      let tests = good.filter((test) => test.metric === metric);
      if (this.seen.relative) tests = tests.filter((test) => startOf(test) > 0).map(relative);
      this.charts.get(metric).show(this.#picture(metric, tests));
    }
  }

  #picture(metric, tests) {
    const {raw, marks, all, xLog, yLog} = this.seen;
    const content = {lines: [], bands: [], marks: [], xLog, yLog};
    for (const test of tests) {
      const {learning_rates: x, values, smoothed_values: smoothed} = test.curves;
      const part = {x, color: test.color, ordered: true};
      if (raw) content.lines.push({...part, y: values, alpha: 0.45, width: 1});
      const words = (i) =>
        `learning rate ${short(x[i])}, raw ${short((test.absolute ?? test.curves).values[i])}, step ${test.rows?.[i] ?? i}`;
      const seen = values.map((_, i) => i).filter((i) => Number.isFinite(smoothed[i]));
      // Validation data are looked at now and then: the line goes on between.
      const at = (array) => Float64Array.from(seen, (i) => array[i]);
      content.lines.push({
        ...part,
        x: at(x),
        y: at(smoothed),
        width: 2,
        name: test.name,
        words: (i) => words(seen[i]),
      });
      const between = this.seen.band ? band(test) : null;
      if (between) {
        const low = {x, y: between.low};
        content.bands.push({low, high: {x, y: between.high}, color: test.color, alpha: 0.2});
      }
      if (marks) content.marks.push(...this.#marks(test, tests.length));
    }
    const found = all ? [] : tests.map((test) => limits(test, yLog)).filter((limit) => limit !== null);
    if (found.length) {
      const [low, high] = [found.map(([v]) => v), found.map(([, v]) => v)];
      content.yRange = [Math.min(...low), Math.max(...high)];
    }
    const groups = [...new Set(tests.map((test) => test.group))];
    const of = groups.length === 1 && groups[0] !== null ? ` of ${groups[0]}` : "";
    const yLabel = alike(metric) + (this.seen.relative ? " / its start" : "");
    return {...content, xLabel: `learning rate${of}`, yLabel};
  }

  #marks({suggestion, bounds, color, ...test}, count) {
    const marks = [];
    if (bounds && count <= MOST_CYCLES) {
      marks.push({kind: "span", x: bounds[0], x2: bounds[1], color});
    }
    if (suggestion !== null) {
      const text = count <= MOST_WRITTEN ? short(suggestion, 3) : "";
      const y = heightAt(test, suggestion);
      marks.push({kind: "point", x: suggestion, y, color, text, rule: text !== ""});
    }
    return marks;
  }

  #rows() {
    const heads = ["run", "suggestion", "cycle", "best value", "metric", "ended", "steps", "why"];
    const head = element("tr", {}, ...heads.map((text) => element("th", {scope: "col"}, text)));
    const rows = this.tests.map((test) => {
      const swatch = element("span", {className: "swatch"});
      swatch.style.background = test.color;
      const name = element("bdi", {title: test.run}, test.name);
      const own = element("th", {scope: "row"}, swatch, name);
      if (test.error) {
        return element("tr", {}, own, element("td", {colSpan: heads.length - 1}, test.error));
      }
      const cells = [
        short(test.suggestion, 3),
        test.bounds ? test.bounds.map((v) => short(v, 3)).join(" … ") : "none",
        test.best ? `${short(test.best[1])} at ${short(test.best[0], 3)}` : "none",
        test.metric + (test.group === null ? "" : `, group ${test.group}`),
        test.stop_reason,
        `${test.count} of ${test.steps}`,
        why(test.reason),
      ];
      return element("tr", {}, own, ...cells.map((text) => element("td", {}, text)));
    });
    return element(
      "table",
      {},
      element("caption", {}, "What the range tests found"),
      element("thead", {}, head),
      element("tbody", {}, ...rows),
    );
  }

  #content() {
    const good = this.tests.filter((test) => !test.error);
    const names = different(good.map(({curves}) => curves));
    const rows = [["run", "step", "metric", ...names]];
    for (const {run, metric, curves, rows: steps} of good) {
      curves.learning_rates.forEach((_, i) => {
        rows.push([run, steps?.[i] ?? i, metric, ...names.map((name) => curves[name]?.[i])]);
      });
    }
    const legend = good.map(({color, run, suggestion}) => ({
      color,
      name: `${run}: suggestion ${short(suggestion, 3)}`,
    }));
    return {title: "Range tests", charts: [...this.charts.values()], legend, rows};
  }
}

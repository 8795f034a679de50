/** Comparison: a table of all trainings, to see which schedule has won. */

import {whole} from "./extremes.js";
import {element, short} from "./page.js";
import {badEnd, isTraining, LOSS, RATE} from "./training_data.js";

const LAST = 0.05; // the part of a run's steps whose mean loss is its last
const VALIDATION = "evaluation_loss_vs_iterations"; // as Keras's TensorBoard writes it

const FIRST = ["max_lr", "total_steps"]; // arguments that one looks for
// What a row's settings have that is no argument of the rate's schedule.
const OTHERS = [
  ...["schedule", "optimizer", "steps_per_execution", "gradient_accumulation_steps"],
  ...["momentum", "weight_decay"],
];

/** The mean of the last losses; NaN or infinite where one of them is. */
function lastLoss({sampled: {values}}) {
  const last = values.slice(-Math.max(1, Math.round(LAST * values.length)));
  return last.reduce((sum, v) => sum + v, 0) / last.length;
}

/** The value at a step, or the latest before it. */
function latest({steps, values}, step) {
  let found = null;
  for (let i = 0; i < steps.length && steps[i] <= step; i++) found = values[i];
  return found;
}

/** The best of a validation, made after so many updates: {value, step, rate}. */
function best({steps, values}, rates) {
  let found = null;
  values.forEach((value, i) => {
    if (Number.isFinite(value) && (found === null || value < found.value)) {
      found = {value, step: steps[i], rate: rates ? latest(rates, steps[i] - 1) : null};
    }
  });
  return found;
}

/** Keras's own run of validations beside a run of ours; null if it may be another's. */
function validationOf(run, all) {
  const folder = run.replace(/[^/]*$/, "");
  const beside = all.filter((other) => isTraining(other) && other.run.replace(/[^/]*$/, "") === folder);
  const found = all.find((other) => other.run === `${folder}validation`);
  return beside.length === 1 && found && VALIDATION in found.scalars ? found.run : null;
}

/** The schedule as code, from the row's settings; null where none is recorded. */
function scheduleOf(settings) {
  if (!settings?.schedule) return null;
  if (settings.formula) return settings.formula;
  const isArgument = (name) => !OTHERS.includes(name) && !/\/|_schedule$/.test(name);
  const names = Object.keys(settings).filter(isArgument);
  const place = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  names.sort((one, other) => place(one) - place(other)); // the others by name, as they come
  const code = (value) => {
    if (typeof value === "boolean") return value ? "True" : "False";
    return typeof value === "number" ? short(value, 6) : `"${value}"`;
  };
  const all = names.map((name) => `${name}=${code(settings[name])}`).join(", ");
  return settings.schedule === "none" ? `no schedule, ${all}` : `${settings.schedule}(${all})`;
}

function time(seconds) {
  if (seconds < 120) return `${short(seconds, 3)} s`;
  return seconds < 7200 ? `${short(seconds / 60, 3)} min` : `${short(seconds / 3600, 3)} h`;
}

// What the columns are: a name, what sorts it, and what is written.
const COLUMNS = [
  ["run", ({name}) => name, ({name}) => name],
  ["schedule", ({schedule}) => schedule, ({schedule}) => schedule ?? "not recorded"],
  ["optimizer", ({optimizer}) => optimizer, ({optimizer}) => optimizer ?? "not recorded"],
  ["highest rate", ({peak}) => peak, ({peak}) => short(peak, 3)],
  ["steps", ({steps}) => steps, ({steps}) => String(steps)],
  ["last loss", ({loss}) => loss, ({loss}) => short(loss)],
  [
    "best validation loss",
    ({validation}) => validation?.value,
    ({validation: found}) =>
      found
        ? `${short(found.value)} after ${found.step} steps` +
          (found.rate === null ? "" : `, rate ${short(found.rate, 3)}`)
        : "none",
  ],
  ["not finite", ({bad}) => bad?.step, ({bad}) => bad?.text ?? "never"],
  ["time", ({seconds}) => seconds, ({seconds}) => time(seconds)],
];

/** Sort so that what is missing or not finite comes last, in either direction. */
function compare(one, other, direction) {
  const lacks = (v) => v === null || v === undefined || (typeof v === "number" && !Number.isFinite(v));
  if (lacks(one) || lacks(other)) return lacks(one) - lacks(other);
  if (typeof one === "string") return direction * one.localeCompare(other);
  return direction * (one - other);
}

export class Comparison {
  name = "Comparison";
  key = "comparison";
  isHere = isTraining;
  empty = [
    "No training with a schedule was recorded in this folder. To compare some here, record them:",
    `import tfschedules as tfs

callbacks = [tfs.OneCycle(max_lr=0.1), tfs.TensorBoardLogger("logs/one_cycle")]
model.fit(x, y, epochs=10, callbacks=callbacks)`,
  ];

  /** `only(run)` is called to show that run alone in all views, or all again. */
  constructor(changed, only) {
    this.only = only;
    this.sorted = {column: null, direction: 1};
    this.rows = [];
    this.drawn = new Set();
    this.table = element("table");
    this.root = element("div", {className: "scroll comparison"}, this.table);
  }

  fit() {} // no pictures

  /** List all runs that the filter lets through; those that are not shown are faint. */
  async draw(shown, data, runs) {
    const names = runs.map(({run}) => run);
    const all = data.known;
    const validations = new Map(names.map((run) => [run, validationOf(run, all)]));
    const [losses, rates, settings, validated] = await Promise.all([
      data.scalars(LOSS, names.filter((run, i) => LOSS in runs[i].scalars)),
      data.scalars(RATE, names.filter((run, i) => RATE in runs[i].scalars)),
      data.settings(names),
      data.scalars(VALIDATION, [...validations.values()].filter((run) => run !== null)),
    ]);
    return () => {
      const on = new Set(shown.map(({run}) => run));
      this.drawn = on;
      this.rows = runs.map((run) => {
        const validation = validated.get(validations.get(run.run)) ?? null;
        const own = [losses.get(run.run), rates.get(run.run)];
        return {...this.#row(run, ...own, settings.get(run.run), validation), on: on.has(run.run)};
      });
      this.#show();
      return (
        "The last loss is the mean of the last twentieth of the steps. Best validation losses are " +
        "those that keras.callbacks.TensorBoard writes beside a run. Click a run to see it alone " +
        "in all views, and again to see all; click a heading to sort."
      );
    };
  }

  #row({run, name, color}, loss, rates, settings, validation) {
    const [losses, ratesOf] = [loss, rates].map((curve) => curve && whole(curve));
    const curve = losses ?? ratesOf;
    const {steps, wall_times: times} = curve ?? {steps: [], wall_times: []};
    const peaks = ratesOf?.values.filter(Number.isFinite) ?? [];
    return {
      run,
      name,
      color,
      schedule: scheduleOf(settings),
      optimizer: settings?.optimizer,
      peak: peaks.length ? peaks.reduce((a, b) => Math.max(a, b)) : null,
      steps: curve ? steps.at(-1) - steps[0] + 1 : 0,
      loss: losses ? lastLoss(losses) : null,
      validation: validation && best(validation, ratesOf),
      bad: losses ? badEnd(losses, ratesOf) : null,
      seconds: curve ? times.at(-1) - times[0] : 0,
    };
  }

  #show() {
    const {column, direction} = this.sorted;
    const rows = [...this.rows];
    if (column !== null) {
      const key = COLUMNS[column][1];
      rows.sort((one, other) => compare(key(one), key(other), direction));
    }
    const focused = document.activeElement?.dataset?.key;
    this.table.replaceChildren(
      element("caption", {}, "All trainings that the filter lets through"),
      element("thead", {}, element("tr", {}, ...COLUMNS.map(([name], i) => this.#head(name, i)))),
      element("tbody", {}, ...rows.map((row) => this.#tr(row))),
    );
    const again = [...this.table.querySelectorAll("button")].find((b) => b.dataset.key === focused);
    again?.focus({preventScroll: true});
  }

  #head(name, i) {
    const {column, direction} = this.sorted;
    const sort = element("button", {type: "button", "data-key": `sort ${i}`}, name);
    sort.addEventListener("click", () => {
      this.sorted = {column: i, direction: column === i ? -direction : 1};
      this.#show();
    });
    const state = column === i ? {"aria-sort": direction > 0 ? "ascending" : "descending"} : {};
    return element("th", {scope: "col", ...state}, sort);
  }

  #tr(row) {
    const swatch = element("span", {className: "swatch"});
    swatch.style.background = row.color;
    const name = element("button", {type: "button", title: row.run, "data-key": `run ${row.run}`});
    name.append(swatch, element("bdi", {}, row.name));
    name.addEventListener("click", () => this.only(row.run));
    const cells = COLUMNS.slice(1).map(([, , text]) => element("td", {}, text(row)));
    const className = row.on ? "" : "absent";
    return element("tr", {className}, element("th", {scope: "row"}, name), ...cells);
  }
}

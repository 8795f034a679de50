/** The list of runs: check boxes, a filter, and the colors that TensorBoard gives them. */

import {runColor} from "./host.js";
import {shortNames} from "./names.js";
import {arrange, button, element} from "./page.js";

const NO_NAME = "(no name)";

export class Runs {
  #all = []; // as the server lists them
  #here = []; // those with something to show in this view
  #off = new Set(); // names of runs that were unchecked
  #drawn = null; // names of those that the view has drawn, once it has
  #names = new Map(); // from names of runs to short ones
  #pattern = null;
  #rows = new Map(); // from names of runs to {row, box, swatch, name, mark}, made once

  constructor(changed) {
    this.changed = changed;
    this.filter = element("input", {
      type: "search",
      placeholder: "Filter runs (regular expression)",
      "aria-label": "Filter runs by a regular expression",
      spellcheck: false,
    });
    this.filter.addEventListener("input", () => this.#filtered());
    this.problem = element("div", {className: "problem", role: "alert"});
    this.count = element("div", {className: "count", role: "status"});
    this.list = element("div", {className: "list", role: "group", "aria-label": "Runs"});
    this.root = element(
      "aside",
      {"aria-label": "Runs"},
      this.filter,
      this.problem,
      element(
        "div",
        {className: "row"},
        button("All", "Check all runs that the filter lets through", () => this.#check(true)),
        button("None", "Uncheck all runs that the filter lets through", () => this.#check(false)),
        this.count,
      ),
      this.list,
    );
  }

  /** Take another list of runs, and which of them this view is about. */
  set(all, isHere) {
    this.#drawn = null;
    this.#all = all.map((run, index) => ({...run, index}));
    this.#here = this.#all.filter(isHere);
    this.#names = shortNames(this.#here.map(({run}) => run));
    this.#draw();
  }

  /** Those that the filter lets through, whether they are checked or not. */
  get passing() {
    return this.#passing().map((run) => this.#named(run));
  }

  /** The runs to show, in TensorBoard's order: {run, name, color, scalars, range_test}. */
  get shown() {
    return this.#passing()
      .filter(({run}) => !this.#off.has(run))
      .map((run) => this.#named(run));
  }

  /** Show this run and no other of this view, or all where it is the only one. */
  only(run) {
    const shown = this.shown;
    const alone = shown.length === 1 && shown[0].run === run;
    for (const {run: each} of this.#here) {
      if (alone || each === run) this.#off.delete(each);
      else this.#off.add(each);
    }
    this.#draw();
    this.changed();
  }

  /**
   * Note which runs the view has drawn, a Set; others are faint. `wrong` is a Map from runs
   * whose loss is not finite to words about that.
   */
  mark(drawn, wrong = new Map()) {
    this.#drawn = drawn;
    for (const [run, {mark}] of this.#rows) {
      mark.hidden = !wrong.has(run);
      mark.textContent = wrong.get(run)?.split(" ")[0] ?? "";
      mark.title = wrong.get(run) ?? "";
    }
    this.#counted();
  }

  /** After a change from light to dark. */
  repaint() {
    this.#draw();
  }

  #named(run) {
    return {...run, name: this.#names.get(run.run), color: runColor(run.index)};
  }

  #passing() {
    const pattern = this.#pattern;
    return this.#here.filter(({run}) => pattern === null || pattern.test(run));
  }

  #filtered() {
    try {
      // As TensorBoard's own filter: without regard to capitals.
      this.#pattern = this.filter.value ? new RegExp(this.filter.value, "i") : null;
      this.problem.textContent = "";
      this.filter.setAttribute("aria-invalid", "false");
    } catch (error) {
      this.problem.textContent = `${error.message}. The previous filter stays.`;
      this.filter.setAttribute("aria-invalid", "true");
      return;
    }
    this.#draw();
    this.changed();
  }

  #check(on) {
    for (const {run} of this.#passing()) {
      if (on) this.#off.delete(run);
      else this.#off.add(run);
    }
    this.#draw();
    this.changed();
  }

  #draw() {
    const rows = this.#passing().map(({run, index}) => {
      if (!this.#rows.has(run)) this.#rows.set(run, this.#row(run));
      const {row, box, swatch, name} = this.#rows.get(run);
      name.textContent = this.#names.get(run) || NO_NAME;
      box.checked = !this.#off.has(run);
      swatch.style.background = runColor(index);
      return row;
    });
    arrange(this.list, rows);
    this.#counted();
  }

  #row(run) {
    const box = element("input", {type: "checkbox"});
    box.addEventListener("change", () => {
      if (box.checked) this.#off.delete(run);
      else this.#off.add(run);
      this.#counted();
      this.changed();
    });
    const swatch = element("span", {className: "swatch"});
    const name = element("bdi", {title: run});
    const mark = element("span", {className: "wrong", hidden: true});
    const row = element("label", {className: "run"}, box, swatch, name, mark);
    return {row, box, swatch, name, mark};
  }

  #counted() {
    const checked = this.shown.map(({run}) => run);
    const absent = this.#drawn ? checked.filter((run) => !this.#drawn.has(run)) : [];
    this.count.textContent = `${checked.length - absent.length} of ${this.#here.length} shown`;
    for (const [run, {row}] of this.#rows) row.classList.toggle("absent", absent.includes(run));
  }
}

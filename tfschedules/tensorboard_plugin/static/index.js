/** The page of the Schedules tab: views, the list of runs, and when to draw. */

import {Comparison} from "./comparison.js";
import {Data} from "./data.js";
import {isDark, onDarkMode, onReload} from "./host.js";
import {arrange, element} from "./page.js";
import {RangeTests} from "./range_tests.js";
import {Runs} from "./runs.js";
import {Training} from "./training.js";
import {Versus} from "./versus.js";

const MOST_RUNS = 500; // drawn at once: more are no picture, and fill the browser's memory
const MARGINS = 76; // pixels around the note and below it
const NO_RUN = "No run is shown: check one in the list, or change the filter.";

const here = (file) => new URL(file, import.meta.url).href;

function style(file) {
  return new Promise((resolve, reject) => {
    const link = element("link", {rel: "stylesheet", href: here(file)});
    link.onload = resolve;
    link.onerror = () => reject(new Error(`${file} could not be loaded.`));
    document.head.append(link);
  });
}

/** uPlot is a classic script, which makes one global name. */
function script(file) {
  return new Promise((resolve, reject) => {
    const made = element("script", {src: here(file)});
    made.onload = resolve;
    made.onerror = () => reject(new Error(`${file} could not be loaded.`));
    document.head.append(made);
  });
}

class Page {
  #all = []; // runs as the server has them
  #drawing = 0; // the latest drawing: one that was overtaken is not shown
  #reload = 0; // likewise: TensorBoard asks for two where there are new runs

  constructor() {
    this.data = new Data();
    const redraw = () => this.draw();
    const only = (run) => this.runs.only(run);
    this.views = [RangeTests, Training, Comparison, Versus].map((View) => new View(redraw, only));
    this.runs = new Runs(redraw);
    this.tabs = this.views.map((view) => this.#tab(view));
    this.away = element("div", {className: "problem", role: "alert"});
    this.problem = element("div", {className: "problem", role: "alert"});
    this.empty = element("div", {className: "empty", hidden: true});
    this.panel = element("div", {role: "tabpanel", id: "view"});
    this.note = element("p", {className: "note"});
    const tabs = element("div", {role: "tablist", "aria-label": "Views"}, ...this.tabs);
    tabs.addEventListener("keydown", (event) => this.#arrows(event));
    const main = element(
      "main",
      {},
      ...[tabs, this.away, this.problem, this.empty, this.panel, this.note],
    );
    this.root = element("div", {className: "page"}, this.runs.root, main);
    new ResizeObserver(() => this.#fit()).observe(this.root);
    this.view = null; // until the first runs tell which has something to show
  }

  /** Ask the server again for everything; while it is away, what is known stays. */
  async reload() {
    const reload = ++this.#reload;
    let [all, problem] = [null, ""];
    try {
      all = await this.data.runs();
    } catch (error) {
      problem = `The runs could not be read: ${error.message}`;
    }
    if (reload !== this.#reload) return;
    this.away.textContent = problem;
    if (all === null) return;
    this.data.forget();
    this.#all = all;
    const first = this.views.find((view) => this.#all.some(view.isHere));
    this.choose(this.view ?? first ?? this.views[0], this.view !== null || first);
  }

  /** Show a view; `chosen` is false while there is nothing to choose for. */
  choose(view, chosen = true) {
    if (chosen) this.view = view;
    this.tabs.forEach((tab, i) => {
      const on = this.views[i] === view;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      if (on) this.panel.setAttribute("aria-labelledby", tab.id);
    });
    this.runs.set(this.#all, view.isHere);
    this.#show(view);
  }

  /** Draw the view as it is set now. */
  draw() {
    if (this.view) this.#show(this.view);
  }

  /** Take the colors of a light or a dark page. */
  repaint() {
    document.body.classList.toggle("dark", isDark());
    this.runs.repaint();
    this.draw();
  }

  async #show(view) {
    const drawing = ++this.#drawing;
    const nothing = !this.#all.some(view.isHere);
    this.empty.hidden = !nothing;
    this.panel.hidden = this.note.hidden = nothing;
    if (nothing) {
      const [text, code] = view.empty;
      this.empty.replaceChildren(element("p", {}, text), element("pre", {}, code));
    }
    arrange(this.panel, [view.root]);
    this.panel.setAttribute("aria-busy", "true");
    this.note.textContent = "Loading …";
    const checked = this.runs.shown;
    const shown = checked.slice(0, MOST_RUNS);
    try {
      const show = await view.draw(shown, this.data, this.runs.passing);
      if (drawing !== this.#drawing) return;
      const note = show();
      this.runs.mark(view.drawn, view.wrong);
      const part =
        shown.length < checked.length
          ? `The first ${shown.length} of ${checked.length} runs are shown: filter the list to see others. `
          : "";
      this.note.textContent = shown.length ? part + note : NO_RUN;
      this.panel.setAttribute("aria-busy", "false");
      this.problem.textContent = this.data.problems(shown.map(({run}) => run)).join("\n");
      this.#fit();
      this.root.dataset.drawn = view.key;
    } catch (error) {
      if (drawing !== this.#drawing) return;
      this.note.textContent = "";
      this.panel.setAttribute("aria-busy", "false");
      this.problem.textContent = `This could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  /** Let the view's pictures fill the window, below their controls and above the note. */
  #fit() {
    if (!this.view || this.panel.hidden) return;
    const main = this.panel.parentElement;
    const others = [...main.children].filter((child) => child !== this.panel);
    const taken = others.reduce((sum, child) => sum + child.offsetHeight, MARGINS);
    this.view.fit(Math.max(0, main.clientHeight - taken));
  }

  #tab(view) {
    const made = element("button", {
      type: "button",
      role: "tab",
      id: `tab-${view.key}`,
      "aria-controls": "view",
    });
    made.textContent = view.name;
    made.addEventListener("click", () => this.choose(view));
    return made;
  }

  #arrows(event) {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const at = this.tabs.indexOf(document.activeElement);
    const next = (at + step + this.tabs.length) % this.tabs.length;
    this.tabs[next].focus();
    this.choose(this.views[next]);
  }
}

/** What TensorBoard calls in the plugin's frame. */
export async function render() {
  document.title = "Schedules";
  document.documentElement.lang = "en";
  await Promise.all([
    style("style.css"),
    style("uplot/uPlot.min.css"),
    script("uplot/uPlot.iife.min.js"),
  ]);
  const page = new Page();
  document.body.classList.toggle("dark", isDark());
  document.body.append(page.root);
  window.schedules = page; // for the browser's console, and for tests
  onDarkMode(() => page.repaint());
  onReload(() => page.reload());
  await page.reload();
}

/** Downloads: what is drawn as a PNG, and the numbers behind it as CSV. */

import {button, element} from "./page.js";

const GAP = 12;
const LINE = 18;
const TITLE = 36;
const RATIO = 2; // pixels of the picture for one of a plain screen

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", {href: address, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// With these a formula begins; the last four are the first ones in full width.
const FORMULA = /^[=+\-@\t\r\n＝＋－＠]/;

/**
 * A table as RFC 4180 has it. Spreadsheets run a text that begins as a formula: it gets an
 * apostrophe in front, as OWASP ("CSV Injection") advises. Numbers stay numbers.
 */
export function csv(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && FORMULA.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** A title, the charts below one another, and a legend of {color, name}; twice the pixels. */
export async function picture(title, charts, legend) {
  const canvases = [];
  for (const chart of charts) canvases.push(await chart.sharp());
  const width = Math.max(...canvases.map((canvas) => canvas.width));
  const sum = canvases.reduce((total, canvas) => total + canvas.height + GAP * RATIO, 0);
  const whole = element("canvas", {
    width,
    height: sum + (legend.length + 1) * LINE * RATIO + TITLE * RATIO,
  });
  const context = whole.getContext("2d");
  const inks = getComputedStyle(document.body);
  const ink = inks.getPropertyValue("--ink");
  context.fillStyle = inks.getPropertyValue("--paper");
  context.fillRect(0, 0, whole.width, whole.height);
  context.textBaseline = "middle";
  context.font = `500 ${15 * RATIO}px Roboto, sans-serif`;
  context.fillStyle = ink;
  context.fillText(title, GAP * RATIO, (TITLE / 2) * RATIO);
  let top = TITLE * RATIO;
  for (const canvas of canvases) {
    context.drawImage(canvas, 0, top);
    top += canvas.height + GAP * RATIO;
  }
  context.font = `${12 * RATIO}px Roboto, sans-serif`;
  for (const {color, name} of legend) {
    context.fillStyle = color;
    context.fillRect(GAP * RATIO, top + 2 * RATIO, 12 * RATIO, 12 * RATIO);
    context.fillStyle = ink;
    context.fillText(name, (GAP + 18) * RATIO, top + 8 * RATIO);
    top += LINE * RATIO;
  }
  return whole;
}

/** Two buttons; `content()` is {title, charts, legend, rows} of what is shown now. */
export function downloads(name, content) {
  return element(
    "span",
    {className: "downloads"},
    button("CSV", "Download the numbers that are shown as CSV", () => {
      const text = csv(content().rows);
      save(new Blob([text], {type: "text/csv;charset=utf-8"}), `${name}.csv`);
    }),
    button("PNG", "Download the picture as PNG", async () => {
      const {title, charts, legend} = content();
      if (charts.length === 0) return; // no run is shown
      const made = await picture(title, charts, legend);
      made.toBlob((blob) => save(blob, `${name}.png`), "image/png");
    }),
  );
}

/** Downloads: what is drawn as a PNG, and the numbers behind it as CSV. */

import {button, element} from "./page.js";

const GAP = 12;
const LINE = 18;

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

/** The charts below one another, and below them a legend of {color, name}. */
export function picture(charts, legend) {
  const canvases = charts.map((chart) => chart.canvas);
  const ratio = devicePixelRatio;
  const width = Math.max(...canvases.map((canvas) => canvas.width));
  const sum = canvases.reduce((total, canvas) => total + canvas.height + GAP * ratio, 0);
  const whole = element("canvas", {
    width,
    height: sum + (legend.length + 1) * LINE * ratio,
  });
  const context = whole.getContext("2d");
  const inks = getComputedStyle(document.body);
  context.fillStyle = inks.getPropertyValue("--paper");
  context.fillRect(0, 0, whole.width, whole.height);
  let top = 0;
  for (const canvas of canvases) {
    context.drawImage(canvas, 0, top);
    top += canvas.height + GAP * ratio;
  }
  context.font = `${12 * ratio}px Roboto, sans-serif`;
  context.textBaseline = "middle";
  for (const {color, name} of legend) {
    context.fillStyle = color;
    context.fillRect(GAP * ratio, top + 2 * ratio, 12 * ratio, 12 * ratio);
    context.fillStyle = inks.getPropertyValue("--ink");
    context.fillText(name, (GAP + 18) * ratio, top + 8 * ratio);
    top += LINE * ratio;
  }
  return whole;
}

/** Two buttons; `content()` is {charts, legend, rows} of what is shown now. */
export function downloads(name, content) {
  return element(
    "span",
    {className: "downloads"},
    button("CSV", "Download the numbers that are shown as CSV", () => {
      const text = csv(content().rows);
      save(new Blob([text], {type: "text/csv;charset=utf-8"}), `${name}.csv`);
    }),
    button("PNG", "Download the picture as PNG", () => {
      const {charts, legend} = content();
      if (charts.length === 0) return; // no run is shown
      picture(charts, legend).toBlob((blob) => save(blob, `${name}.png`), "image/png");
    }),
  );
}

/**
 * What is drawn on a chart besides lines. A mark is
 *     {kind: "span", x, x2, color}: shaded from x to x2
 *     {kind: "point", x, y, color, text, rule}: a dot, with words, and a dashed rule
 *     {kind: "cross", x, y, color, text}: where a line ends, as its values are not finite
 * in the values of the axes.
 */

const LINE = 16; // pixels from words to words
const PAD = 4;
const DOT = 8; // beside words

const inks = () => getComputedStyle(document.body);

/** Shade the spans, which lie below the lines. `at.x(v)` and `at.y(v)` are pixels. */
export function drawSpans(context, marks, at, {top, height}) {
  for (const mark of marks.filter(({kind}) => kind === "span")) {
    const [left, right] = [mark.x, mark.x2].map(at.x);
    context.globalAlpha = 0.12;
    context.fillStyle = mark.color;
    context.fillRect(left, top, right - left, height);
    context.globalAlpha = 1;
  }
}

/** Draw the others, of which `box` holds those whose x it shows, over the lines. */
export function drawMarks(context, marks, at, box, ratio) {
  const {left, top, width, height} = box;
  const seen = marks.filter(({kind, x}) => kind !== "span" && at.x(x) >= left && at.x(x) <= left + width);
  for (const mark of seen) {
    const x = at.x(mark.x);
    context.strokeStyle = context.fillStyle = mark.color;
    context.lineWidth = 1.2 * ratio;
    if (mark.rule) rule(context, x, top, height, ratio);
    if (mark.kind === "point") dot(context, x, at.y(mark.y), 5 * ratio);
    else cross(context, x, inside(at.y(mark.y), top, height, 7 * ratio), 5 * ratio, ratio);
  }
  const written = seen.filter(({text}) => text);
  written.forEach((mark, i) => words(context, mark, at, box, top + i * LINE * ratio, ratio));
}

/** A place in the picture for what is above or below it. */
function inside(y, top, height, margin) {
  const place = Number.isNaN(y) ? top : y;
  return Math.min(Math.max(place, top + margin), top + height - margin);
}

function rule(context, x, top, height, ratio) {
  context.setLineDash([4 * ratio, 4 * ratio]);
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, top + height);
  context.stroke();
  context.setLineDash([]);
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function cross(context, x, y, arm, ratio) {
  const arms = [[-arm, -arm], [-arm, arm]];
  for (const [width, color] of [[5, inks().getPropertyValue("--paper")], [2.5, context.fillStyle]]) {
    context.lineWidth = width * ratio;
    context.strokeStyle = color;
    context.beginPath();
    for (const [dx, dy] of arms) {
      context.moveTo(x + dx, y + dy);
      context.lineTo(x - dx, y - dy);
    }
    context.stroke();
  }
}

/** A mark's words in ink, with a dot of its color, below those before. */
function words(context, mark, at, {left, width}, top, ratio) {
  context.font = `500 ${12 * ratio}px Roboto, sans-serif`;
  context.textBaseline = "top";
  context.textAlign = "left";
  const size = context.measureText(mark.text).width + (DOT + 2 * PAD) * ratio;
  const x = Math.min(at.x(mark.x) + 6 * ratio, left + width - size);
  const place = [x + (DOT + PAD) * ratio, top + PAD * ratio];
  context.strokeStyle = inks().getPropertyValue("--paper");
  context.lineWidth = 4 * ratio;
  context.strokeText(mark.text, ...place);
  context.fillStyle = inks().getPropertyValue("--ink");
  context.fillText(mark.text, ...place);
  context.fillStyle = mark.color;
  dot(context, x + (DOT / 2) * ratio, place[1] + 5 * ratio, (DOT / 2) * ratio);
}

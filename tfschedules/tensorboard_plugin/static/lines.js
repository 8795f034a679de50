/**
 * Curves of any number of points: their extent, their picture, the point nearest to the
 * cursor. uPlot draws series with one rising x for all; these have an x each, in any
 * order, so uPlot has the axes and this file the lines.
 *
 * A line is {x, y, color, …}: `name` for the cursor's words, `width` and `dash` in
 * pixels, `alpha`, `dots` for points instead of a line, `ordered` if x never falls.
 */

const ALONE = 2.5; // pixels: the radius of a point without neighbors

const kept = {linear: new WeakMap(), log: new WeakMap()};

/** Values on an axis's own scale, NaN where they have no place there; computed once. */
function transformed(values, log) {
  const known = log ? kept.log : kept.linear;
  if (!known.has(values)) {
    const found = new Float64Array(values.length);
    for (let i = 0; i < found.length; i++) {
      const t = log ? Math.log10(values[i]) : values[i]; // NaN below 0, -Infinity at 0
      found[i] = Number.isFinite(t) ? t : NaN;
    }
    known.set(values, found);
  }
  return known.get(values);
}

/** The line with its points in the axes' own scales: `tx`, `ty`; NaN where it breaks. */
export function scaled(line, xLog, yLog) {
  return {...line, tx: transformed(line.x, xLog), ty: transformed(line.y, yLog)};
}

/**
 * [lowest, highest] of one of the arrays of scaled lines, of the points whose other one is
 * `within` a range, where that is given; null if there is no point.
 */
export function extent(lines, axis, within = [-Infinity, Infinity]) {
  let low = Infinity;
  let high = -Infinity;
  for (const line of lines) {
    const [own, other] = axis === "x" ? [line.tx, line.ty] : [line.ty, line.tx];
    for (let i = 0; i < own.length; i++) {
      // NaN is within nothing.
      if (Number.isNaN(own[i]) || !(other[i] >= within[0] && other[i] <= within[1])) continue;
      if (own[i] < low) low = own[i];
      if (own[i] > high) high = own[i];
    }
  }
  return low <= high ? [low, high] : null;
}

/** Draw a scaled line; `at.x(t)` and `at.y(t)` are pixels. */
export function draw(context, line, at, ratio) {
  context.globalAlpha = line.alpha ?? 1;
  context.strokeStyle = context.fillStyle = line.color;
  context.lineWidth = (line.width ?? 1.5) * ratio;
  context.lineJoin = "round";
  context.setLineDash((line.dash ?? []).map((length) => length * ratio));
  context.beginPath();
  if (line.dots) {
    dots(context, line, at, ratio);
    context.fill();
  } else {
    const alone = columns(context, line, at);
    context.stroke();
    context.beginPath();
    const radius = ALONE * ratio;
    for (const [x, y] of alone) {
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.fill();
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/**
 * A line: of the points that follow one another in the same column of pixels only the
 * first, the lowest, the highest and the last. What is seen is the same. Returned are the
 * points that are alone: a line without a length would not be seen.
 */
function columns(context, {tx, ty}, at) {
  let column = NaN;
  let open = false;
  const alone = [];
  let first, low, high, last;
  const end = (broken) => {
    if (Number.isNaN(column)) return;
    if (broken && !open && low === high) {
      alone.push([column, low]);
      return;
    }
    if (open) context.lineTo(column, first);
    else context.moveTo(column, first);
    open = true;
    if (low < Math.min(first, last) || high > Math.max(first, last)) {
      context.lineTo(column, low);
      context.lineTo(column, high);
    }
    context.lineTo(column, last);
  };
  const count = tx.length;
  for (let i = 0; i < count; i++) {
    const x = Math.round(at.x(tx[i]));
    const y = at.y(ty[i]);
    if (Number.isNaN(x) || Number.isNaN(y)) {
      end(true);
      column = NaN;
      open = false;
    } else if (x === column) {
      if (y < low) low = y;
      if (y > high) high = y;
      last = y;
    } else {
      end(false);
      column = x;
      first = low = high = last = y;
    }
  }
  end(true);
  return alone;
}

function dots(context, line, at, ratio) {
  const size = 3 * ratio;
  const taken = new Set();
  for (let i = 0; i < line.tx.length; i++) {
    const [x, y] = [Math.round(at.x(line.tx[i])), Math.round(at.y(line.ty[i]))];
    const place = x * 65536 + y;
    if (Number.isNaN(place) || taken.has(place)) continue;
    taken.add(place);
    context.rect(x - size / 2, y - size / 2, size, size);
  }
}

/** Fill between `low` and `high`, lines with the same x. */
export function drawBand(context, {low, high, color, alpha}, at) {
  context.globalAlpha = alpha;
  context.fillStyle = color;
  for (let begin = 0; begin < low.tx.length; begin++) {
    if (Number.isNaN(low.tx[begin] + low.ty[begin] + high.ty[begin])) continue;
    let end = begin;
    while (end < low.tx.length && !Number.isNaN(low.ty[end] + high.ty[end])) end++;
    context.beginPath();
    for (let i = begin; i < end; i++) context.lineTo(at.x(low.tx[i]), at.y(low.ty[i]));
    for (let i = end - 1; i >= begin; i--) {
      context.lineTo(at.x(high.tx[i]), at.y(high.ty[i]));
    }
    context.fill();
    begin = end;
  }
  context.globalAlpha = 1;
}

/** The index of the point nearest to `t` on an ordered line; null if it has none. */
export function nearestInX(line, t) {
  let [low, high] = [0, line.tx.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    // Where x is NaN (a rate of 0 on a log axis) it comes before all others.
    if (line.tx[middle] >= t) high = middle;
    else low = middle + 1;
  }
  let best = null;
  for (const i of [low - 1, low, low + 1]) {
    const distance = Math.abs(line.tx[i] - t);
    if (Number.isNaN(distance) || Number.isNaN(line.ty[i])) continue;
    if (best === null || distance < Math.abs(line.tx[best] - t)) best = i;
  }
  return best;
}

/** The index of the point nearest to a pixel, and the square of its distance. */
export function nearest(line, at, px, py) {
  let [best, least] = [null, Infinity];
  for (let i = 0; i < line.tx.length; i++) {
    const distance = (at.x(line.tx[i]) - px) ** 2 + (at.y(line.ty[i]) - py) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return [best, least];
}

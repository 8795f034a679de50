/**
 * What an axis shows and where it has its lines. Ranges are [low, high] on the axis's own
 * scale: of a logarithmic axis, powers of ten.
 */

import {short} from "./page.js";

const FINEST = 1e-9; // the least part of its numbers that a range spans
const FEWEST = 4; // lines of a logarithmic axis

// Pixels that the numbers beside an axis take, where its words are 12 pixels high.
const DIGIT = 7;
const GAP = 8;
const LINE = 15;

export const real = (range, log) => (log ? range.map((t) => 10 ** t) : range);

/** A range with a margin; of a single value, one around it. */
export function padded([low, high], share) {
  const margin = (high - low) * share || Math.abs(low) * 0.05 || 0.5;
  return [low - margin, high + margin];
}

/** What two ranges have in common; the first where the other is none, or elsewhere. */
export function overlap([low, high], other) {
  const part = other ? [Math.max(low, other[0]), Math.min(high, other[1])] : [low, high];
  return part[0] < part[1] ? part : [low, high];
}

/** A range whose numbers there are, and of which some lie between its ends. */
export function bounded(range, log) {
  const most = log ? [-307, 308] : [-1e307, 1e307];
  const [low, high] = range.map((t) => Math.min(Math.max(t, most[0]), most[1]));
  const least = FINEST * (log ? 1 : Math.max(Math.abs(low), Math.abs(high)));
  if (high - low >= least) return [low, high];
  const middle = low + (high - low) / 2;
  return [middle - least / 2, middle + least / 2];
}

/**
 * Where a logarithmic axis has its lines: at 1, 2, … 9 of each decade, and where that is
 * too few, as a linear axis has them. uPlot's own never end where the axis does not begin
 * at such a number.
 */
export function decades(_, __, low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (let digit = 1; digit < 10; digit++) {
      const split = Number(`${digit}e${power}`);
      if (split >= low && split <= high) found.push(split);
    }
  }
  if (found.length >= FEWEST) return found;
  return even(null, null, low, high, nice(null, null, low, high, FEWEST, 1)[0]);
}

/**
 * Which lines of a logarithmic axis get numbers: all, those at 1, 2 and 5, those at 1, or
 * one of some decades, as there is room. uPlot's own filter gives numbers to the powers of
 * ten alone where the axis is horizontal, so that a zoomed one has none.
 *
 * `place(v)` is where a line is, in pixels; `room(one, other)` how much two numbers need.
 */
function numbered(splits, place, room) {
  const digit = (v) => Number(v.toExponential().split("e")[0]);
  const having = (...digits) => splits.filter((v) => digits.includes(digit(v)));
  const fits = (seen) =>
    seen.every((v, i) => !i || Math.abs(place(v) - place(seen[i - 1])) >= room(seen[i - 1], v));
  const least = Math.min(3, splits.length);
  const levels = [splits, having(1, 2, 5), having(1)].filter((seen) => seen.length >= least);
  let seen = levels.find(fits) ?? levels.at(-1);
  const powers = seen.every((v) => digit(v) === 1);
  const index = (v, i) => (powers ? Math.round(Math.log10(v)) : i); // with 1, where it is there
  for (let every = 2, all = seen; !fits(seen); every++) {
    seen = all.filter((v, i) => index(v, i) % every === 0);
  }
  const chosen = new Set(seen);
  return splits.map((v) => (chosen.has(v) ? v : null));
}

/** How far apart a linear axis has its lines; uPlot's own stop at 1e16. */
export function nice(_, __, low, high, pixels, space) {
  const least = (high - low) * (space / pixels);
  const power = 10 ** Math.floor(Math.log10(least));
  return [[1, 2, 2.5, 5, 10].find((digit) => digit * power >= least) * power];
}

/** Where a linear axis has its lines: at multiples. */
export function even(_, __, low, high, step) {
  const found = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step); i++) {
    found.push(Number((i * step).toPrecision(12)) + 0); // + 0: no -0
  }
  return found;
}

/** What gives the logarithmic axis `x` or `y` its numbers. */
export function numbers(name) {
  const width = (v) => DIGIT * short(v, 6).length;
  const beside = (one, other) => (width(one) + width(other)) / 2 + GAP;
  const room = name === "x" ? beside : () => LINE;
  return (u, splits) => numbered(splits, (v) => u.valToPos(v, name), room);
}

/** The numbers beside an axis's lines, with digits enough to tell them apart. */
export function labels(splits) {
  const seen = splits.filter((v) => v !== null);
  const most = Math.max(...seen.map(Math.abs));
  const gaps = seen.slice(1).map((v, i) => v - seen[i]);
  const digits = Math.ceil(Math.log10(most / Math.min(...gaps))) + 1;
  return splits.map((v) => (v === null ? null : short(v, Math.min(Math.max(6, digits || 0), 15))));
}

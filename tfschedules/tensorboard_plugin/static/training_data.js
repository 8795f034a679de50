/** What the records of a training are called, and where its loss goes wrong. */

import {firstBad} from "./divergence.js";
import {seenOf} from "./extremes.js";
import {short} from "./page.js";

export const PREFIX = "schedule/";
export const RATE = `${PREFIX}learning_rate`;
export const LOSS = `${PREFIX}loss`;

// A row of the HParams tab: the ends of some epochs of the run that holds it.
const ROW = /\/fit_\d+$/;

/** Whether a run is the record of a training. */
export const isTraining = ({run, scalars}) =>
  !ROW.test(run) && Object.keys(scalars).some((tag) => tag.startsWith(PREFIX));

/** The value at a step of a curve that was perhaps not kept there; null outside of it. */
function valueAt({steps, values}, step) {
  const next = steps.findIndex((one) => one >= step);
  if (next < 0) return null;
  if (steps[next] === step) return values[next];
  if (next === 0) return null;
  const share = (step - steps[next - 1]) / (steps[next] - steps[next - 1]);
  return values[next - 1] + share * (values[next] - values[next - 1]);
}

/** Where the loss of a run is not finite: {i, step, last, rate, text}; null if it always is. */
export function badEnd(loss, rates) {
  const bad = firstBad(loss.values, loss.steps, seenOf(loss).reach);
  if (bad === null) return null;
  const step = loss.steps[bad.i];
  const rate = rates ? valueAt(rates, step) : null;
  const when = `${bad.rest ? "from" : "at"} step ${step}${bad.exact ? "" : " or before"}`;
  const text = `${bad.word} ${when}${rate === null ? "" : `, rate ${short(rate, 3)}`}`;
  // The line ends at the last finite value before.
  return {i: bad.i, step, last: Math.max(0, bad.i - 1), rate, text};
}

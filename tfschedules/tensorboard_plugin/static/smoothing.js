/** Smoothing of noisy curves, once for each curve and weight. */

const smoothed = new WeakMap(); // from values to {weight, curve}

/** Exponential smoothing without the pull to zero at its beginning, as TensorBoard's. */
export function smooth(values, weight) {
  if (smoothed.get(values)?.weight === weight) return smoothed.get(values).curve;
  let [mean, rest] = [0, 1];
  const curve = values.map((value) => {
    if (!Number.isFinite(value)) return value;
    mean = weight * mean + (1 - weight) * value;
    rest *= weight;
    return mean / (1 - rest);
  });
  smoothed.set(values, {weight, curve});
  return curve;
}

// Curves of the training explorer, without a page.

/** Exponential moving average without a bias to the first value, as ebwm.explore.runs.smoothed; null: left out. */
export function smoothed(values, weight) {
  let mean = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + 1 - weight;
    return mean / total;
  });
}

/** Round numbers in a range, about `count` of them; on a logarithmic axis, their logarithms. */
export function ticks([low, high], count, logarithmic) {
  if (logarithmic) {
    const from = Math.ceil(low - 1e-9), powers = Array.from({ length: Math.floor(high + 1e-9) - from + 1 }, (_, i) => from + i);
    if (powers.length > 1) return powers;
    const round = [from - 1, from].flatMap((at) => [1, 2, 5].map((factor) => Math.log10(factor) + at)).filter((at) => at >= low && at <= high);
    return round.length > 1 ? round : ticks([10 ** low, 10 ** high], count, false).map(Math.log10);
  }
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** Lowest and highest of some numbers, with a margin. */
export function rangeOf(numbers) {
  const low = Math.min(...numbers), high = Math.max(...numbers), margin = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

/** The last index whose update is at most `update`; -1 if there is none. */
export function indexAt(updates, update) {
  let index = -1;
  while (index + 1 < updates.length && updates[index + 1] <= update) index += 1;
  return index;
}

const LISTS = { runs: "names of runs", quantities: "quantities" };

/** Settings that fit to the runs; an Error with one line says what is wrong. */
export function checkedView(given, known) {
  if (given === null || typeof given !== "object" || Array.isArray(given)) throw new Error("settings: must be an object");
  const refuse = (name, rule) => { throw new Error(`${name}=${JSON.stringify(given[name])}: must be ${rule}`); };
  const names = ["runs", "quantities", "update", "smoothing", "log"];
  for (const name of Object.keys(given)) {
    if (!names.includes(name)) throw new Error(`setting=${JSON.stringify(name)}: must be one of ${names.join(", ")}`);
  }
  for (const [name, what] of Object.entries(LISTS)) {
    const fits = Array.isArray(given[name]) && given[name].every((one) => known[name].includes(one));
    if (!fits) refuse(name, `a list of ${what}: ${known[name].join(", ")}`);
  }
  if (given.quantities.length !== 4) refuse("quantities", "four quantities");
  const within = (name, high) => typeof given[name] === "number" && given[name] >= 0 && given[name] <= high;
  if (!Number.isInteger(given.update) || !within("update", known.last)) refuse("update", `an integer from 0 to ${known.last}`);
  if (!within("smoothing", 0.99)) refuse("smoothing", "from 0 to 0.99");
  if (typeof given.log !== "boolean") refuse("log", "true or false");
  return { ...given, runs: known.runs.filter((one) => given.runs.includes(one)), quantities: [...given.quantities] };
}

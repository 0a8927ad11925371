// SPDX-License-Identifier: Apache-2.0
//
// The samples of one run as curves: memory with its limits as steps, CPUs in use, and what to mark.

import {isNumber, parseTime} from './format.js';

/** The answer of /api/analyses/ID/series as objects, oldest first, each time once. */
export function samplesOf({columns, rows}) {
  const at = Object.fromEntries(columns.map((name, i) => [name, i]));
  const samples = [];
  for (const row of rows) {
    const ms = row[at.at_usec] / 1000;
    if (!isNumber(ms) || (samples.length > 0 && ms <= samples[samples.length - 1].at)) continue;
    samples.push({
      at: ms,
      withCache: row[at.memory_bytes] ?? null,
      memory: row[at.memory_unreclaimable_bytes] ?? null,
      cpuUsec: row[at.cpu_usec] ?? null,
      processes: row[at.processes] ?? null,
    });
  }
  return samples;
}

/** One more sample, of a row of the stream. */
export function addLive(samples, row, now) {
  const last = samples[samples.length - 1];
  if (last !== undefined && now - last.at < 500) return false;
  const known = (value) => (isNumber(value) ? value : null);
  samples.push({at: now, withCache: known(row.memory_current_bytes), memory: known(row.memory_bytes),
    cpuUsec: known(row.cpu_usec), processes: known(row.process_count)});
  return true;
}

/** So many samples a curve has at most: more than a screen is wide. The daemon keeps as many. */
export const MOST_SAMPLES = 4_096;

/**
 * Fewer of them, where there are more than `most`: spans of the run that are equally long have one each, which is the
 * one with the most memory, so that no peak gets lower. The first and the last stay what they are.
 */
export function thinned(samples, most = MOST_SAMPLES) {
  if (samples.length <= most) return samples;
  const first = samples[0];
  const last = samples[samples.length - 1];
  // A quarter is left free, so that this is not done for each that comes.
  const span = (last.at - first.at) / Math.floor(most * 0.75 - 2);
  const kept = [];
  let of = null;
  for (const sample of samples.slice(1, -1)) {
    const part = Math.floor((sample.at - first.at) / span);
    if (part !== of) kept.push(sample);
    else if ((sample.memory ?? -1) > (kept[kept.length - 1].memory ?? -1)) kept[kept.length - 1] = sample;
    of = part;
  }
  return [first, ...kept, last];
}

/** The highest of them, or 0; they may be too many to be the arguments of one call. */
export function highest(values) {
  return values.reduce((most, value) => (isNumber(value) && value > most ? value : most), 0);
}

/** CPUs in use between each sample and the one before it. */
export function cpuRates(samples) {
  return samples.map((sample, i) => {
    if (i === 0 || sample.cpuUsec === null || samples[i - 1].cpuUsec === null) return null;
    const span = (sample.at - samples[i - 1].at) * 1000;
    return span <= 0 ? null : Math.max(0, sample.cpuUsec - samples[i - 1].cpuUsec) / span;
  });
}

/** The limits in the course of the run: [{at, limit, ceiling}], null where there is none; from its records. */
export function limitSteps(records) {
  const steps = [];
  let headroom = null;
  for (const record of records) {
    if (!['registered', 'adopted', 'limits-changed', 'ending', 'ended'].includes(record.kind)) continue;
    const limit = isNumber(record.memory_limit_bytes) ? record.memory_limit_bytes : null;
    if (isNumber(record.details?.memory_headroom_bytes)) headroom = record.details.memory_headroom_bytes;
    const last = steps[steps.length - 1];
    const ceiling = limit === null || headroom === null ? null : limit + headroom;
    if (last !== undefined && last.limit === limit && last.ceiling === ceiling) continue;
    steps.push({at: parseTime(record.occurred_at) ?? 0, limit, ceiling});
  }
  return steps;
}

function stepAt(steps, at) {
  let found = steps[0] ?? {limit: null, ceiling: null};
  for (const step of steps) {
    if (step.at > at) break;
    found = step;
  }
  return found;
}

/** Rows for the memory chart: [Date, unreclaimable, with cache, limit, ceiling]. */
export function memoryRows(samples, steps) {
  const rows = samples.map((sample) => ({at: sample.at, memory: sample.memory, withCache: sample.withCache}));
  // A limit that changed between two samples is a step, and not a slope.
  for (const step of steps.slice(1)) {
    if (samples.length < 2 || step.at <= samples[0].at || step.at >= samples[samples.length - 1].at) continue;
    rows.push({at: step.at - 1, memory: null, withCache: null}, {at: step.at, memory: null, withCache: null});
  }
  rows.sort((a, b) => a.at - b.at);
  return rows.map((row) => {
    const {limit, ceiling} = stepAt(steps, row.at);
    return [new Date(row.at), row.memory, row.withCache, limit, ceiling];
  });
}

/** What is marked on the curves: [{at, text, kind}], of the run's records. */
export function marksOf(records) {
  const marks = [];
  for (const record of records) {
    const at = parseTime(record.occurred_at);
    if (at === null) continue;
    if (record.kind === 'ending') marks.push({at, kind: 'verdict', text: record.reason ?? 'ending'});
    else if (record.kind === 'escalated') marks.push({at, kind: 'killed', text: 'SIGKILL'});
    else if (record.kind === 'ended') marks.push({at, kind: 'end', text: 'end'});
    else if (record.kind === 'extended' || record.kind === 'limits-changed') marks.push({at, kind: 'change', text: record.kind});
  }
  return marks;
}

/** Ticks of a scale of bytes: whole multiples of 1, 2 or 5 and a power of 1024 or ten of those. */
export function byteTicks(min, max, wanted = 5) {
  const span = Math.max(1, max - min);
  let unit = 1;
  while (unit * 1024 <= span / wanted) unit *= 1024;
  const factors = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  const step = unit * (factors.find((factor) => span / (unit * factor) <= wanted) ?? 1024);
  const ticks = [];
  for (let at = Math.ceil(min / step) * step; at <= max; at += step) ticks.push(at);
  return ticks;
}

// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {MOST_SAMPLES, addLive, byteTicks, cpuRates, highest, limitSteps, marksOf, memoryRows, samplesOf, thinned} from './series.js';

const columns = ['at_usec', 'memory_bytes', 'memory_unreclaimable_bytes', 'cpu_usec', 'processes'];
const at = (second) => new Date(second * 1000).toISOString();

test('samples are read by the names of their columns', () => {
  const [sample] = samplesOf({columns: [...columns].reverse(), rows: [[7, 3, 20, 30, 5_000_000]]});
  assert.deepEqual(sample, {at: 5000, withCache: 30, memory: 20, cpuUsec: 3, processes: 7});
});

test('a sample of a time that is there already is left out', () => {
  assert.equal(samplesOf({columns, rows: [[1e6, 1, 1, 1, 1], [1e6, 2, 2, 2, 2], [0, 3, 3, 3, 3], [2e6, 4, 4, 4, 4]]}).length, 2);
});

test('rows of the stream go on with the curve, not too often', () => {
  const samples = samplesOf({columns, rows: [[1e6, 1, 1, 1, 1]]});
  assert.equal(addLive(samples, {memory_bytes: 5}, 1200), false);
  assert.equal(addLive(samples, {memory_bytes: 5, memory_current_bytes: 9, cpu_usec: 2, process_count: 1}, 2000), true);
  assert.deepEqual(samples.at(-1), {at: 2000, withCache: 9, memory: 5, cpuUsec: 2, processes: 1});
});

test('however long one looks, samples stay few, from all of the run, and keep its peaks', () => {
  const day = 86_400;
  let samples = [];
  for (let second = 0; second < day; second += 1) {
    const memory = second === 30_007 ? 9_000 : second === 80_001 ? 8_000 : second % 1_000;
    addLive(samples, {memory_bytes: memory, cpu_usec: second * 5e5}, second * 1000);
    samples = thinned(samples);
    assert.ok(samples.length <= MOST_SAMPLES);
  }
  assert.ok(samples.length > MOST_SAMPLES / 2);
  assert.deepEqual([samples[0].at, samples.at(-1).at], [0, (day - 1) * 1000]);
  const peaks = samples.filter((sample) => sample.memory >= 8_000);
  assert.deepEqual(peaks.map((sample) => sample.at), [30_007_000, 80_001_000]);
  const gaps = samples.slice(1).map((sample, i) => sample.at - samples[i].at);
  assert.ok(highest(gaps) < 3 * (day / (MOST_SAMPLES / 2)) * 1000, `a part is drawn with ${highest(gaps)} ms from one to the next`);
  assert.ok(samples.every((sample, i) => i === 0 || sample.at > samples[i - 1].at));
  assert.ok(cpuRates(samples).slice(1).every((rate) => Math.abs(rate - 0.5) < 1e-9));
});

test('few samples stay as they are, and those that nobody could take are no peaks', () => {
  const samples = samplesOf({columns, rows: [[1e6, 1, 1, 1, 1], [2e6, 2, 2, 2, 2]]});
  assert.equal(thinned(samples), samples);
  const unknown = Array.from({length: 100}, (none, i) => ({at: i, memory: i === 50 ? 0 : null}));
  assert.ok(thinned(unknown, 20).some((sample) => sample.memory === 0));
});

test('the highest of very many is found, too', () => {
  assert.equal(highest(Array.from({length: 300_000}, (none, i) => (i === 7 ? 12 : null))), 12);
  assert.equal(highest([]), 0);
  assert.equal(highest([null, undefined, NaN]), 0);
});

test('CPUs in use are between two samples', () => {
  const samples = samplesOf({columns, rows: [[0, 1, 1, 0, 1], [1e6, 1, 1, 2e6, 1], [3e6, 1, 1, 3e6, 1], [4e6, 1, 1, 1e6, 1]]});
  assert.deepEqual(cpuRates(samples), [null, 2, 0.5, 0]);
});

test('limits are steps at the moment they were changed', () => {
  const steps = limitSteps([
    {kind: 'registered', occurred_at: at(1), memory_limit_bytes: 100, details: {memory_headroom_bytes: 10}},
    {kind: 'orphan-found', occurred_at: at(2), memory_limit_bytes: 100},
    {kind: 'limits-changed', occurred_at: at(5), memory_limit_bytes: 200, details: {memory_headroom_bytes: 20}},
    {kind: 'ended', occurred_at: at(9), memory_limit_bytes: 200},
  ]);
  assert.deepEqual(steps, [{at: 1000, limit: 100, ceiling: 110}, {at: 5000, limit: 200, ceiling: 220}]);
});

test('a limit that changes between two samples is drawn as a step', () => {
  const samples = samplesOf({columns, rows: [[1e6, 8, 7, 0, 1], [9e6, 9, 8, 0, 1]]});
  const rows = memoryRows(samples, [{at: 1000, limit: 100, ceiling: 110}, {at: 5000, limit: 200, ceiling: null}]);
  assert.deepEqual(rows.map(([date, ...values]) => [date.getTime(), ...values]), [
    [1000, 7, 8, 100, 110], [4999, null, null, 100, 110], [5000, null, null, 200, null], [9000, 8, 9, 200, null]]);
});

test('no limits, no lines', () => {
  const rows = memoryRows(samplesOf({columns, rows: [[1e6, 8, 7, 0, 1]]}), []);
  assert.deepEqual(rows[0].slice(1), [7, 8, null, null]);
});

test('the verdict is marked, with its reason', () => {
  const marks = marksOf([{kind: 'registered', occurred_at: at(1)}, {kind: 'ending', reason: 'memory', occurred_at: at(2)},
    {kind: 'escalated', occurred_at: at(3)}, {kind: 'ended', occurred_at: 'never'}]);
  assert.deepEqual(marks, [{at: 2000, kind: 'verdict', text: 'memory'}, {at: 3000, kind: 'killed', text: 'SIGKILL'}]);
});

test('a scale of bytes has a few round lines', () => {
  for (const max of [1, 900, 5e4, 3e6, 7e8, 2 ** 31, 5e12]) {
    const ticks = byteTicks(0, max);
    assert.ok(ticks.length >= 2 && ticks.length <= 7, `${max}: ${ticks}`);
    assert.ok(ticks.every(Number.isInteger));
  }
  assert.deepEqual(byteTicks(0, 2.5 * 2 ** 30), [0, 2 ** 30, 2 ** 31].flatMap((tick, i) => (i === 0 ? [0, 2 ** 29] : i === 1 ? [2 ** 30, 3 * 2 ** 29] : [2 ** 31, 5 * 2 ** 29])));
});

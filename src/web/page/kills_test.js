// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {QUARTER_MS, barStarts, countKills, killOf, scaleFor, sinceFor, totals} from './kills.js';

const NOW = new Date(2026, 10, 21, 23, 42, 7).getTime();
const HOUR = 3_600_000;

test('24 hours are 23 whole ones, the one that it is, and the rest of the one in which they began', () => {
  for (const now of [NOW, new Date(2026, 10, 21, 23).getTime()]) {
    const starts = barStarts('day', now);
    assert.equal(starts.length, 25);
    assert.equal(starts.at(-1), new Date(2026, 10, 21, 23).getTime());
    assert.equal(starts[0], new Date(2026, 10, 20, 23).getTime());
    assert.equal(sinceFor('day', now), now - 24 * HOUR);
  }
});

test('a week is six days of the calendar, today, and the rest of the day in which it began, also where a clock is changed', () => {
  const afterChange = new Date(2026, 9, 27, 9).getTime(); // In many zones a night of this week has 25 hours.
  for (const now of [NOW, afterChange]) {
    const starts = barStarts('week', now);
    assert.equal(starts.length, 8);
    for (const start of starts) assert.equal(new Date(start).getHours(), 0);
    assert.equal(new Set(starts.map((start) => new Date(start).getDate())).size, 8);
    assert.ok(starts[0] <= sinceFor('week', now) && sinceFor('week', now) < starts[1]);
    assert.equal(new Date(sinceFor('week', now)).getHours(), new Date(now).getHours());
  }
});

test('a day that has 25 hours still has a bar for each of the last 24', () => {
  const now = new Date(2026, 9, 25, 12, 30).getTime();
  const starts = barStarts('day', now);
  assert.equal(new Set(starts).size, 25);
  assert.ok(starts.every((start, i) => i === 0 || start - starts[i - 1] === HOUR));
});

test('all of the last 24 hours counts, and nothing of before', () => {
  const day = (...kills) => totals(countKills(kills, 'day', NOW));
  const since = NOW - 24 * HOUR; // At 42 minutes and 7 seconds.
  const quarter = new Date(2026, 10, 20, 23, 30).getTime();
  assert.deepEqual(day({at: since, reason: 'oom', count: 1}, {at: since - 1, reason: 'memory', count: 1}), {oom: 1});
  assert.deepEqual(day({at: quarter + QUARTER_MS, span: QUARTER_MS, reason: 'oom', count: 2},
    {at: quarter - QUARTER_MS, span: QUARTER_MS, reason: 'memory', count: 1}), {oom: 2});
  assert.deepEqual(day({at: quarter, span: QUARTER_MS, reason: 'oom', count: 2}), {oom: 2}, 'nobody says that it is too much');
});

test('bars have as many kills as there are, if that is known', () => {
  const quarter = new Date(2026, 10, 20, 23, 30).getTime();
  const kills = [
    {at: quarter, span: QUARTER_MS, reason: 'memory', count: 6},
    {at: quarter, span: QUARTER_MS, reason: 'oom', count: 2},
    {at: quarter + QUARTER_MS, span: QUARTER_MS, reason: 'lost', count: 3},
    {at: NOW - 1, reason: 'requested', count: 1},
  ];
  const of = (sum) => countKills(kills, 'day', NOW, sum);
  const all = (sum) => of(sum).reduce((total, bar) => total + bar.total, 0);
  for (let sum = 4; sum <= 12; sum += 1) assert.equal(all(sum), sum);
  assert.deepEqual(totals(of(8)), {memory: 3, oom: 1, lost: 3, requested: 1});
  assert.equal(all(13), 12, 'one is on its way');
  assert.equal(all(2), 4, 'those are in the period, whoever says what');
  assert.deepEqual(of(4)[0], {start: new Date(2026, 10, 20, 23).getTime(), total: 3, counts: {lost: 3}});
});

test('kills are counted where they belong, and exits are none', () => {
  const kills = [
    {at: NOW, reason: 'memory', count: 2},
    {at: NOW - 20 * 60_000, reason: 'memory', count: 1},
    {at: NOW - HOUR, reason: 'oom', count: 1},
    {at: NOW - HOUR, reason: 'exited', count: 50},
    {at: NOW - 25 * HOUR, reason: 'lost', count: 9},
  ];
  const day = countKills(kills, 'day', NOW);
  assert.deepEqual(day.at(-1).counts, {memory: 3});
  assert.deepEqual(day.at(-2).counts, {oom: 1});
  assert.deepEqual(totals(day), {memory: 3, oom: 1});
  const week = countKills(kills, 'week', NOW);
  assert.equal(week.at(-1).total, 4);
  assert.equal(week.at(-2).total, 9);
});

test('the very start of an hour belongs to it', () => {
  const bars = countKills([{at: new Date(2026, 10, 21, 22).getTime(), reason: 'oom', count: 1},
    {at: new Date(2026, 10, 21, 22).getTime() - 1, reason: 'memory', count: 1}], 'day', NOW);
  assert.deepEqual(bars.at(-2).counts, {oom: 1});
  assert.deepEqual(bars.at(-3).counts, {memory: 1});
});

test('a reason that this page does not know is shown, not hidden', () => {
  assert.deepEqual(totals(countKills([{at: NOW, reason: 'of-the-future', count: 4}], 'day', NOW)), {lost: 4});
});

test('only ends that were no exits are kills', () => {
  const end = {kind: 'ended', reason: 'memory', occurred_at: '2026-11-21T12:00:00Z', event_id: 'e'};
  assert.deepEqual(killOf(end), {at: Date.parse('2026-11-21T12:00:00Z'), reason: 'memory', count: 1, eventId: 'e'});
  assert.equal(killOf({...end, reason: 'exited'}), null);
  assert.equal(killOf({...end, kind: 'ending'}), null);
  assert.equal(killOf({...end, occurred_at: 'never'}), null);
});

test('scales have whole numbers, reach what they must, and have few lines', () => {
  for (const max of [0, 1, 2, 3, 5, 7, 12, 24, 99, 100, 101, 4321]) {
    const lines = scaleFor(max);
    assert.equal(lines[0], 0);
    assert.ok(lines.at(-1) >= max, `${max}: ${lines}`);
    assert.ok(lines.length <= 6, `${max}: ${lines}`);
    assert.ok(lines.every(Number.isInteger));
  }
});

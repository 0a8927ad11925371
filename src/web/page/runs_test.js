// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {COLUMNS, LINGER_MS, Runs, Trend, VERDICT_WAIT_MS, keepOrder, matches, rowsInWindow, sortRuns} from './runs.js';

const GIB = 2 ** 30;
const NOW = Date.parse('2026-11-21T12:00:00Z');

const row = (name, more = {}) => ({key: `key-${name}`, run_id: `run-${name}`, registered_as: name, state: 'running', memory_bytes: GIB,
  memory_limit_bytes: 2 * GIB, cpu_usec: 0, process_count: 1, uid: 1000, grace_usec: 10e6,
  registered_at: '2026-11-21T11:00:00Z', deadline_at: '2026-11-21T13:00:00Z', ...more});
const record = (kind, name, more = {}) => ({event_id: `${kind}-${name}`, kind, run_id: `run-${name}`, registered_as: name,
  occurred_at: new Date(NOW).toISOString(), ...more});
const names = (runs) => runs.map((run) => run.name);

function runsOf(...rows) {
  const runs = new Runs();
  runs.apply(rows, NOW, {whole: true});
  return runs;
}

test('a changed row replaces the one of its key, and leaves the others', () => {
  const runs = runsOf(row('a'), row('b'));
  runs.apply([row('a', {memory_bytes: 1.5 * GIB})], NOW + 1000);
  assert.equal(runs.size, 2);
  assert.equal(runs.find({key: 'key-a'}).memory, 1.5 * GIB);
  assert.equal(runs.find({run_id: 'run-b'}).memory, GIB);
});

test('after a reconnection, what the first rows do not have is no more', () => {
  const runs = runsOf(row('a'), row('b'));
  runs.apply([row('b'), row('c')], NOW + 1000, {whole: true});
  assert.deepEqual(names(runs.values()).sort(), ['b', 'c']);
  assert.equal(runs.find({run_id: 'run-a'}), null);
});

test('an end shows its reason, and leaves the table after a while', () => {
  const runs = runsOf(row('a'));
  runs.note(record('ended', 'a', {reason: 'memory'}), NOW);
  runs.gone({run_id: 'run-a', key: 'key-a'}, NOW);
  const run = runs.find({key: 'key-a'});
  assert.equal(run.state, 'ended');
  assert.equal(run.reason, 'memory');
  assert.equal(runs.sweep(NOW + LINGER_MS - 1), false);
  assert.equal(runs.sweep(NOW + LINGER_MS), true);
  assert.equal(runs.size, 0);
});

test('one that was unregistered has not ended', () => {
  const runs = runsOf(row('a'), row('b'));
  runs.gone({run_id: 'run-a', key: 'key-a'}, NOW);
  runs.note(record('unregistered', 'a'), NOW);
  const run = runs.find({key: 'key-a'});
  assert.equal(run.state, 'unregistered');
  assert.equal(run.isOver, true);
  assert.equal(run.left(NOW), null);
  assert.deepEqual(names(runs.values().filter((each) => matches(each, {state: 'ended'}))), []);
  assert.deepEqual(names(sortRuns(runs.values(), 'state', 'ascending', NOW)), ['a', 'b']);
  runs.sweep(NOW + LINGER_MS);
  assert.deepEqual(names(runs.values()), ['b']);
});

test('a run that is gone before its last record is here waits for it', () => {
  const runs = runsOf(row('a'), row('b'));
  runs.gone({key: 'key-a'}, NOW);
  runs.gone({key: 'key-b'}, NOW);
  runs.note(record('ended', 'a', {reason: 'oom'}), NOW + 100);
  runs.sweep(NOW + VERDICT_WAIT_MS);
  assert.deepEqual(names(runs.values()), ['a']);
  assert.equal(runs.find({key: 'key-a'}).reason, 'oom');
});

test('a row that was on its way when the end came does not bring the run back', () => {
  const runs = runsOf(row('a'));
  runs.note(record('ended', 'a', {reason: 'memory'}), NOW);
  runs.apply([row('a', {state: 'ending'})], NOW + 10);
  assert.equal(runs.find({key: 'key-a'}).state, 'ended');
});

test('an id that is registered again is another row', () => {
  const runs = runsOf(row('a'));
  runs.note(record('ended', 'a', {reason: 'exited'}), NOW);
  runs.apply([row('a', {key: 'key-2', run_id: 'run-2'})], NOW + 10);
  assert.deepEqual(runs.values().map((run) => run.state).sort(), ['ended', 'running']);
});

test('the time left is to the deadline, and in the grace to its end', () => {
  const runs = runsOf(row('a'));
  const run = runs.find({key: 'key-a'});
  assert.equal(run.left(NOW), 3600e6);
  runs.note(record('ending', 'a', {reason: 'wall-clock', details: {grace_usec: 7e6}}), NOW);
  runs.apply([row('a', {state: 'ending'})], NOW + 500);
  assert.equal(run.left(NOW + 2000), 5e6);
  assert.equal(run.graceIsKnown, true);
});

test('no grace is longer than it is because of another clock', () => {
  const runs = runsOf(row('a'));
  runs.note(record('ending', 'a', {details: {grace_usec: 7e6}, occurred_at: new Date(NOW + 900).toISOString()}), NOW);
  runs.apply([row('a', {state: 'ending'})], NOW);
  assert.equal(runs.find({key: 'key-a'}).left(NOW), 7e6);
});

test('a grace that began before anybody looked is what it may take at most', () => {
  const runs = runsOf(row('a', {state: 'ending'}));
  const run = runs.find({key: 'key-a'});
  assert.equal(run.left(NOW), 10e6);
  assert.equal(run.graceIsKnown, false);
});

test('no deadline, no time left', () => {
  const run = runsOf(row('a', {deadline_at: null})).find({key: 'key-a'});
  assert.equal(run.left(NOW), null);
});

test('CPUs in use are the difference of two rows over the time between them', () => {
  const runs = runsOf(row('a', {cpu_usec: 1e6}));
  const run = runs.find({key: 'key-a'});
  assert.equal(run.cpuRate(NOW), null);
  runs.apply([row('a', {cpu_usec: 4e6})], NOW + 2000);
  assert.equal(run.cpuRate(NOW + 2000), 1.5);
  assert.equal(run.cpuRate(NOW + 60_000), 0, 'rows come when they change, so no row means no use');
});

test('a viewer who may not know names sees rows all the same', () => {
  const runs = new Runs();
  runs.apply([{key: 'abcdef0123456789', state: 'running', memory_bytes: GIB, memory_limit_bytes: null}], NOW, {whole: true});
  const run = runs.find({key: 'abcdef0123456789'});
  assert.equal(run.id, null);
  assert.equal(run.name, 'run abcdef01');
  assert.equal(run.share, null);
  runs.gone({key: 'abcdef0123456789'}, NOW);
  assert.equal(run.state, 'ended');
});

test('every column sorts both ways, and what has no value comes last', () => {
  const runs = runsOf(row('a2', {memory_bytes: 3, memory_limit_bytes: 100, process_count: 9, uid: 2}), row('a10', {memory_bytes: 5,
    memory_limit_bytes: null, deadline_at: null, uid: undefined, process_count: undefined}), row('b', {memory_bytes: 4, memory_limit_bytes: 5}));
  const sorted = (column, direction) => names(sortRuns(runs.values(), column, direction, NOW));
  assert.deepEqual(sorted('name', 'ascending'), ['a2', 'a10', 'b'], 'numbers in names are numbers');
  assert.deepEqual(sorted('name', 'descending'), ['b', 'a10', 'a2']);
  assert.deepEqual(sorted('memory', 'descending'), ['a10', 'b', 'a2']);
  assert.deepEqual(sorted('share', 'descending'), ['b', 'a2', 'a10']);
  assert.deepEqual(sorted('share', 'ascending'), ['a2', 'b', 'a10']);
  assert.equal(sorted('left', 'ascending').at(-1), 'a10');
  assert.equal(sorted('owner', 'descending').at(-1), 'a10');
  for (const column of Object.keys(COLUMNS)) {
    assert.equal(sorted(column, 'ascending').length, 3);
    assert.equal(sorted(column, 'descending').length, 3);
  }
});

test('by state, what needs a look comes first', () => {
  const runs = runsOf(row('r'), row('e', {state: 'ending'}), row('u', {state: 'unkillable'}), row('p', {state: 'placing'}));
  assert.deepEqual(names(sortRuns(runs.values(), 'state', 'ascending', NOW)), ['u', 'e', 'p', 'r']);
});

test('while somebody points at a row the order stays, and what is new comes last', () => {
  const runs = runsOf(row('a'), row('b'), row('c'));
  const before = sortRuns(runs.values(), 'name', 'descending', NOW);
  runs.apply([row('d')], NOW);
  assert.deepEqual(names(keepOrder(runs.values(), before)), ['c', 'b', 'a', 'd']);
});

test('a filter looks for all its words, in names, labels, states and reasons', () => {
  const runs = runsOf(row('Nightly-Align', {labels: {team: 'genomics'}, description: 'of the lab'}), row('other', {state: 'ending', uid: 7}));
  runs.note(record('ending', 'other', {reason: 'memory'}), NOW);
  const found = (filter) => names(runs.values().filter((run) => matches(run, filter)));
  assert.deepEqual(found({text: 'align'}), ['Nightly-Align']);
  assert.deepEqual(found({text: '  team=genomics NIGHTLY '}), ['Nightly-Align']);
  assert.deepEqual(found({text: 'nightly ending'}), []);
  assert.deepEqual(found({text: 'uid=7'}), ['other']);
  assert.deepEqual(found({text: 'ending memory'}), ['other']);
  assert.deepEqual(found({state: 'ending'}), ['other']);
  assert.deepEqual(found({reason: 'memory'}), ['other']);
  assert.deepEqual(found({reason: 'oom'}), []);
  assert.equal(found({}).length, 2);
});

test('what a filter found before an end it finds by the end, too', () => {
  const runs = runsOf(row('a'));
  const run = runs.find({key: 'key-a'});
  assert.equal(matches(run, {text: 'running'}), true);
  runs.note(record('ended', 'a', {reason: 'orphaned'}), NOW);
  assert.equal(matches(run, {text: 'running'}), false);
  assert.equal(matches(run, {text: 'orphaned'}), true);
});

test('only rows in sight are shown, and the one that has the focus', () => {
  const window = {count: 2000, top: 1000 * 30, height: 300, rowHeight: 30, overscan: 2};
  assert.deepEqual(rowsInWindow(window), [998, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011]);
  assert.equal(rowsInWindow({...window, pinned: 3})[0], 3);
  assert.equal(rowsInWindow({...window, pinned: 1999}).at(-1), 1999);
  assert.equal(rowsInWindow({...window, pinned: 1003}).filter((i) => i === 1003).length, 1);
  assert.deepEqual(rowsInWindow({count: 0, top: 0, height: 300, rowHeight: 30}), []);
  assert.deepEqual(rowsInWindow({count: 3, top: 9e6, height: 300, rowHeight: 30}), [0, 1, 2], 'rows went while one was far below');
});

test('a trend keeps five minutes, however often it is told', () => {
  for (const every of [100, 250, 1000, 1600, 2900, 5000]) {
    const trend = new Trend();
    const count = Math.floor(900_000 / every);
    for (let i = 0; i < count; i += 1) trend.add(NOW + i * every, i);
    assert.ok(trend.at.length <= 202, `${trend.at.length} points`);
    assert.equal(trend.at.at(-1), NOW + (count - 1) * every);
    assert.ok(trend.at.at(-1) - trend.at[0] >= 5 * 60_000);
    assert.ok(trend.at.every((at, i) => i === 0 || at > trend.at[i - 1]));
  }
});

test('samples from before the page was opened come before its own', () => {
  const trend = new Trend();
  trend.add(NOW, 10);
  trend.seed([[NOW - 20_000, 1], [NOW - 10_000, 5], [NOW + 5, 99]]);
  assert.deepEqual(trend.memory, [1, 5, 10]);
});

test('growth is by the minute, and nothing without two points', () => {
  const trend = new Trend();
  assert.equal(trend.growth(NOW), null);
  trend.add(NOW, 100);
  assert.equal(trend.growth(NOW), null);
  trend.add(NOW + 30_000, 130);
  assert.equal(trend.growth(NOW + 30_000), 60);
  assert.equal(trend.growth(NOW + 600_000), 0);
});

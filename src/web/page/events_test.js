// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {EventLog, isVerdict, nameOf, particulars, runsOf, sentence} from './events.js';

const GIB = 2 ** 30;
const record = (id, second, more = {}) => ({event_id: id, occurred_at: new Date(Date.UTC(2026, 10, 21, 12, 0, second)).toISOString(),
  kind: 'registered', ...more});
const ids = (records) => records.map((each) => each.event_id);

test('events are in the log once, newest first', () => {
  const log = new EventLog();
  assert.deepEqual(ids(log.add([record('b', 2), record('a', 1)])), ['a', 'b']);
  assert.deepEqual(ids(log.add([record('b', 2), record('c', 3)])), ['c']);
  assert.deepEqual(ids(log.records), ['c', 'b', 'a']);
});

test('what comes late, after a reconnection, goes to its place', () => {
  const log = new EventLog();
  log.add([record('a', 1), record('d', 9)]);
  log.add([record('b', 4)]);
  assert.deepEqual(ids(log.records), ['d', 'b', 'a']);
});

test('a log is bounded, and forgets which ids it had', () => {
  const log = new EventLog(3);
  for (let i = 0; i < 50; i += 1) log.add([record(`e${i}`, i)]);
  assert.deepEqual(ids(log.records), ['e49', 'e48', 'e47']);
  assert.equal(log.ids.size, 3);
  assert.deepEqual(log.add([record('e0', 0)]), [], 'older than all that it keeps');
});

test('an event without an id is none', () => {
  assert.deepEqual(new EventLog().add([{kind: 'ended'}]), []);
});

test('each kind has a sentence, and one of the future has its word', () => {
  for (const kind of ['registered', 'unregistered', 'limits-changed', 'limits-restored', 'extended', 'orphan-found', 'escaped',
    'ending', 'escalated', 'unkillable', 'ended', 'unreaped', 'adopted', 'daemon-started', 'daemon-stopped']) {
    const text = sentence({kind});
    assert.ok(text.length > 5 && text !== kind, `${kind}: ${text}`);
    assert.equal(particulars({kind}), '');
  }
  assert.equal(sentence({kind: 'constructor'}), 'constructor');
  assert.equal(sentence({}), '');
});

test('an end by memory says how much of what', () => {
  const end = {kind: 'ended', reason: 'memory', memory_bytes: 2.05 * GIB, memory_limit_bytes: 2 * GIB, duration_usec: 1511e6, escalated: true};
  assert.equal(particulars(end), '2.05 GiB of 2 GiB, after 25min 11s, with SIGKILL');
  assert.equal(sentence(end), 'was ended: used more memory than its limit, 2.05 GiB of 2 GiB, after 25min 11s, with SIGKILL');
});

test('an exit says how', () => {
  assert.equal(sentence({kind: 'ended', reason: 'exited', exit_code: 3, duration_usec: 61e6}), 'ended by itself, status 3, after 1min 1s');
  assert.equal(particulars({kind: 'ended', reason: 'exited', exit_signal: 11}), 'signal 11');
});

test('an end by the wall clock says of how long', () => {
  assert.equal(particulars({kind: 'ended', reason: 'wall-clock', duration_usec: 1801e6, wall_clock_limit_usec: 1800e6}), 'after 30min 1s of 30min');
});

test('only ends that were no exits are said aloud', () => {
  assert.equal(isVerdict({kind: 'ended', reason: 'memory'}), true);
  assert.equal(isVerdict({kind: 'ended', reason: 'exited'}), false);
  assert.equal(isVerdict({kind: 'ending', reason: 'memory'}), false);
});

test('a deleted analysis keeps the name that it was registered as', () => {
  assert.equal(nameOf({registered_as: 'a', analysis_id: null}), 'a');
  assert.equal(nameOf({kind: 'daemon-started'}), null);
});

test('the runs of an analysis are told apart, the newest first', () => {
  const runs = runsOf([record('4', 9, {run_id: 'second'}), record('3', 5, {run_id: 'first', kind: 'ended', reason: 'oom'}),
    record('1', 1, {run_id: 'first'}), record('0', 0)]);
  assert.deepEqual(runs.map((run) => run.runId), ['second', 'first']);
  assert.deepEqual(ids(runs[1].records), ['1', '3']);
  assert.equal(runs[1].end.reason, 'oom');
  assert.equal(runs[0].end, null);
});

test('a record that two answers have is once in its run, and an old run is behind the newer ones', () => {
  const newest = [record('9', 9, {run_id: 'new'}), record('8', 8, {run_id: 'new'})];
  const ofOld = [record('2', 2, {run_id: 'old', kind: 'ended', reason: 'memory'}), record('1', 1, {run_id: 'old'})];
  const runs = runsOf([...newest, ...ofOld, ...newest.slice(1), ...ofOld]);
  assert.deepEqual(runs.map((run) => run.runId), ['new', 'old']);
  assert.deepEqual(runs.map((run) => ids(run.records)), [['8', '9'], ['1', '2']]);
});

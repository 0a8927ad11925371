// SPDX-License-Identifier: Apache-2.0
//
// Event records: the newest ones without doubles, and each as a sentence.

import {formatBytes, formatSpan, isNumber, parseTime} from './format.js';
import {UNREGISTERED_TEXT, reasonText} from './words.js';

/** The newest records first, each once, at most `limit` of them. */
export class EventLog {
  constructor(limit = 200) {
    this.limit = limit;
    this.records = [];
    this.ids = new Set();
  }

  /** Adds what is new of `records`, in any order; returns that, oldest first. */
  add(records) {
    const fresh = [];
    for (const record of records) {
      const id = record.event_id;
      if (typeof id !== 'string' || this.ids.has(id)) continue;
      this.ids.add(id);
      fresh.push(record);
    }
    if (fresh.length === 0) return fresh;
    const at = (record) => parseTime(record.occurred_at) ?? 0;
    fresh.sort((a, b) => at(a) - at(b));
    this.records.unshift(...[...fresh].reverse());
    // A record that was late (after a reconnection) goes to its place; equal times stay as they came.
    this.records.sort((a, b) => at(b) - at(a));
    for (const old of this.records.splice(this.limit)) this.ids.delete(old.event_id);
    return fresh.filter((record) => this.ids.has(record.event_id));
  }

  clear() {
    this.records = [];
    this.ids.clear();
  }
}

export function nameOf(record) {
  return record.registered_as ?? record.analysis_id ?? null;
}

const ofLimit = (record) =>
  isNumber(record.memory_limit_bytes) ? ` of ${formatBytes(record.memory_limit_bytes)}` : ', no limit';

function evidence(record) {
  const parts = [];
  if (isNumber(record.memory_bytes) && (record.reason === 'memory' || record.reason === 'oom')) {
    parts.push(`${formatBytes(record.memory_bytes)}${ofLimit(record)}`);
  }
  if (isNumber(record.duration_usec)) {
    const limit = record.reason === 'wall-clock' && isNumber(record.wall_clock_limit_usec)
      ? ` of ${formatSpan(record.wall_clock_limit_usec)}` : '';
    parts.push(`after ${formatSpan(record.duration_usec)}${limit}`);
  }
  return parts;
}

function exitOf(record) {
  if (isNumber(record.exit_code)) return `status ${record.exit_code}`;
  return isNumber(record.exit_signal) ? `signal ${record.exit_signal}` : null;
}

const joined = (...parts) => parts.flat().filter((part) => part !== null && part !== undefined && part !== '').join(', ');
const memoryLimit = (record) => (isNumber(record.memory_limit_bytes) ? formatBytes(record.memory_limit_bytes) : null);
const timeLimit = (record) => (isNumber(record.wall_clock_limit_usec) ? formatSpan(record.wall_clock_limit_usec) : null);
const process = (record) => joined(record.comm, isNumber(record.pid) ? `pid ${record.pid}` : null);

/** Each kind: what happened, to be read after the name of the analysis, and what belongs to it. */
const KINDS = {
  'registered': {verb: 'is watched', more: (r) => joined(memoryLimit(r), timeLimit(r))},
  'unregistered': {verb: UNREGISTERED_TEXT},
  'limits-changed': {verb: 'has other limits', more: (r) => joined(memoryLimit(r), timeLimit(r))},
  'limits-restored': {verb: 'has its limits back, which somebody else had changed'},
  'extended': {verb: 'has more time', more: timeLimit},
  'orphan-found': {verb: 'has an orphan', more: process},
  'escaped': {verb: 'lost a process to another cgroup', more: process},
  'ending': {verb: 'is asked to end',
    more: (r) => joined(evidence(r), isNumber(r.details?.grace_usec) ? `grace ${formatSpan(r.details.grace_usec)}` : null)},
  'escalated': {verb: 'did not end in its grace and was killed'},
  'unkillable': {verb: 'survives SIGKILL'},
  'ended': {verb: 'was ended',
    more: (r) => joined(r.reason === 'exited' ? exitOf(r) : null, evidence(r), r.escalated === true ? 'with SIGKILL' : null)},
  'unreaped': {verb: 'left zombies that nobody reaps'},
  'adopted': {verb: 'is watched again, by a new daemon'},
  'daemon-started': {verb: 'The watchdog watches'},
  'daemon-stopped': {verb: 'The watchdog has stopped; limits stay in force'},
};

const kindOf = (record) => (Object.hasOwn(KINDS, record.kind) ? KINDS[record.kind] : {verb: String(record.kind ?? '')});

/** What belongs to an event beyond its kind and reason: "2.05 GiB of 2 GiB, after 25min 11s". */
export function particulars(record) {
  return kindOf(record).more?.(record) ?? '';
}

/** What happened, as words to be heard after the name of the analysis. */
export function sentence(record) {
  const verb = record.kind === 'ended' && record.reason === 'exited' ? reasonText('exited') : kindOf(record).verb;
  const why = (record.kind === 'ended' || record.kind === 'ending') && record.reason !== 'exited' ? reasonText(record.reason) : '';
  return joined(why === '' ? verb : `${verb}: ${why}`, particulars(record));
}

/** What is said aloud: ends that were no exits. */
export function isVerdict(record) {
  return (record.kind === 'ended' && record.reason !== 'exited') || record.kind === 'unkillable';
}

/**
 * The runs that records of one analysis are about, newest first: [{runId, records (oldest first), end}]. A record may be
 * among them more than once.
 */
export function runsOf(records) {
  const byRun = new Map();
  const known = new Set();
  const at = (record) => parseTime(record.occurred_at) ?? 0;
  for (const record of [...records].sort((a, b) => at(a) - at(b))) {
    if (typeof record.run_id !== 'string' || known.has(record.event_id)) continue;
    known.add(record.event_id);
    if (!byRun.has(record.run_id)) byRun.set(record.run_id, {runId: record.run_id, records: [], end: null});
    const run = byRun.get(record.run_id);
    run.records.push(record);
    if (record.kind === 'ended' || record.kind === 'unregistered') run.end = record;
  }
  return [...byRun.values()].reverse();
}

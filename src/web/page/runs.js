// SPDX-License-Identifier: Apache-2.0
//
// The runs as the page knows them: rows of the stream laid over each other, what follows from two of them (CPU in use,
// the trend), and in which order and which of them are shown. No page, no clock: whoever calls says what time it is.

import {isNumber, parseTime} from './format.js';

/** For how long a run that has ended stays in the table, with its verdict. */
export const LINGER_MS = 30_000;
/** A run may be gone before its last record is here. */
export const VERDICT_WAIT_MS = 3_000;
/** What the trend shows, and how fine. */
export const TREND_MS = 5 * 60_000;
const TREND_STEP_MS = 3_000;
/** Without news for that long, a run that is watched uses no CPU: rows come when they change. */
const CPU_IDLE_MS = 5_000;

/** Memory in the last minutes, a point every few seconds; the last one is always the newest. */
export class Trend {
  constructor() {
    this.at = [];
    this.memory = [];
  }

  add(at, memory) {
    if (!isNumber(memory)) return;
    const last = this.at.length - 1;
    if (last >= 0 && at < this.at[last]) return;
    // The last point moves until it is a step away from the one before it.
    if (last >= 1 && at - this.at[last - 1] < TREND_STEP_MS) {
      this.at[last] = at;
      this.memory[last] = memory;
      return;
    }
    this.at.push(at);
    this.memory.push(memory);
    // One from before stays: the line comes from there.
    while (this.at.length > 2 && this.at[1] < at - TREND_MS) {
      this.at.shift();
      this.memory.shift();
    }
  }

  /** Lays samples that were taken before this page was opened in front of its own. */
  seed(points) {
    const own = this.at.map((at, i) => [at, this.memory[i]]);
    const first = own.length > 0 ? own[0][0] : Infinity;
    this.at = [];
    this.memory = [];
    for (const [at, memory] of [...points.filter(([at]) => at < first), ...own]) this.add(at, memory);
  }

  /** Bytes a minute, over the last minute or what is there of it; null where that is too little to say. */
  growth(now) {
    const last = this.at.length - 1;
    if (last < 1) return null;
    let first = last;
    while (first > 0 && now - this.at[first - 1] <= 60_000) first -= 1;
    // Nothing new in the last minute: it has not changed.
    if (first === last) return 0;
    const span = now - this.at[first];
    return span < 1_000 ? null : ((this.memory[last] - this.memory[first]) * 60_000) / span;
  }
}

export class Run {
  constructor(key) {
    this.key = key;
    this.row = {};
    this.trend = new Trend();
    this.seeded = false;
    this.reason = null; // of its end, once that is decided
    this.grace = null; // µs
    this.graceEnds = null; // ms
    this.graceIsKnown = false; // else it is what it may take at most
    this.verdict = null; // its last record: of its end, or of its being watched no more
    this.leavesAt = null; // ms: when it is taken out of the table
    this.cpu = null; // {at, usec, rate}
    this.words = null; // for the filter
  }

  get runId() {
    return this.row.run_id ?? null;
  }
  /** The analysis id; null for who may not know it. */
  get id() {
    return this.row.registered_as ?? this.row.analysis_id ?? null;
  }
  get name() {
    return this.id ?? `run ${this.key.slice(0, 8)}`;
  }
  get state() {
    // Its last record says which: one that was unregistered lives on, and nobody watches it.
    return this.isOver ? (this.verdict?.kind ?? 'ended') : (this.row.state ?? 'running');
  }
  /** It is watched no more. */
  get isOver() {
    return this.verdict !== null || this.leavesAt !== null;
  }
  get memory() {
    return isNumber(this.row.memory_bytes) ? this.row.memory_bytes : null;
  }
  get limit() {
    return isNumber(this.row.memory_limit_bytes) ? this.row.memory_limit_bytes : null;
  }
  get share() {
    return this.memory === null || this.limit === null || this.limit === 0 ? null : this.memory / this.limit;
  }
  get processes() {
    return isNumber(this.row.process_count) ? this.row.process_count : null;
  }
  get uid() {
    return isNumber(this.row.uid) ? this.row.uid : null;
  }

  /** µs to its deadline, or, once it is being ended, to the end of its grace; null: no limit, or nothing to wait for. */
  left(now) {
    if (this.isOver || this.state === 'unkillable') return null;
    const until = this.state === 'ending' ? this.graceEnds : this.deadline;
    if (until === null) return null;
    // A grace has begun, whatever the clocks of two machines say.
    return this.state === 'ending' ? Math.min((until - now) * 1000, this.grace) : (until - now) * 1000;
  }

  age(now) {
    return this.registered === null ? null : Math.max(0, now - this.registered) * 1000;
  }

  /** CPUs in use; null until that can be said. */
  cpuRate(now) {
    if (this.cpu === null || this.isOver) return null;
    return now - this.cpu.at > CPU_IDLE_MS ? 0 : this.cpu.rate;
  }

  update(row, now) {
    const before = this.row.state;
    this.row = row;
    this.words = null;
    this.deadline = parseTime(row.deadline_at);
    this.registered = parseTime(row.registered_at);
    this.trend.add(now, this.memory);
    if (isNumber(row.cpu_usec)) this.#addCpu(row.cpu_usec, now);
    if (row.state === 'ending' && before !== 'ending' && this.graceEnds === null && isNumber(row.grace_usec)) {
      this.grace = row.grace_usec;
      this.graceEnds = now + this.grace / 1000;
    }
    if (row.reason) this.reason = row.reason;
  }

  #addCpu(usec, now) {
    if (this.cpu === null) {
      this.cpu = {at: now, usec, rate: null};
    } else if (now - this.cpu.at >= 500) {
      this.cpu = {at: now, usec, rate: Math.max(0, usec - this.cpu.usec) / ((now - this.cpu.at) * 1000)};
    }
  }

  /** What a record says of this run. */
  note(record, now) {
    const at = parseTime(record.occurred_at) ?? now;
    this.words = null;
    if (record.kind === 'ending') {
      this.reason = record.reason ?? this.reason;
      const grace = record.details?.grace_usec ?? this.row.grace_usec;
      if (isNumber(grace)) {
        this.grace = grace;
        this.graceEnds = at + grace / 1000;
        this.graceIsKnown = true;
      }
    } else if (record.kind === 'ended' || record.kind === 'unregistered') {
      this.verdict = record;
      this.reason = record.reason ?? null;
      this.leavesAt = now + LINGER_MS;
    }
  }

  /** Lower-cased text that a filter looks into. */
  text() {
    if (this.words === null) {
      const {row} = this;
      const labels = Object.entries(row.labels ?? {}).map(([key, value]) => `${key}=${value}`);
      this.words = [this.name, row.unit, row.description, row.command, row.host, ...labels,
        this.uid === null ? null : `uid=${this.uid}`, isNumber(row.leader_pid) ? `pid=${row.leader_pid}` : null,
        this.state, this.reason].filter((word) => typeof word === 'string' && word !== '').join('\n').toLowerCase();
    }
    return this.words;
  }
}

/** All runs, by key. */
export class Runs {
  constructor() {
    this.byKey = new Map();
    this.byRunId = new Map();
    /** Goes up when runs come, go or change their state, so that a choice among them is made anew. */
    this.version = 0;
  }

  get size() {
    return this.byKey.size;
  }

  /** Rows that are new or changed; `whole`: these are all there are. */
  apply(rows, now, {whole = false} = {}) {
    const seen = new Set();
    for (const row of rows) {
      const key = row.key ?? row.run_id;
      if (typeof key !== 'string') continue;
      seen.add(key);
      let run = this.byKey.get(key);
      if (run === undefined) {
        run = new Run(key);
        this.byKey.set(key, run);
        if (row.run_id) this.byRunId.set(row.run_id, run);
        this.version += 1;
      }
      // A row may have been on its way when the end came.
      if (run.verdict === null) {
        const before = run.state;
        run.leavesAt = null;
        run.update(row, now);
        if (run.state !== before) this.version += 1;
      }
    }
    if (!whole) return;
    for (const [key, run] of this.byKey) {
      if (!seen.has(key) && run.verdict === null) this.#forget(run);
    }
  }

  find({key, run_id: runId}) {
    return this.byKey.get(key) ?? this.byRunId.get(runId) ?? null;
  }

  /** A run that is no more. */
  gone(which, now) {
    const run = this.find(which);
    if (run !== null && run.leavesAt === null) {
      run.leavesAt = now + VERDICT_WAIT_MS;
      run.words = null;
      this.version += 1;
    }
  }

  note(record, now) {
    const run = this.find(record);
    if (run === null) return;
    run.note(record, now);
    this.version += 1;
  }

  /** Takes out those whose verdict was shown for long enough; whether there were any. */
  sweep(now) {
    let any = false;
    for (const run of this.byKey.values()) {
      if (run.leavesAt !== null && run.leavesAt <= now) {
        this.#forget(run);
        any = true;
      }
    }
    return any;
  }

  clear() {
    this.version += 1;
    this.byKey.clear();
    this.byRunId.clear();
  }

  values() {
    return [...this.byKey.values()];
  }

  #forget(run) {
    this.version += 1;
    this.byKey.delete(run.key);
    if (run.runId !== null) this.byRunId.delete(run.runId);
  }
}

// --- order and choice ----------------------------------------------------------------------------------------------------

const STATE_RANK = {unkillable: 0, ending: 1, ended: 2, unregistered: 3, placing: 4, running: 5};

/** What each column is sorted by, and which way round people want it first. */
export const COLUMNS = {
  name: {value: (run) => run.name, first: 'ascending'},
  state: {value: (run) => STATE_RANK[run.state] ?? 6, first: 'ascending'},
  memory: {value: (run) => run.memory, first: 'descending'},
  share: {value: (run) => run.share, first: 'descending'},
  trend: {value: (run, now) => run.trend.growth(now), first: 'descending'},
  cpu: {value: (run, now) => run.cpuRate(now), first: 'descending'},
  processes: {value: (run) => run.processes, first: 'descending'},
  left: {value: (run, now) => run.left(now), first: 'ascending'},
  owner: {value: (run) => run.uid, first: 'ascending'},
  age: {value: (run, now) => run.age(now), first: 'ascending'},
};

const collator = new Intl.Collator(undefined, {numeric: true, sensitivity: 'base'});

/** Sorted anew; what has no value comes last either way round, and what is equal is in the order of names. */
export function sortRuns(runs, column, direction, now) {
  const {value} = COLUMNS[column];
  const sign = direction === 'descending' ? -1 : 1;
  const keyed = runs.map((run) => ({run, value: value(run, now)}));
  keyed.sort((a, b) => {
    const aMissing = a.value === null || a.value === undefined;
    const bMissing = b.value === null || b.value === undefined;
    if (aMissing !== bMissing) return aMissing ? 1 : -1;
    if (!aMissing) {
      const order = typeof a.value === 'string' ? collator.compare(a.value, b.value) : a.value - b.value;
      if (order !== 0) return sign * order;
    }
    return collator.compare(a.run.name, b.run.name) || (a.run.key < b.run.key ? -1 : 1);
  });
  return keyed.map(({run}) => run);
}

/** The order as it was, for as long as somebody points at a row: what is new comes last. */
export function keepOrder(runs, before) {
  const rank = new Map(before.map((run, i) => [run.key, i]));
  const known = runs.filter((run) => rank.has(run.key));
  known.sort((a, b) => rank.get(a.key) - rank.get(b.key));
  return [...known, ...runs.filter((run) => !rank.has(run.key))];
}

/** `text`: words that all have to be there. `state`, `reason`: one of them, or empty. */
export function matches(run, {text = '', state = '', reason = ''}) {
  if (state !== '' && run.state !== state) return false;
  if (reason !== '' && run.reason !== reason) return false;
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== '');
  return words.every((word) => run.text().includes(word));
}

/** Which rows a window shows: those in sight, some above and below them, and one that must not go (it has the focus). */
export function rowsInWindow({count, top, height, rowHeight, overscan = 8, pinned = -1}) {
  const first = Math.max(0, Math.min(count - 1, Math.floor(top / rowHeight)) - overscan);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + overscan);
  const rows = [];
  for (let i = first; i < last; i += 1) rows.push(i);
  if (pinned >= 0 && pinned < count) {
    if (pinned < first) rows.unshift(pinned);
    if (pinned >= last) rows.push(pinned);
  }
  return rows;
}

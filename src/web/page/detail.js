// SPDX-License-Identifier: Apache-2.0
//
// One analysis: what it was given and used, its curves with the limits drawn in and the moment of the verdict marked,
// the processes at that moment, its story and its events.

import {ApiError, now, readAnalysis, readEventsOf, readExplanation, readSeries} from './api.js';
import {byId, h, setText, detailLink} from './dom.js';
import {eventItem} from './events_view.js';
import {EventLog, nameOf, runsOf} from './events.js';
import {UNKNOWN, formatBytes, formatClock, formatCountdown, formatCpus, formatIso, formatMoment, formatSpan, isNumber, parseTime,
  plural} from './format.js';
import {addLive, byteTicks, cpuRates, highest, limitSteps, marksOf, memoryRows, samplesOf, thinned} from './series.js';
import {LIVE_STATES, UNREGISTERED_TEXT, reasonClass, reasonText, stateClass} from './words.js';

const EVENTS = 1_000;
const REREAD_MS = 700;
/** So small beside its limit, a curve is flat at the bottom: it begins with a scale of its own. */
const FLAT_SHARE = 0.05;

/** dygraphs' own legend writes style attributes, which the Content-Security-Policy refuses; the page has its own. */
function dropLegend(Dygraph) {
  Dygraph.PLUGINS = Dygraph.PLUGINS.filter((plugin) => plugin !== Dygraph.Plugins.Legend);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function memoryText(row, end) {
  const used = end?.memory_bytes ?? row?.memory_bytes;
  return isNumber(used) ? formatBytes(used) : UNKNOWN;
}

function limitText(bytes) {
  return isNumber(bytes) ? formatBytes(bytes) : 'none';
}

export class Detail {
  constructor() {
    this.id = null;
    this.token = 0; // Answers to older questions are not shown.
    this.log = new EventLog(EVENTS);
    this.ofWanted = new EventLog(EVENTS); // The run that is asked for may be older than all that is in `log`.
    this.charts = [];
    this.charted = null; // the run that they show
    this.chosen = null; // ms: the sample that is pointed at, or was gone to by keys
    this.toLimit = true;
    this.rereadTimer = null;
    this.reading = false;
    this.readAgain = false;
    byId('runs').addEventListener('change', (event) => {
      location.hash = detailLink(this.id, event.target.value);
    });
    byId('scale').addEventListener('click', () => {
      this.toLimit = !this.toLimit;
      this.chosenScale = true;
      this.#drawCharts();
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#drawCharts({anew: true}));
  }

  show(id, runId) {
    if (this.id === id && this.wantedRun === runId) return;
    this.hide();
    this.id = id;
    this.wantedRun = runId;
    this.row = null;
    this.runId = null;
    this.samples = [];
    this.toLimit = true;
    this.chosenScale = false;
    this.log.clear();
    this.ofWanted.clear();
    setText(byId('detail-title'), id);
    byId('detail-state').hidden = true;
    byId('detail-body').hidden = true;
    this.#say('Looking it up …');
    this.#read();
  }

  hide() {
    this.token += 1;
    this.id = null;
    clearTimeout(this.rereadTimer);
    this.rereadTimer = null;
    this.reading = false;
    this.readAgain = false;
    this.chosen = null;
    setText(byId('chart-value'), '');
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
  }

  /** Nothing of it stays in the page. */
  clear() {
    this.hide();
    Object.assign(this, {row: null, run: null, runId: null, samples: [], marks: [], told: null});
    this.log.clear();
    this.ofWanted.clear();
    byId('detail-body').hidden = true;
    byId('detail-state').hidden = true;
    for (const id of ['detail-title', 'detail-state', 'facts', 'runs', 'memory-words', 'memory-legend', 'cpu-words', 'cpu-legend',
      'explain', 'processes-note', 'detail-events']) byId(id).replaceChildren();
    byId('processes').tBodies[0].replaceChildren();
  }

  get isOpen() {
    return this.id !== null;
  }

  /**
   * Asks for all of it again, soon: after a reconnection, or when something has happened to it. What happens may be faster
   * than that, or than the answers; so neither the wait nor the asking begins anew.
   */
  reread() {
    if (!this.isOpen) return;
    if (this.reading) this.readAgain = true;
    else this.rereadTimer ??= setTimeout(() => this.#read(), REREAD_MS);
  }

  /** Rows of the stream. */
  rows(rows) {
    if (!this.isOpen || this.runId === null) return;
    const row = rows.find((each) => each.run_id === this.runId);
    if (row === undefined) return;
    this.row = row;
    if (!addLive(this.samples, row, now())) return;
    this.samples = thinned(this.samples);
    this.dirty = true;
  }

  record(record) {
    if (!this.isOpen || nameOf(record) !== this.id) return;
    // A new run of it, where the last one is looked at, is looked at next.
    if (this.log.add([record]).length > 0) this.reread();
  }

  /** What moves by itself; `live`: numbers are of now. */
  render(live) {
    if (!this.isOpen || byId('detail-body').hidden) return;
    if (this.dirty && live) {
      this.dirty = false;
      this.#drawCharts();
    }
    this.#drawFacts(live);
  }

  #say(text) {
    const note = byId('detail-note');
    note.hidden = text === '';
    setText(note, text);
  }

  async #read() {
    const token = ++this.token;
    const isOld = () => token !== this.token;
    clearTimeout(this.rereadTimer);
    this.rereadTimer = null;
    this.reading = true;
    this.readAgain = false;
    try {
      await this.#askForAll(isOld);
    } finally {
      if (!isOld()) {
        this.reading = false;
        if (this.readAgain) this.reread();
      }
    }
  }

  async #askForAll(isOld) {
    const {id, wantedRun} = this;
    const or = (promise, other) => promise.catch((error) => (error instanceof ApiError ? other(error) : Promise.reject(error)));
    let failure = null;
    const fail = (error) => {
      failure = error;
      return null;
    };
    const [analysis, events, ofWanted] = await Promise.all([or(readAnalysis(id), fail), or(readEventsOf(id, EVENTS), fail),
      wantedRun === null ? [] : or(readEventsOf(id, EVENTS, wantedRun), fail)]);
    if (isOld()) return;
    this.log.add([...(analysis?.events ?? []), ...(events ?? [])]);
    this.ofWanted.add(ofWanted ?? []);
    const runs = runsOf([...this.log.records, ...this.ofWanted.records]);
    const run = wantedRun === null ? runs[0] : runs.find((each) => each.runId === wantedRun);
    if (run === undefined && !(analysis?.run_id && (wantedRun ?? analysis.run_id) === analysis.run_id)) {
      this.#tellFailure(failure);
      return;
    }
    this.run = run ?? {runId: analysis.run_id, records: [], end: null};
    if (this.runId !== this.run.runId) this.samples = [];
    this.runId = this.run.runId;
    const lives = analysis !== null && analysis.run_id === this.runId && LIVE_STATES.includes(analysis.state);
    this.row = lives ? analysis : null;

    const [series, story] = await Promise.all([or(readSeries(id, this.runId), () => null), or(readExplanation(id, this.runId), () => null)]);
    if (isOld()) return;
    if (series !== null) this.samples = thinned(samplesOf(series)); // Else what was seen is what there is.
    this.#say('');
    byId('detail-body').hidden = false;
    setText(byId('explain'), story?.text?.trimEnd() ?? 'The story can\'t be told now.');
    this.#drawRuns(runs);
    this.#drawFacts(true);
    this.#drawProcesses();
    this.#drawEvents();
    this.#drawCharts();
  }

  #tellFailure(failure) {
    byId('detail-body').hidden = true;
    if (failure === null || failure.status === 404) this.#say('There is no such analysis on record, or it is not yours to see.');
    else if (failure.status === 401 || failure.status === 403) this.#say('To see an analysis by its name, sign in with a token.');
    else {
      this.#say('It can\'t be looked up now; it will be tried again.');
      this.rereadTimer = setTimeout(() => this.#read(), 3_000);
    }
  }

  #drawRuns(runs) {
    byId('other-runs').hidden = runs.length < 2;
    byId('runs').replaceChildren(...runs.map((run) => h('option', {
      value: run.runId,
      selected: run.runId === this.runId,
      text: `${formatMoment(parseTime(run.records[0].occurred_at), now())} · ${run.end === null ? 'lives' : (run.end.reason ?? run.end.kind)}`,
    })));
    byId('runs').value = this.runId;
  }

  #drawFacts(live) {
    const {row} = this;
    const {records, end} = this.run;
    const begin = records.find((record) => record.kind === 'registered' || record.kind === 'adopted') ?? null;
    const decision = [...records].reverse().find((record) => record.kind === 'ending') ?? null;
    const state = end !== null ? end.kind : row !== null ? (row.state ?? 'running') : 'unknown';
    const reason = end?.reason ?? (state === 'ending' ? (row?.reason ?? decision?.reason) : null) ?? null;

    const badge = byId('detail-state');
    badge.hidden = state === 'unknown';
    const word = live || end !== null ? (reason === null ? state : `${state} · ${reason}`) : `${state}, when last heard of`;
    setText(badge, word);
    badge.className = `badge ${stateClass(state)}${reason === null ? '' : ` ${reasonClass(reason)}`}`;
    badge.dataset.state = state;

    const limit = row?.memory_limit_bytes ?? end?.memory_limit_bytes ?? begin?.memory_limit_bytes;
    const headroom = row?.memory_headroom_bytes ?? end?.details?.memory_headroom_bytes ?? begin?.details?.memory_headroom_bytes;
    const began = parseTime(row?.registered_at) ?? parseTime(begin?.occurred_at);
    const deadline = parseTime(row?.deadline_at);
    const uid = row?.uid ?? end?.uid ?? begin?.uid;
    const facts = [];
    const fact = (name, text, title = null) => {
      if (text !== null && text !== undefined && text !== '') facts.push([name, String(text), title]);
    };
    const livesOn = state === 'unregistered';
    if (end !== null) fact('Why', livesOn ? `it ${UNREGISTERED_TEXT}` : reasonText(end.reason) || end.kind);
    fact('Memory', `${memoryText(row, end)} of ${limitText(limit)}${isNumber(headroom) && isNumber(limit) ? `, ceiling ${formatBytes(limit + headroom)}` : ''}`);
    fact('Peak with cache', formatBytes(row?.memory_peak_bytes ?? end?.memory_peak_bytes));
    if (end !== null) {
      const wall = end.wall_clock_limit_usec;
      fact('Time', `${formatSpan(end.duration_usec)}${isNumber(wall) ? ` of ${formatSpan(wall)}` : ', no limit'}`);
    } else if (row !== null && live) {
      fact('Time left', state === 'ending' ? this.#graceText(decision) : deadline === null ? 'no limit' : formatCountdown((deadline - now()) * 1000),
        deadline === null ? null : `until ${formatIso(deadline)}`);
    }
    fact('Began', formatMoment(began, now()), formatIso(began));
    if (end !== null) fact(livesOn ? 'Unregistered' : 'Ended', formatMoment(parseTime(end.occurred_at), now()), formatIso(parseTime(end.occurred_at)));
    fact('CPU time', formatSpan(row?.cpu_usec ?? end?.cpu_usec));
    if (row !== null) fact('Processes', row.process_count);
    if (isNumber(end?.exit_code)) fact('Exit status', end.exit_code);
    if (isNumber(end?.exit_signal)) fact('Died of signal', end.exit_signal);
    fact('Owner', isNumber(uid) ? `uid ${uid}` : null);
    fact('Leader', isNumber(row?.leader_pid) ? `pid ${row.leader_pid}` : isNumber(begin?.pid) ? `pid ${begin.pid}` : null);
    fact('Host', row?.host ?? end?.host ?? begin?.host);
    fact('Unit', row?.unit ?? begin?.unit ?? end?.unit);
    fact('Command', begin?.cmdline ?? end?.cmdline ?? row?.command);
    fact('About', row?.description);
    fact('Labels', Object.entries(row?.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(', '));
    fact('Run', this.runId);

    const told = JSON.stringify(facts);
    if (told === this.told) return;
    this.told = told;
    byId('facts').replaceChildren(...facts.map(([name, text, title]) => h('div', {class: ['Command', 'Unit', 'Run', 'Labels', 'About'].includes(name) ? 'long' : null},
      h('dt', {text: name}), h('dd', {text, title}))));
  }

  #graceText(decision) {
    const grace = decision?.details?.grace_usec ?? this.row?.grace_usec;
    const at = parseTime(decision?.occurred_at);
    if (at === null || !isNumber(grace)) return 'in its grace';
    const left = Math.min(at - now(), 0) + grace / 1000; // it has begun, whatever the two clocks say
    return left > 0 ? `kill in ${formatCountdown(left * 1000)}` : 'being killed';
  }

  #drawProcesses() {
    const source = [...this.run.records].reverse().find((record) => Array.isArray(record.processes) && record.processes.length > 0);
    byId('processes-section').hidden = source === undefined && this.run.end?.kind !== 'ended';
    const processes = source?.processes ?? [];
    byId('processes').hidden = processes.length === 0;
    byId('processes').tBodies[0].replaceChildren(...processes.map((process) => h('tr', {'data-pid': String(process.pid)},
      h('td', {class: 'num', text: String(process.pid)}),
      h('td', {class: 'num', text: String(process.ppid)}),
      h('td', {class: 'process', title: process.cmdline || null}, h('b', {text: process.comm}),
        process.cmdline ? h('span', {class: 'cmdline', text: ` ${process.cmdline}`}) : null),
      h('td', {class: 'num', text: formatBytes(process.rss)}),
      h('td', {class: 'num', text: formatSpan(process.cpu_usec)}))));
    const note = byId('processes-note');
    const count = source?.details?.process_count;
    const more = isNumber(count) && count > processes.length ? `The largest ${processes.length} of ${count}.` : '';
    setText(note, processes.length === 0 ? 'Nobody decided this end, so nobody looked at its processes.' : more);
    note.hidden = note.textContent === '';
  }

  #drawEvents() {
    byId('detail-events').replaceChildren(...[...this.run.records].reverse().map((record) => eventItem(record, {withName: false})));
  }

  // --- curves ------------------------------------------------------------------------------------------------------------

  #drawCharts({anew = false} = {}) {
    if (!this.isOpen || byId('detail-body').hidden) return;
    const note = byId('chart-note');
    const enough = this.samples.length >= 2;
    const known = typeof window.Dygraph === 'function';
    setText(note, !known ? 'There is no chart library on the gateway\'s host (Debian\'s libjs-dygraphs).'
      : enough ? '' : 'There are no samples of this run, so there are no curves.');
    note.hidden = note.textContent === '';
    for (const id of ['memory-chart', 'cpu-chart']) byId(id).closest('section').hidden = !known || !enough;
    if (!known || !enough) return;

    const steps = limitSteps(this.run.records);
    if (steps.length === 0 && this.row !== null) {
      const {memory_limit_bytes: limit, memory_headroom_bytes: headroom} = this.row;
      steps.push({at: 0, limit: limit ?? null, ceiling: isNumber(limit) && isNumber(headroom) ? limit + headroom : null});
    }
    const memory = memoryRows(this.samples, steps);
    const rates = cpuRates(this.samples);
    // The first sample has no rate of its own; a curve that began later would not be in line with the one above it.
    const cpu = this.samples.map((sample, i) => [new Date(sample.at), rates[i]]);
    this.marks = marksOf(this.run.records);
    const used = highest(memory.flatMap((row) => [row[1], row[2]]));
    const limits = highest(memory.flatMap((row) => [row[3], row[4]]));
    if (!this.chosenScale) this.toLimit = limits === 0 || used >= limits * FLAT_SHARE;
    byId('scale').hidden = limits === 0;
    byId('scale').setAttribute('aria-pressed', String(this.toLimit));
    const range = [0, Math.max(1, (this.toLimit ? Math.max(used, limits) : used) * 1.08)];
    this.#tellCurves(memory, rates);

    // Charts that are made anew have forgotten what somebody has zoomed in on.
    if (anew || this.charts.length === 0 || this.charted !== this.runId) {
      dropLegend(window.Dygraph);
      for (const chart of this.charts) chart.destroy();
      this.charts = [this.#memoryChart(memory, range), this.#cpuChart(cpu)];
      if (this.charted !== this.runId) this.chosen = null;
      this.charted = this.runId;
    } else {
      this.charts[0].updateOptions({file: memory, valueRange: range});
      this.charts[1].updateOptions({file: cpu});
    }
    if (this.chosen !== null) this.#mark();
    this.#drawLegends();
  }

  /** The curves in words. */
  #tellCurves(memory, rates) {
    const first = this.samples[0].at;
    const last = this.samples[this.samples.length - 1].at;
    const limit = memory[memory.length - 1][3];
    const verdict = this.marks.find((mark) => mark.kind === 'verdict');
    setText(byId('memory-words'), `From ${formatMoment(first)} to ${formatMoment(last)}: at most ${formatBytes(highest(this.samples.map((s) => s.memory)))}`
      + ` of ${limitText(limit)}, at the end ${formatBytes(this.samples[this.samples.length - 1].memory)}.`
      + (verdict === undefined ? '' : ` Verdict at ${formatClock(verdict.at)}: ${verdict.text}.`));
    setText(byId('cpu-words'), `At most ${formatCpus(highest(rates))} CPUs in use.`);
  }

  #options({written}) {
    const grid = colour('--line');
    return {
      legend: 'never',
      gridLineColor: grid,
      axisLineColor: grid,
      axisLabelFontSize: 12,
      rightGap: 8,
      strokeWidth: 1.6,
      highlightCircleSize: 3,
      connectSeparatedPoints: true,
      labelsUTC: false,
      underlayCallback: (context, area, chart) => this.#drawMarks(context, area, chart, written),
      highlightCallback: (event, x) => {
        if (x !== null) this.#choose(x);
      },
      unhighlightCallback: () => this.#choose(null),
      drawCallback: (chart, initial) => {
        if (!initial) this.#align(chart);
      },
    };
  }

  #memoryChart(rows, range) {
    const chart = new window.Dygraph(byId('memory-chart'), rows, {
      ...this.#options({written: true}),
      labels: ['time', 'memory', 'withCache', 'limit', 'ceiling'],
      series: {
        memory: {color: colour('--curve'), strokeWidth: 2, fillGraph: true},
        withCache: {color: colour('--curve-light')},
        limit: {color: colour('--limit'), stepPlot: true, highlightCircleSize: 0},
        ceiling: {color: colour('--ceiling'), strokePattern: [2, 3], stepPlot: true, highlightCircleSize: 0},
      },
      fillAlpha: 0.1,
      valueRange: range,
      axes: {
        y: {axisLabelWidth: 66, ticker: (min, max) => byteTicks(min, max).map((v) => ({v, label: formatBytes(v)}))},
      },
    });
    this.#makeReadable(byId('memory-chart'));
    return chart;
  }

  #cpuChart(rows) {
    const chart = new window.Dygraph(byId('cpu-chart'), rows, {
      ...this.#options({written: false}),
      labels: ['time', 'cpu'],
      series: {cpu: {color: colour('--cpu'), fillGraph: true, stepPlot: false}},
      fillAlpha: 0.12,
      includeZero: true,
      axes: {y: {axisLabelWidth: 66, pixelsPerLabel: 26, axisLabelFormatter: (value) => String(Number(value.toFixed(2)))}},
    });
    this.#makeReadable(byId('cpu-chart'));
    return chart;
  }

  /** Where one chart looks, the other does; one that shows all goes on doing so while samples come. */
  #align(leader) {
    if (this.aligning) return;
    this.aligning = true;
    const zoomed = leader.isZoomed('x');
    const [from, to] = leader.xAxisRange();
    for (const chart of this.charts) {
      const [a, b] = chart.xAxisRange();
      const differs = zoomed ? Math.abs(a - from) > 1 || Math.abs(b - to) > 1 : chart.isZoomed('x');
      if (chart !== leader && differs) chart.updateOptions({dateWindow: zoomed ? [from, to] : null});
    }
    this.aligning = false;
  }

  #drawMarks(context, area, chart, written) {
    const colours = {verdict: colour('--limit'), killed: colour('--ceiling'), end: colour('--muted'), change: colour('--line-strong')};
    context.save();
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    let lastText = -Infinity;
    for (const mark of this.marks ?? []) {
      const x = Math.round(chart.toDomXCoord(mark.at)) + 0.5;
      if (x < area.x - 1 || x > area.x + area.w + 1) continue;
      context.strokeStyle = colours[mark.kind];
      context.lineWidth = mark.kind === 'verdict' ? 1.5 : 1;
      context.setLineDash(mark.kind === 'verdict' ? [] : [2, 3]);
      context.beginPath();
      context.moveTo(x, area.y);
      context.lineTo(x, area.y + area.h);
      context.stroke();
      // Only the verdict is written out, on one of the charts: the list below has the rest.
      if (!written || mark.kind !== 'verdict' || x - lastText < 80) continue;
      lastText = x;
      const text = `verdict: ${mark.text}`;
      const {width} = context.measureText(text);
      const left = x + 6 + width > area.x + area.w ? x - 6 - width : x + 6;
      context.fillStyle = colour('--surface');
      context.fillRect(left - 3, area.y + 3, width + 6, 17);
      context.fillStyle = colours.verdict;
      context.fillText(text, left, area.y + 16);
    }
    context.restore();
  }

  #nearest(ms) {
    let best = 0;
    this.samples.forEach((sample, i) => {
      if (Math.abs(sample.at - ms) < Math.abs(this.samples[best].at - ms)) best = i;
    });
    return best;
  }

  /** The sample of about this moment; null: none, so that the legends are of the last one. */
  #choose(ms) {
    this.chosen = ms === null || this.samples.length === 0 ? null : this.samples[this.#nearest(ms)].at;
    if (this.chosen === null) for (const chart of this.charts) chart.clearSelection();
    this.#drawLegends();
  }

  /** The chosen sample in both charts, which forget it when they are drawn anew. */
  #mark() {
    for (const chart of this.charts) {
      const last = chart.numRows() - 1;
      let row = 0;
      while (row < last && chart.getValue(row, 0) < this.chosen) row += 1;
      chart.setSelection(row);
    }
  }

  /** What there is to be read off the curves at a sample. */
  #valuesAt(i) {
    const sample = this.samples[i];
    const rates = cpuRates(this.samples.slice(Math.max(0, i - 1), i + 1));
    const steps = limitSteps(this.run.records).filter((step, at) => at === 0 || step.at <= sample.at);
    const {limit, ceiling} = steps[steps.length - 1] ?? {limit: this.row?.memory_limit_bytes ?? null, ceiling: null};
    return {sample, limit, ceiling, cpus: rates[rates.length - 1]};
  }

  #drawLegends() {
    if (this.samples.length === 0) return;
    const {sample, limit, ceiling, cpus} = this.#valuesAt(this.chosen === null ? this.samples.length - 1 : this.#nearest(this.chosen));
    const item = (key, name, text) => h('li', {}, h('span', {class: `key ${key}`}), `${name} `, h('b', {text}));
    byId('memory-legend').replaceChildren(
      item('curve', 'in use', formatBytes(sample.memory)), item('curve-light', 'with page cache', formatBytes(sample.withCache)),
      ...(isNumber(limit) ? [item('limit', 'limit', formatBytes(limit))] : []),
      ...(isNumber(ceiling) ? [item('ceiling', 'ceiling', formatBytes(ceiling))] : []),
      h('li', {class: 'at', text: this.chosen === null ? '' : `at ${formatClock(sample.at)}`}));
    byId('cpu-legend').replaceChildren(item('cpu', 'CPUs', formatCpus(cpus)),
      h('li', {class: 'at', text: `${sample.processes ?? UNKNOWN} processes`}));
  }

  /** A sample in words, for who doesn't see the legends. A mouse tells nothing: it goes over very many. */
  #tellSample(i) {
    const {sample, limit, ceiling, cpus} = this.#valuesAt(i);
    setText(byId('chart-value'), `${formatMoment(sample.at, now())}: ${[
      isNumber(sample.memory) ? `${formatBytes(sample.memory)} in use` : null,
      isNumber(sample.withCache) ? `${formatBytes(sample.withCache)} with page cache` : null,
      isNumber(limit) ? `limit ${formatBytes(limit)}` : null,
      isNumber(ceiling) ? `ceiling ${formatBytes(ceiling)}` : null,
      isNumber(cpus) ? `${formatCpus(cpus)} CPUs` : null,
      isNumber(sample.processes) ? plural(sample.processes, 'process', 'processes') : null,
    ].filter((part) => part !== null).join(', ')}.`);
  }

  /** From sample to sample without a mouse. */
  #makeReadable(element) {
    // The labels of the axes say nothing without the curve; what it is, memory-words and chart-value tell.
    element.firstElementChild.setAttribute('aria-hidden', 'true');
    element.onkeydown = (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || this.samples.length === 0) return;
      const last = this.samples.length - 1;
      const from = this.chosen === null ? -1 : this.#nearest(this.chosen);
      const to = {
        ArrowLeft: from < 0 ? last : Math.max(0, from - 1),
        ArrowRight: from < 0 ? 0 : Math.min(last, from + 1),
        Home: 0,
        End: last,
      }[event.key];
      if (event.key === 'Escape') {
        for (const chart of this.charts) chart.resetZoom();
        this.#choose(null);
        setText(byId('chart-value'), 'All of the run is shown.');
      } else if (to !== undefined) {
        event.preventDefault();
        this.#choose(this.samples[to].at);
        this.#mark();
        this.#tellSample(to);
      }
    };
  }
}

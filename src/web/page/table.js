// SPDX-License-Identifier: Apache-2.0
//
// The table of what lives. Only the rows in sight are elements, so that thousands cost no more than dozens; a row keeps
// its elements for as long as it is in sight, and only what differs is written to them.

import {h, svg, setText, setAttribute, detailLink} from './dom.js';
import {UNKNOWN, formatBytes, formatClock, formatCountdown, formatCpus, formatIso, formatPercent, formatSpan, isNumber}
  from './format.js';
import {COLUMNS, TREND_MS, keepOrder, matches, rowsInWindow, sortRuns} from './runs.js';
import {UNREGISTERED_TEXT, reasonClass, reasonText, stateClass} from './words.js';

const SORT_EVERY_MS = 1_000;
/** While somebody points at a row, it doesn't run away. */
const HOLD_MS = 2_500;
const TREND_WIDTH = 100;
const TREND_HEIGHT = 24;

function trendPath(trend, now) {
  const from = now - TREND_MS;
  const points = [];
  trend.at.forEach((at, i) => {
    if (at >= from) points.push([at, trend.memory[i]]);
    else points[0] = [from, trend.memory[i]];
  });
  if (points.length === 0) return {line: '', area: ''};
  points.push([now, points[points.length - 1][1]]);
  const top = Math.max(1, ...points.map(([, memory]) => memory)) * 1.08;
  const at = ([ms, memory]) => `${(((ms - from) / TREND_MS) * TREND_WIDTH).toFixed(1)} ${
    (TREND_HEIGHT - (memory / top) * (TREND_HEIGHT - 2)).toFixed(1)}`;
  const line = `M${points.map(at).join('L')}`;
  const x = (ms) => (((ms - from) / TREND_MS) * TREND_WIDTH).toFixed(1);
  return {line, area: `${line}L${x(now)} ${TREND_HEIGHT}L${x(points[0][0])} ${TREND_HEIGHT}Z`};
}

function growthText(growth) {
  if (growth === null) return '';
  return Math.abs(growth) < 64 * 1024 ? 'steady' : `${growth > 0 ? '+' : '−'}${formatBytes(Math.abs(growth))} a minute`;
}

class RowView {
  constructor(run) {
    this.link = h('a', {class: 'name'});
    this.anonymous = h('span', {class: 'name anonymous'});
    this.about = h('span', {class: 'about'});
    this.badge = h('span', {class: 'badge'});
    this.memory = h('td', {'class': 'c-memory num', 'data-column': 'memory'});
    this.fill = h('span', {class: 'fill'});
    this.bar = h('div', {'class': 'bar', 'role': 'meter', 'aria-valuemin': '0'}, this.fill);
    this.percent = h('span', {class: 'percent'});
    this.area = svg('path', {class: 'area'});
    this.line = svg('path', {class: 'line'});
    this.growth = h('span', {class: 'unseen'});
    this.cpu = h('td', {'class': 'c-cpu num', 'data-column': 'cpu'});
    this.processes = h('td', {'class': 'c-processes num', 'data-column': 'processes'});
    this.left = h('td', {'class': 'c-left num', 'data-column': 'left'});
    this.age = h('td', {'class': 'c-age num', 'data-column': 'age'});
    this.owner = h('td', {'class': 'c-owner num', 'data-column': 'owner'});
    this.name = h('th', {'scope': 'row', 'class': 'c-name', 'data-column': 'name'}, this.link, this.anonymous, this.about);
    this.share = h('td', {'class': 'c-share', 'data-column': 'share'}, h('div', {class: 'bar-and-text'}, this.bar, this.percent));
    this.trend = h('td', {'class': 'c-trend', 'data-column': 'trend'},
      svg('svg', {'viewBox': `0 0 ${TREND_WIDTH} ${TREND_HEIGHT}`, 'preserveAspectRatio': 'none', 'aria-hidden': 'true'},
        this.area, this.line), this.growth);
    this.element = h('tr', {'data-key': run.key}, this.name,
      h('td', {'class': 'c-state', 'data-column': 'state'}, this.badge), this.memory, this.share, this.trend, this.cpu,
      this.processes, this.left, this.age, this.owner);
  }

  update(run, index, now, live) {
    const {element} = this;
    const state = run.state;
    setAttribute(element, 'aria-rowindex', String(index + 2)); // The header is row 1.
    setAttribute(element, 'data-id', run.id);
    setAttribute(element, 'data-state', state);
    setAttribute(element, 'data-reason', run.reason);
    setAttribute(element, 'class', stateClass(state) + (index % 2 === 1 ? ' odd' : ''));

    const known = run.id !== null;
    this.link.hidden = !known;
    this.anonymous.hidden = known;
    setText(known ? this.link : this.anonymous, run.name);
    // Without a link the name itself takes the focus, when it is gone to by keys.
    setAttribute(this.name, 'tabindex', known ? null : '-1');
    if (known) {
      setAttribute(this.link, 'href', detailLink(run.id));
      setAttribute(this.link, 'title', [run.id, run.row.description, run.row.unit].filter(Boolean).join('\n'));
    }
    const reason = state === 'ending' || state === 'ended' || state === 'unkillable' ? run.reason : null;
    const word = reason === null ? state : `${state} · ${reason}`;
    setText(this.badge, word);
    setAttribute(this.badge, 'class', `badge ${stateClass(state)}${reason === null ? '' : ` ${reasonClass(reason)}`}`);
    setAttribute(this.badge, 'title', state === 'unregistered' ? UNREGISTERED_TEXT : reasonText(reason) || null);

    setText(this.memory, formatBytes(run.memory));
    setAttribute(this.memory, 'title', isNumber(run.row.memory_current_bytes)
      ? `${formatBytes(run.row.memory_current_bytes)} with page cache, at most ${formatBytes(run.row.memory_peak_bytes)}` : null);
    this.#updateBar(run);

    const growth = run.trend.growth(now);
    const {line, area} = trendPath(run.trend, now);
    setAttribute(this.line, 'd', line);
    setAttribute(this.area, 'd', area);
    setText(this.growth, growthText(growth));
    setAttribute(this.trend, 'title', growthText(growth) || null);

    setText(this.cpu, live ? formatCpus(run.cpuRate(now)) : UNKNOWN);
    setAttribute(this.cpu, 'title', isNumber(run.row.cpu_usec) ? `${formatSpan(run.row.cpu_usec)} of CPU time` : null);
    setText(this.processes, run.processes === null ? UNKNOWN : String(run.processes));
    const orphans = run.row.orphan_count;
    setAttribute(this.processes, 'title', isNumber(orphans) && orphans > 0 ? `${orphans} of them orphaned` : null);

    const left = live ? run.left(now) : null;
    setText(this.left, this.#leftText(run, state, left, live));
    setAttribute(this.left, 'title', run.state === 'running' && run.deadline !== null ? `until ${formatIso(run.deadline)}` : null);
    setText(this.age, live && !run.isOver ? formatCountdown(run.age(now)) : UNKNOWN);
    setAttribute(this.age, 'title', run.registered === null ? null : `since ${formatIso(run.registered)}`);
    setText(this.owner, run.uid === null ? UNKNOWN : String(run.uid));

    // What a narrow screen has no columns for.
    const leftText = this.left.textContent;
    setText(this.about, (state === 'running'
      ? [leftText === UNKNOWN ? null : left === null || left <= 0 ? leftText : `${leftText} left`,
        run.processes === null ? null : `${run.processes} proc${run.processes === 1 ? '' : 's'}`, run.uid === null ? null : `uid ${run.uid}`]
      : state === 'ending' && live ? [leftText, reason] : [state, reason]).filter(Boolean).join(' · '));
  }

  focus() {
    (this.link.hidden ? this.name : this.link).focus({preventScroll: true});
  }

  #leftText(run, state, left, live) {
    if (!live || run.isOver) return UNKNOWN;
    if (state === 'unkillable') return 'survives';
    if (state === 'ending') {
      if (left === null) return 'ending';
      return left > 0 ? `kill in ${run.graceIsKnown ? '' : '≤ '}${formatCountdown(left)}` : 'being killed';
    }
    if (run.deadline === null) return 'no limit';
    return left > 0 ? formatCountdown(left) : 'over';
  }

  #updateBar(run) {
    const {share, memory, limit} = run;
    this.bar.hidden = share === null;
    setText(this.percent, limit === null ? (memory === null ? UNKNOWN : 'no limit') : formatPercent(share));
    if (share === null) return;
    setAttribute(this.bar, 'aria-valuemax', String(limit));
    setAttribute(this.bar, 'aria-valuenow', String(memory));
    setAttribute(this.bar, 'aria-valuetext', `${formatBytes(memory)} of ${formatBytes(limit)}`);
    setAttribute(this.bar, 'aria-label', `Memory of ${run.name}`);
    setAttribute(this.share, 'title', `${formatBytes(memory)} of ${formatBytes(limit)}`);
    setAttribute(this.bar, 'data-level', share >= 0.95 ? 'high' : share >= 0.8 ? 'warm' : 'calm');
    const width = Math.min(1, share).toFixed(4);
    if (this.shown !== width) {
      this.shown = width;
      this.fill.style.setProperty('transform', `scaleX(${width})`);
    }
  }
}

export class RunsTable {
  constructor({table, scroller, shown, none}) {
    this.table = table;
    this.body = table.tBodies[0];
    this.scroller = scroller;
    this.shownText = shown;
    this.noneText = none;
    this.views = new Map();
    this.order = [];
    this.column = 'share';
    this.direction = 'descending';
    this.filter = {text: '', state: '', reason: ''};
    this.sortedAt = 0;
    this.anew = true;
    this.pointedAt = -Infinity;
    this.rowHeight = 0;
    this.height = 0;
    this.spacers = [];
    this.onSorted = () => {};

    this.buttons = [...table.tHead.querySelectorAll('button[data-sort]')];
    for (const button of this.buttons) button.addEventListener('click', () => this.sortBy(button.dataset.sort));
    this.body.addEventListener('pointermove', () => { this.pointedAt = performance.now(); });
    this.body.addEventListener('pointerleave', () => { this.pointedAt = -Infinity; });
    scroller.addEventListener('keydown', (event) => this.#onKey(event));
  }

  sortBy(column) {
    if (column === this.column) {
      this.direction = this.direction === 'ascending' ? 'descending' : 'ascending';
    } else {
      this.column = column;
      this.direction = COLUMNS[column].first;
    }
    for (const button of this.buttons) {
      setAttribute(button.closest('th'), 'aria-sort', button.dataset.sort === column ? this.direction : null);
    }
    this.scroller.scrollTop = 0;
    this.anew = true;
    this.onSorted();
  }

  choose(filter) {
    this.filter = filter;
    this.scroller.scrollTop = 0;
    this.anew = true;
  }

  /** Writes what is to be seen now. `live`: the numbers are of now. */
  render(runs, now, live) {
    this.#reorder(runs, now);
    const count = this.order.length;
    setAttribute(this.table, 'aria-rowcount', String(count + 1));
    setText(this.shownText, !live && runs.size === 0 ? '' : count === runs.size ? `${count}` : `${count} of ${runs.size}`);
    this.noneText.hidden = count > 0;
    if (count === 0) {
      setText(this.noneText, !live ? '' : runs.size === 0 ? 'Nothing is watched at the moment.' : 'No analysis is like that.');
    }

    const rowHeight = this.rowHeight || 36;
    if (this.height === 0) this.height = this.scroller.clientHeight;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.closest('tr') : null;
    const pinned = focused === null ? -1 : this.order.findIndex((run) => run.key === focused.dataset.key);
    const rows = rowsInWindow({count, top: this.scroller.scrollTop, height: this.height, rowHeight, pinned});
    const wanted = [];
    let spacer = 0;
    let next = 0;
    const skip = (until) => {
      if (until > next) wanted.push(this.#spacer(spacer++, (until - next) * rowHeight));
    };
    for (const i of rows) {
      skip(i);
      const run = this.order[i];
      let view = this.views.get(run.key);
      if (view === undefined) {
        view = new RowView(run);
        this.views.set(run.key, view);
      }
      view.update(run, i, now, live);
      wanted.push(view.element);
      next = i + 1;
    }
    skip(count);
    this.#place(wanted, focused);
    const inSight = new Set(rows.map((i) => this.order[i].key));
    for (const key of this.views.keys()) {
      if (!inSight.has(key)) this.views.delete(key);
    }
    this.#measure(rows);
  }

  /** The runs in sight, for whoever wants to know more about them. */
  inSight() {
    return this.order.filter((run) => this.views.has(run.key));
  }

  #reorder(runs, now) {
    const tick = performance.now();
    const held = tick - this.pointedAt < HOLD_MS || this.body.contains(document.activeElement);
    if (!this.anew && tick - this.sortedAt < SORT_EVERY_MS && runs.version === this.version) return;
    const chosen = runs.values().filter((run) => matches(run, this.filter));
    this.order = sortRuns(chosen, this.column, this.direction, now);
    if (held && !this.anew) this.order = keepOrder(this.order, this.before ?? []);
    this.before = this.order;
    this.version = runs.version;
    this.sortedAt = tick;
    this.anew = false;
  }

  #spacer(i, height) {
    if (this.spacers[i] === undefined) {
      this.spacers[i] = h('tr', {'class': 'spacer', 'aria-hidden': 'true'}, h('td'));
    }
    const [cell] = this.spacers[i].cells;
    const text = `${height}px`;
    if (cell.style.height !== text) cell.style.setProperty('height', text);
    return this.spacers[i];
  }

  /** An element that is moved loses the focus, so the row that has it stays, and the others move round it. */
  #place(wanted, focused) {
    let cursor = this.body.firstChild;
    for (const element of wanted) {
      if (element === focused && element.parentNode === this.body) {
        while (cursor !== element && cursor !== null) {
          const after = cursor.nextSibling;
          cursor.remove();
          cursor = after;
        }
      }
      if (element === cursor) cursor = cursor.nextSibling;
      else this.body.insertBefore(element, cursor);
    }
    while (cursor !== null) {
      const after = cursor.nextSibling;
      cursor.remove();
      cursor = after;
    }
  }

  /** The window or the size of its text has changed. */
  resized() {
    this.height = 0;
    this.rowHeight = 0;
  }

  /** Once: asking for a height in each frame would have everything laid out twice. */
  #measure(rows) {
    if (rows.length === 0 || this.rowHeight > 0) return;
    const height = this.views.get(this.order[rows[0]].key)?.element.getBoundingClientRect().height ?? 0;
    if (height > 0) this.rowHeight = height;
  }

  /** Up and down from row to row, also to those that are no elements yet. */
  #onKey(event) {
    const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity};
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target !== this.scroller && !this.body.contains(event.target)) return;
    const row = event.target.closest('tr');
    const from = row === null ? -1 : this.order.findIndex((run) => run.key === row.dataset.key);
    if (this.order.length === 0 || (from === -1 && step < 0 && step !== -Infinity)) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(this.order.length - 1, from === -1 && Number.isFinite(step) ? 0 : from + step));
    this.focusRow(to);
  }

  focusRow(index) {
    const {scroller} = this;
    const rowHeight = this.rowHeight || 36;
    const head = this.table.tHead.getBoundingClientRect().height;
    const top = index * rowHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + rowHeight + head > scroller.scrollTop + scroller.clientHeight) {
      scroller.scrollTop = top + rowHeight + head - scroller.clientHeight;
    }
    const {key} = this.order[index];
    this.onSorted(true);
    this.views.get(key)?.focus();
  }
}

/** What the table says of numbers that are not of now. */
export function staleText(at) {
  return at === null ? 'not live' : `not live: as of ${formatClock(at)}`;
}

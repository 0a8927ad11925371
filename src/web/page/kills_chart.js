// SPDX-License-Identifier: Apache-2.0
//
// The chart of kills: stacked bars by reason, drawn in SVG; the same numbers as a legend with sums and as a table.

import {h, svg, setText} from './dom.js';
import {formatClock, formatDay, plural} from './format.js';
import {PERIODS, countKills, scaleFor, totals} from './kills.js';
import {KILL_REASONS, reasonClass, reasonText} from './words.js';

const HEIGHT = 150;
const TOP = 8;
const BOTTOM = 20;
const LEFT = 30;

const WEEKDAYS = new Intl.DateTimeFormat(undefined, {weekday: 'short'});

function barName(period, {start}, isFirst) {
  const name = period === 'day' ? `${formatClock(start).slice(0, 5)} to ${formatClock(start + 3_600_000).slice(0, 5)}` : formatDay(start);
  return isFirst ? `rest of ${name}` : name;
}

function tickText(period, start, i, bars) {
  if (period === 'week') return WEEKDAYS.format(start);
  const fromEnd = bars - 1 - i;
  return fromEnd % 6 === 0 ? formatClock(start).slice(0, 5) : '';
}

const byReason = (counts) => KILL_REASONS.filter((reason) => counts[reason] > 0);

export class KillsChart {
  constructor({chart, legend, table, tip, buttons}) {
    this.chart = chart;
    this.legend = legend;
    this.table = table;
    this.tip = tip;
    this.period = 'day';
    this.kills = null; // Not known is not none.
    this.ofDay = null;
    this.drawn = '';
    for (const button of buttons) {
      button.addEventListener('click', () => {
        this.period = button.dataset.period;
        for (const each of buttons) each.setAttribute('aria-pressed', String(each === button));
        this.draw(this.now ?? Date.now(), this.ofDay);
      });
    }
    this.width = 0; // Asked for in each frame it would cost a layout.
    new ResizeObserver(() => {
      this.width = chart.clientWidth;
      this.draw(this.now ?? Date.now(), this.ofDay);
    }).observe(chart);
    chart.addEventListener('pointerleave', () => { this.tip.hidden = true; });
  }

  set(kills) {
    this.kills = kills;
    this.drawn = '';
  }

  /** `ofDay`: how many there were in the last 24 hours, where that is known. */
  draw(now, ofDay) {
    this.now = now;
    this.ofDay = ofDay;
    const {width} = this;
    if (width === 0 || this.kills === null) return;
    const bars = countKills(this.kills, this.period, now, this.period === 'day' ? ofDay : null);
    const state = JSON.stringify([width, this.period, bars]);
    if (state === this.drawn) return;
    this.drawn = state;
    this.#drawBars(bars, width);
    this.#drawLegend(totals(bars));
    this.#drawTable(bars);
  }

  #drawBars(bars, width) {
    const lines = scaleFor(Math.max(...bars.map((bar) => bar.total)));
    const top = lines[lines.length - 1];
    const inner = HEIGHT - TOP - BOTTOM;
    const y = (count) => TOP + inner - (count / top) * inner;
    const step = (width - LEFT) / bars.length;
    const gap = Math.min(8, Math.max(2, step * 0.22));
    const all = bars.reduce((sum, bar) => sum + bar.total, 0);
    const root = svg('svg', {'width': String(width), 'height': String(HEIGHT), 'role': 'img',
      'aria-label': `${plural(all, 'kill')} in ${PERIODS[this.period].title}`});
    for (const count of lines) {
      root.append(svg('line', {class: 'grid', x1: LEFT, x2: width, y1: y(count), y2: y(count)}),
        svg('text', {class: 'tick', x: LEFT - 6, y: y(count) + 4, 'text-anchor': 'end', text: String(count)}));
    }
    bars.forEach((bar, i) => {
      const x = LEFT + i * step;
      let base = 0;
      const group = svg('g', {'data-start': String(bar.start), 'data-total': String(bar.total)});
      for (const reason of byReason(bar.counts)) {
        const count = bar.counts[reason];
        group.append(svg('rect', {'class': `part ${reasonClass(reason)}`, 'data-reason': reason, 'data-count': String(count),
          'x': x + gap / 2, 'width': Math.max(1, step - gap), 'y': y(base + count), 'height': Math.max(1, y(base) - y(base + count))}));
        base += count;
      }
      group.append(svg('rect', {class: 'catch', x, width: step, y: TOP, height: inner,
        onpointerenter: (event) => this.#showTip(bar, i === 0, event), onpointermove: (event) => this.#moveTip(event)}));
      const text = tickText(this.period, bar.start, i, bars.length);
      if (text !== '') {
        // The last one would stick out.
        const last = i === bars.length - 1 && this.period === 'day';
        group.append(svg('text', {class: 'tick', x: last ? width : x + step / 2, y: HEIGHT - 5,
          'text-anchor': last ? 'end' : 'middle', text}));
      }
      root.append(group);
    });
    if (all === 0) {
      root.append(svg('text', {class: 'empty', x: LEFT + (width - LEFT) / 2, y: TOP + inner / 2, 'text-anchor': 'middle',
        text: `None in ${PERIODS[this.period].title}`}));
    }
    this.tip.hidden = true;
    this.chart.replaceChildren(root);
  }

  #showTip(bar, isFirst, event) {
    if (bar.total === 0) {
      this.tip.hidden = true;
      return;
    }
    this.tip.replaceChildren(h('strong', {text: barName(this.period, bar, isFirst)}),
      ...byReason(bar.counts).reverse().map((reason) => h('div', {},
        h('span', {class: `key ${reasonClass(reason)}`}), ` ${reason} `, h('b', {text: String(bar.counts[reason])}))));
    this.tip.hidden = false;
    this.#moveTip(event);
  }

  #moveTip(event) {
    if (this.tip.hidden) return;
    const {width, height} = this.tip.getBoundingClientRect();
    const x = Math.max(4, Math.min(window.innerWidth - width - 4, event.clientX + 12));
    const y = Math.max(4, Math.min(window.innerHeight - height - 4, event.clientY + 12));
    this.tip.style.setProperty('left', `${x}px`);
    this.tip.style.setProperty('top', `${y}px`);
  }

  #drawLegend(sums) {
    this.legend.replaceChildren(...byReason(sums).map((reason) => h('li', {'data-reason': reason, 'title': reasonText(reason)},
      h('span', {class: `key ${reasonClass(reason)}`}), `${reason} `, h('b', {text: String(sums[reason])}))));
  }

  #drawTable(bars) {
    const reasons = byReason(totals(bars));
    const cells = (texts, tag) => texts.map((text) => h(tag, {class: 'num', scope: tag === 'th' ? 'col' : null, text}));
    this.table.replaceChildren(
      h('caption', {class: 'unseen', text: `Kills in ${PERIODS[this.period].title}`}),
      h('thead', {}, h('tr', {}, h('th', {scope: 'col', text: this.period === 'day' ? 'Hour' : 'Day'}), ...cells([...reasons, 'all'], 'th'))),
      h('tbody', {}, ...bars.filter((bar) => bar.total > 0).reverse().map((bar) => h('tr', {},
        h('th', {scope: 'row', text: barName(this.period, bar, bar === bars[0])}),
        ...cells([...reasons.map((reason) => String(bar.counts[reason] ?? 0)), String(bar.total)], 'td')))));
  }

  /** For where the counts can't be had. */
  fail(message) {
    this.kills = null;
    this.drawn = '';
    this.legend.replaceChildren();
    this.table.replaceChildren();
    const note = h('p', {class: 'none'});
    setText(note, message);
    this.chart.replaceChildren(note);
  }
}

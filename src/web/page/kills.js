// SPDX-License-Identifier: Apache-2.0
//
// What was killed and why, in bars: an hour each for a day, a day each for a week, in the viewer's own time. A period
// ends now and begins in the midst of an hour or a day, of which its first bar has the rest.

import {KILL_REASONS} from './words.js';
import {parseTime} from './format.js';

export const PERIODS = {
  day: {title: 'the last 24 hours'},
  week: {title: 'the last 7 days'},
};
const HOUR_MS = 3_600_000;
/** The gateway counts by that much time. */
export const QUARTER_MS = HOUR_MS / 4;

/** When the period begins that ends now. */
export function sinceFor(period, now) {
  const at = new Date(now);
  // A day of the calendar may have 23 hours or 25.
  if (period === 'day') at.setTime(now - 24 * HOUR_MS);
  else at.setDate(at.getDate() - 7);
  return at.getTime();
}

function startOf(period, ms) {
  const at = new Date(ms);
  if (period === 'day') at.setMinutes(0, 0, 0);
  else at.setHours(0, 0, 0, 0);
  return at.getTime();
}

/** The start of each bar, oldest first; the last one is the hour or the day that `now` is in. */
export function barStarts(period, now) {
  const starts = [];
  const since = sinceFor(period, now);
  const at = new Date(startOf(period, now));
  while (at.getTime() > since) {
    starts.unshift(at.getTime());
    if (period === 'day') at.setTime(at.getTime() - HOUR_MS);
    else at.setDate(at.getDate() - 1);
  }
  return [at.getTime(), ...starts];
}

/**
 * The kills that are in the period. Of those that were counted together while it began, nobody says how many were
 * before; but how many kills there are in all (`sum`) may be known, and what is too much then is theirs.
 */
function inPeriod(kills, since, sum) {
  const within = kills.filter(({at, span = 1, reason}) => reason !== 'exited' && at + span > since);
  const across = (kill) => kill.at < since;
  let among = within.filter(across).reduce((total, {count}) => total + count, 0);
  let before = within.reduce((total, {count}) => total + count, 0) - (sum ?? Infinity);
  before = Math.max(0, Math.min(before, among));
  return within.map((kill) => {
    if (!across(kill) || before === 0) return kill;
    const share = Math.round((before * kill.count) / among);
    before -= share;
    among -= kill.count;
    return {...kill, count: kill.count - share};
  });
}

/**
 * Counts by bar and reason. `kills`: [{at: ms, span: ms (it was one moment unless given), reason, count}]. Returns
 * [{start, total, counts: {reason: n}}]. A reason that this page has no word for counts as `lost` would: it is shown, not
 * hidden.
 */
export function countKills(kills, period, now, sum = null) {
  const starts = barStarts(period, now);
  const bars = starts.map((start) => ({start, total: 0, counts: {}}));
  for (const {at, reason, count} of inPeriod(kills, sinceFor(period, now), sum)) {
    if (count === 0) continue;
    let i = bars.length - 1;
    while (i > 0 && starts[i] > at) i -= 1;
    const known = KILL_REASONS.includes(reason) ? reason : 'lost';
    bars[i].counts[known] = (bars[i].counts[known] ?? 0) + count;
    bars[i].total += count;
  }
  return bars;
}

export function totals(bars) {
  const sums = {};
  for (const bar of bars) {
    for (const [reason, count] of Object.entries(bar.counts)) sums[reason] = (sums[reason] ?? 0) + count;
  }
  return sums;
}

/** A record of the stream as a kill; null if it is none. */
export function killOf(record) {
  if (record.kind !== 'ended' || !record.reason || record.reason === 'exited') return null;
  const at = parseTime(record.occurred_at);
  return at === null ? null : {at, reason: record.reason, count: 1, eventId: record.event_id};
}

/** Lines of a scale from 0 to at least `max`, at whole numbers that are easy to read; at most four steps. */
export function scaleFor(max) {
  const wanted = Math.max(1, max) / 4;
  const size = 10 ** Math.floor(Math.log10(wanted));
  const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * size).find((each) => each >= wanted));
  const lines = [];
  for (let at = 0; at < Math.max(1, max) + step; at += step) {
    lines.push(at);
    if (at >= Math.max(1, max)) break;
  }
  return lines;
}

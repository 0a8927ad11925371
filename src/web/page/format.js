// SPDX-License-Identifier: Apache-2.0
//
// Numbers and times as people read them. Sizes have three digits, spans two units, as systemd writes them; what is not
// known is a dash.

export const UNKNOWN = '–';

const SIZE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

/** 1.21 GiB */
export function formatBytes(bytes) {
  if (!isNumber(bytes)) return UNKNOWN;
  let unit = 0;
  let value = bytes;
  // 1023.6 KiB would be written as 1024 KiB.
  while (Math.abs(value) >= 999.5 && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return `${trimZeros(value.toFixed(digits))} ${SIZE_UNITS[unit]}`;
}

function trimZeros(text) {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

const SECOND = 1e6;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** 1h 2min, of microseconds; never more than what is there, so that a deadline isn't thought to be later than it is. */
export function formatSpan(usec) {
  if (!isNumber(usec)) return UNKNOWN;
  if (usec < 0) return `-${formatSpan(-usec)}`;
  if (usec < SECOND) return usec === 0 ? '0s' : `${Math.max(1, Math.floor(usec / 1000))}ms`;
  if (usec < 10 * SECOND) return `${trimZeros((Math.floor(usec / 1e5) / 10).toFixed(1))}s`;
  const two = (large, largeName, small, smallName) => {
    const rest = Math.floor((usec % large) / small);
    return `${Math.floor(usec / large)}${largeName}${rest > 0 ? ` ${rest}${smallName}` : ''}`;
  };
  if (usec < MINUTE) return `${Math.floor(usec / SECOND)}s`;
  if (usec < HOUR) return two(MINUTE, 'min', SECOND, 's');
  if (usec < DAY) return two(HOUR, 'h', MINUTE, 'min');
  return two(DAY, 'd', HOUR, 'h');
}

/** The same of what changes while one looks: whole seconds, none below zero. */
export function formatCountdown(usec) {
  if (!isNumber(usec)) return UNKNOWN;
  return formatSpan(Math.max(0, Math.ceil(usec / SECOND) * SECOND));
}

export function formatPercent(share) {
  if (!isNumber(share)) return UNKNOWN;
  const percent = share * 100;
  return `${percent > 0 && percent < 1 ? '<1' : Math.floor(percent)} %`;
}

/** CPUs in use: 1.82 */
export function formatCpus(rate) {
  if (!isNumber(rate)) return UNKNOWN;
  return rate >= 99.5 ? rate.toFixed(0) : rate >= 9.95 ? rate.toFixed(1) : rate.toFixed(2);
}

const two = (number) => String(number).padStart(2, '0');

/** 23:41:07, in local time. */
export function formatClock(ms) {
  if (!isNumber(ms)) return UNKNOWN;
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** 2026-11-21, in local time. */
export function formatDay(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** The clock, with the day before it where that is not today. */
export function formatMoment(ms, now = Date.now()) {
  if (!isNumber(ms)) return UNKNOWN;
  return formatDay(ms) === formatDay(now) ? formatClock(ms) : `${formatDay(ms)} ${formatClock(ms)}`;
}

/** 2026-11-21T23:41:07+01:00: what a time's title says. */
export function formatIso(ms) {
  if (!isNumber(ms)) return '';
  const offset = -new Date(ms).getTimezoneOffset();
  const sign = offset < 0 ? '-' : '+';
  const size = Math.abs(offset);
  return `${formatDay(ms)}T${formatClock(ms)}${sign}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** Milliseconds of a time in ISO 8601; null where there is none. */
export function parseTime(text) {
  if (typeof text !== 'string') return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** What is obeyed rather than shown: controls, and what turns the direction of writing. */
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A text of an analysis's own making as it can't mislead whoever reads it. */
export function printable(text) {
  return String(text).replace(OBEYED, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

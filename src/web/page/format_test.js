// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {formatBytes, formatClock, formatCountdown, formatCpus, formatIso, formatMoment, formatPercent, formatSpan, parseTime,
  plural, printable} from './format.js';

const SECOND = 1e6;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

test('sizes have three digits and the unit that they are read in', () => {
  assert.equal(formatBytes(0), '0 B');
  assert.equal(formatBytes(999), '999 B');
  assert.equal(formatBytes(1000), '0.98 KiB');
  assert.equal(formatBytes(1024), '1 KiB');
  assert.equal(formatBytes(2 ** 31), '2 GiB');
  assert.equal(formatBytes(1.207 * 2 ** 30), '1.21 GiB');
  assert.equal(formatBytes(12.07 * 2 ** 30), '12.1 GiB');
  assert.equal(formatBytes(120.7 * 2 ** 20), '121 MiB');
});

test('no size comes out with four digits', () => {
  for (let bytes = 1; bytes < 2 ** 52; bytes = Math.ceil(bytes * 1.013)) {
    const digits = formatBytes(bytes).split(' ')[0].replace('.', '');
    assert.ok(digits.length <= 3, `${bytes}: ${formatBytes(bytes)}`);
  }
});

test('what is not known is a dash', () => {
  for (const value of [null, undefined, NaN, Infinity, '12', {}]) {
    assert.equal(formatBytes(value), '–');
    assert.equal(formatSpan(value), '–');
    assert.equal(formatPercent(value), '–');
    assert.equal(formatCpus(value), '–');
    assert.equal(formatCountdown(value), '–');
    assert.equal(formatClock(value), '–');
  }
});

test('spans have two units', () => {
  assert.equal(formatSpan(0), '0s');
  assert.equal(formatSpan(12), '1ms');
  assert.equal(formatSpan(850_000), '850ms');
  assert.equal(formatSpan(1.25 * SECOND), '1.2s');
  assert.equal(formatSpan(45.9 * SECOND), '45s');
  assert.equal(formatSpan(MINUTE), '1min');
  assert.equal(formatSpan(3 * MINUTE + 20 * SECOND), '3min 20s');
  assert.equal(formatSpan(HOUR + 2 * MINUTE + 59 * SECOND), '1h 2min');
  assert.equal(formatSpan(51 * HOUR), '2d 3h');
  assert.equal(formatSpan(-90 * SECOND), '-1min 30s');
});

test('a countdown has whole seconds and ends at nought', () => {
  assert.equal(formatCountdown(9.2 * SECOND), '10s');
  assert.equal(formatCountdown(0.2 * SECOND), '1s');
  assert.equal(formatCountdown(-3 * SECOND), '0s');
});

test('a share is never rounded up to its limit', () => {
  assert.equal(formatPercent(0.9999), '99 %');
  assert.equal(formatPercent(1), '100 %');
  assert.equal(formatPercent(0.0001), '<1 %');
  assert.equal(formatPercent(0), '0 %');
});

test('CPUs keep as many digits as they have room', () => {
  assert.equal(formatCpus(0), '0.00');
  assert.equal(formatCpus(1.824), '1.82');
  assert.equal(formatCpus(12.345), '12.3');
  assert.equal(formatCpus(128.4), '128');
});

test('times are local, and ISO 8601 with its offset where they are exact', () => {
  const ms = Date.parse('2026-01-15T22:41:07Z');
  const at = new Date(ms);
  assert.equal(formatClock(ms), [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => String(n).padStart(2, '0')).join(':'));
  assert.equal(Date.parse(formatIso(ms)), ms);
  assert.match(formatIso(ms), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/);
  assert.equal(formatMoment(ms, ms + 1000), formatClock(ms));
  assert.match(formatMoment(ms, ms + 3 * 86_400_000), /^2026-01-1\d \d\d:/);
});

test('what is no time is none', () => {
  assert.equal(parseTime('2026-11-21T23:00:00.5Z'), Date.parse('2026-11-21T23:00:00.500Z'));
  assert.equal(parseTime('soon'), null);
  assert.equal(parseTime(null), null);
  assert.equal(parseTime(12), null);
});

test('one is not many', () => {
  assert.equal(plural(1, 'kill'), '1 kill');
  assert.equal(plural(0, 'kill'), '0 kills');
});

test('what would be obeyed is shown', () => {
  assert.equal(printable('a\u202edrawkcab'), 'a\\u202edrawkcab');
  assert.equal(printable('\u061c1\u200f2\u2069'), '\\u061c1\\u200f2\\u2069');
  assert.equal(printable('\u001b[31m\u009b1m\u2066'), '\\u001b[31m\\u009b1m\\u2066');
  assert.equal(printable('Überwachung 解析 🧪 <b>&amp;\n\tשלום'), 'Überwachung 解析 🧪 <b>&amp;\n\tשלום');
});

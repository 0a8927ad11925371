// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {ApiError, readAnalysis, readEventsOf, readExplanation, readSeries} from './api.js';

const ORIGIN = 'http://127.0.0.1:8787';

/** What the gateway would be asked: [path, parameters], after a parser of URLs has had it, as fetch() does. */
async function asked(ask) {
  const before = globalThis.fetch;
  let url = null;
  globalThis.fetch = async (path) => {
    url = new URL(path, ORIGIN);
    return new Response('{}');
  };
  try {
    await ask();
  } finally {
    globalThis.fetch = before;
  }
  assert.equal(url.origin, ORIGIN);
  assert.equal(url.hash, '');
  return [url.pathname, Object.fromEntries(url.searchParams)];
}

test('whatever an id holds, the gateway is asked for just that one', async () => {
  for (const id of ['one', '.', '..', '%2e%2e', './..', '../../metrics', 'a/b c', 'a&run=b', 'a=b', 'a+b', 'a#b?c', '%', '\u202eü', '"<>\'']) {
    assert.deepEqual(await asked(() => readAnalysis(id)), ['/api/analysis', {id}]);
    assert.deepEqual(await asked(() => readSeries(id, 'r')), ['/api/analysis/series', {id, run: 'r'}]);
    assert.deepEqual(await asked(() => readExplanation(id, 'r')), ['/api/analysis/explain', {id, run: 'r'}]);
    assert.deepEqual(await asked(() => readEventsOf(id, 7)), ['/api/events', {id, limit: '7'}]);
  }
});

test('a run is asked for where one is wanted', async () => {
  assert.deepEqual(await asked(() => readEventsOf('a', 7, 'r&limit=1')), ['/api/events', {id: 'a', run: 'r&limit=1', limit: '7'}]);
  assert.deepEqual(await asked(() => readSeries('a')), ['/api/analysis/series', {id: 'a'}]);
  assert.deepEqual(await asked(() => readExplanation('a', null)), ['/api/analysis/explain', {id: 'a'}]);
});

test('an id that can\'t be had is an error with the gateway\'s words', async () => {
  const refuse = () => {
    globalThis.fetch = async () => new Response('{"error": "no such thing"}', {status: 404});
    return readAnalysis('..');
  };
  const before = globalThis.fetch;
  try {
    await assert.rejects(refuse, (error) => error instanceof ApiError && error.status === 404 && error.message === 'no such thing');
  } finally {
    globalThis.fetch = before;
  }
});

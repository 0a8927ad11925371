// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {beforeEach, test} from 'node:test';

/** What a browser has, with a gateway behind it that has this health. */
const world = {sources: [], timers: [], health: 200};

class FakeEventSource {
  constructor() {
    this.listeners = new Map();
    world.sources.push(this);
  }

  addEventListener(name, listen) {
    this.listeners.set(name, listen);
  }

  close() {
    this.closed = true;
  }

  tell(name, data) {
    this.listeners.get(name)({data: data === undefined ? undefined : JSON.stringify(data)});
  }
}

globalThis.EventSource = FakeEventSource;
globalThis.document = {hidden: false, addEventListener() {}};
globalThis.window = {listeners: {}, addEventListener(name, listen) {
  this.listeners[name] = listen;
}};
globalThis.fetch = async () => ({status: world.health, ok: world.health === 200, headers: new Headers()});
globalThis.setInterval = () => 0;
globalThis.setTimeout = (then) => world.timers.push(then);
globalThis.clearTimeout = () => {};

const {Stream} = await import('./stream.js');

const settled = () => new Promise((done) => setImmediate(done));
const newest = () => world.sources.at(-1);

let states;
let stream;

beforeEach(() => {
  Object.assign(world, {sources: [], timers: [], health: 200});
  states = [];
  const on = {state: (state) => states.push(state), rows() {}, record() {}, status() {}, gone() {}};
  stream = new Stream('/api/events/stream', on);
});

test('says that the daemon is away when a new stream is refused for that, tries again and comes to life', async () => {
  world.health = 503;
  stream.open();
  newest().tell('error');
  await settled();
  assert.deepEqual(states, ['away']);
  assert.equal(world.timers.length, 1);

  world.timers.pop()();
  assert.equal(world.sources.length, 2);
  newest().tell('error');
  await settled();
  assert.deepEqual(states, ['away'], 'it still is');

  world.health = 200;
  world.timers.pop()();
  newest().tell('analyses', []);
  assert.deepEqual(states, ['away', 'live']);
});

test('says that the connection is lost when nothing answers', async () => {
  stream.open();
  newest().tell('analyses', []);
  world.health = 0;
  newest().tell('error');
  await settled();
  assert.deepEqual(states, ['live', 'lost']);
});

test('stays open while the daemon goes and comes back', () => {
  stream.open();
  newest().tell('analyses', []);
  newest().tell('away', {});
  newest().tell('back', {});
  assert.deepEqual(states, ['live', 'away']);
  newest().tell('analyses', []);
  assert.deepEqual(states, ['live', 'away', 'live']);
  assert.equal(world.sources.length, 1);
});

test('asks no more once whoever looks is refused, until it is opened for somebody else', async () => {
  stream.open();
  newest().tell('error');
  stream.stop();
  await settled();
  window.listeners.online();
  assert.deepEqual(states, ['refused']);
  assert.equal(world.timers.length, 0);
  assert.equal(world.sources.length, 1);

  stream.open();
  newest().tell('analyses', []);
  assert.deepEqual(states, ['refused', 'live']);
});

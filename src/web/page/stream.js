// SPDX-License-Identifier: Apache-2.0
//
// The gateway's stream. It is opened again by itself, whatever went away: the daemon, the gateway, or the way to it.
//
//   connecting ──first rows──▶ live ──away──▶ away ──all rows──▶ live
//        ▲                      │              │
//        └── a while later ── lost ◀──no stream┘
//
// Besides, `refused`: stop(), for somebody who has to sign in first.
// `live` is the only state in which numbers are of now.

import {readHealth} from './api.js';

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8_000;
/** A connection may be dead without a word (a phone that slept); the gateway's comments can't be seen from here. */
const SILENCE_MS = 20_000;
const FIRST_WORD_MS = 15_000;

export class Stream {
  /** `on`: state(name), rows(list, whole), record(record), status(object), gone(object). */
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.source = null;
    this.state = 'connecting';
    this.retry = FIRST_RETRY_MS;
    this.timer = null;
    this.heardAt = 0;
    this.awaitsWhole = true;
    this.awayByWord = false;
    this.stopped = false;
    setInterval(() => this.#lookAfterSilence(), 5_000);
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#lookAfterSilence();
    });
    window.addEventListener('online', () => {
      if (!this.stopped) this.open();
    });
  }

  /** Until it is opened again: whoever looks is not let in, and trying again changes nothing about that. */
  stop() {
    this.stopped = true;
    this.#close();
    this.#enter('refused');
  }

  open() {
    this.stopped = false;
    this.#close();
    this.awaitsWhole = true;
    this.awayByWord = false;
    this.heardAt = Date.now();
    const source = new EventSource(this.path);
    this.source = source;
    const listen = (name, handle) => source.addEventListener(name, (event) => {
      if (source !== this.source) return;
      this.heardAt = Date.now();
      let data = {};
      try {
        data = event.data ? JSON.parse(event.data) : {};
      } catch {
        return; // Cut off; the connection is about to fail.
      }
      handle(data);
    });
    listen('analyses', (rows) => {
      if (!Array.isArray(rows)) return;
      const whole = this.awaitsWhole;
      this.awaitsWhole = false;
      this.retry = FIRST_RETRY_MS;
      this.on.rows(rows, whole);
      if (!this.awayByWord) this.#enter('live');
    });
    listen('record', (record) => this.on.record(record));
    listen('status', (status) => this.on.status(status));
    listen('gone', (which) => this.on.gone(which));
    listen('away', () => {
      this.awayByWord = true;
      this.#enter('away');
    });
    // All is told again: what was before the daemon went counts for nothing.
    listen('back', () => {
      this.awayByWord = false;
      this.awaitsWhole = true;
    });
    source.addEventListener('error', () => {
      if (source === this.source) this.#fail();
    });
    if (this.state === 'live') this.#enter('connecting');
  }

  async #fail() {
    this.#close();
    // A new stream is refused while the daemon is away (503), which the browser does not tell from anything else.
    const health = await readHealth();
    if (this.source !== null || this.stopped) return; // Opened again meanwhile, or not wanted any more.
    // A gateway that is well and gives no stream (it has too many, say) is none, after a few tries.
    const lost = health === 0 || (health !== 503 && this.retry > 4 * FIRST_RETRY_MS);
    this.#enter(health === 503 ? 'away' : lost ? 'lost' : 'connecting');
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.retry * (0.75 + Math.random() / 2));
    this.retry = Math.min(LAST_RETRY_MS, this.retry * 2);
  }

  async #lookAfterSilence() {
    const source = this.source;
    if (source === null) return;
    const silence = Date.now() - this.heardAt;
    if (silence < (this.awaitsWhole && !this.awayByWord ? FIRST_WORD_MS : SILENCE_MS)) return;
    const health = await readHealth();
    if (source !== this.source) return;
    const fits = this.state === 'live' ? health === 200 : this.state === 'away' && health === 503;
    if (fits) this.heardAt = Date.now(); // Nothing has happened, that is all.
    else this.open();
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.on.state(state);
  }

  #close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}

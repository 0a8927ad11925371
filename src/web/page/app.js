// SPDX-License-Identifier: Apache-2.0
//
// The dashboard: routes, the stream, and what is written when. Everything that arrives is noted at once and written in
// the next animation frame, all together; the pure parts (runs.js, kills.js, events.js, series.js, format.js) have unit
// tests beside them.
//
// Hooks that tests may rely on:
//   body[data-view]                       live, kills, events, detail: what a narrow screen shows
//   #connection[data-state]               connecting, live, away (the daemon is), lost (the gateway is), refused (not signed in)
//   #away[data-why]                       the banner of the two; hidden while live
//   #monitored-count #ending-count #kills-count #shown
//   table#analyses[data-stale]            stale only while not live; th button[data-sort]; th[aria-sort]
//     tbody tr[data-key][data-id][data-state][data-reason]   rows in sight; tr.spacer are none
//     [data-column=name|state|memory|share|trend|cpu|processes|left|age|owner]   its cells
//     .bar[role=meter][aria-valuenow][aria-valuemax]         memory and its limit in bytes
//   #filter #filter-state #filter-reason
//   #kills [data-period]; #kills-chart g[data-start][data-total] rect[data-reason][data-count]; #kills-legend li[data-reason]
//   #events li[data-kind][data-reason][data-event]; #verdicts (aria-live)
//   #detail: #detail-title #detail-state[data-state] #facts #memory-chart #cpu-chart #chart-value (a status) #explain
//     #processes tr[data-pid] #detail-events li[data-kind] #runs
//   #anonymous #sign-in-open #sign-out dialog#sign-in #token #sign-in-error

import {ApiError, now, readEvents, readKills, readSeries, readStatus, readViewer, signIn, signOut} from './api.js';
import {Detail} from './detail.js';
import {byId, setAttribute, setText} from './dom.js';
import {EventLog} from './events.js';
import {EventsView} from './events_view.js';
import {formatBytes, formatClock, plural} from './format.js';
import {QUARTER_MS, killOf, sinceFor} from './kills.js';
import {KillsChart} from './kills_chart.js';
import {Runs} from './runs.js';
import {samplesOf} from './series.js';
import {Stream} from './stream.js';
import {RunsTable} from './table.js';

const EVENTS_SHOWN = 200;
/** The counts of the chart are asked for anew that often; in between, the stream adds to them. */
const KILLS_EVERY_MS = 10 * 60_000;
/** … and after a kill: one that happened while they were counted may be in neither. */
const KILLS_AFTER_MS = 30_000;
const SEEDS_AT_ONCE = 4;
const FOUND_MS = 700;

const runs = new Runs();
const log = new EventLog(EVENTS_SHOWN);
const table = new RunsTable({table: byId('analyses'), scroller: byId('rows'), shown: byId('shown'), none: byId('none')});
const eventsView = new EventsView({list: byId('events'), verdicts: byId('verdicts'), exits: byId('events-exits')});
const killsChart = new KillsChart({chart: byId('kills-chart'), legend: byId('kills-legend'), table: byId('kills-table'),
  tip: byId('tip'), buttons: [...document.querySelectorAll('[data-period]')]});
const detail = new Detail();

let status = null;
let heardAt = null; // when numbers were last of now
const NO_KILLS = {counts: null, asOf: 0, seen: []};
let kills = {...NO_KILLS, seen: []};
let killsTimer = null;
let live = false;
let wasLive = false;
let eventsChanged = false;
let frame = null;
let started = false;
/** Goes up when somebody else looks. */
let viewing = 0;

// --- writing -----------------------------------------------------------------------------------------------------------

function schedule() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    render();
  });
}

function render() {
  const at = now();
  runs.sweep(at);
  if (document.body.dataset.view === 'detail') {
    detail.render(live);
  } else {
    table.render(runs, at, live);
    killsChart.draw(at, live && status !== null ? status.kills_last_24h : null);
    if (eventsChanged) {
      eventsChanged = false;
      eventsView.render(log.records);
    }
    seedTrends();
  }
  renderCounts();
}

function renderCounts() {
  const known = live && status !== null;
  setText(byId('monitored-count'), known ? String(status.monitored_count) : '–');
  setText(byId('ending-count'), known ? String(status.grace_count) : '–');
  setText(byId('kills-count'), known ? String(status.kills_last_24h) : '–');
  byId('ending-count').closest('div').classList.toggle('warn', known && status.grace_count > 0);
  let sum = 0;
  for (const run of runs.byKey.values()) sum += run.isOver ? 0 : (run.memory ?? 0);
  setText(byId('memory-sum'), live ? formatBytes(sum) : '–');
  document.title = live ? `${status === null ? runs.size : status.monitored_count} watched · Analysis watchdog`
    : 'not live · Analysis watchdog';
  const unhealthy = known && status.store_healthy === false;
  byId('store').hidden = !unhealthy;
  if (unhealthy) setText(byId('store'), 'A record has failed to reach its store. `analysisctl doctor` says more.');
}

// --- the stream ----------------------------------------------------------------------------------------------------------

const CONNECTION_TEXTS = {connecting: 'connecting', live: 'live', away: 'daemon away', lost: 'no connection',
  refused: 'not signed in'};

function onState(state) {
  live = state === 'live';
  const pill = byId('connection');
  setAttribute(pill, 'data-state', state);
  setText(pill, CONNECTION_TEXTS[state]);
  const banner = byId('away');
  const away = state === 'away' || state === 'lost';
  banner.hidden = !away;
  if (away) {
    banner.dataset.why = state === 'away' ? 'daemon' : 'gateway';
    const since = heardAt === null ? '' : ` What you see is of ${formatClock(heardAt)} and is not live.`;
    setText(banner, (state === 'away'
      ? 'The daemon is away. Limits hold all the same: the kernel and systemd keep them.'
      : 'No connection to the gateway. It is tried again by itself.') + since);
  }
  // Connecting again for a moment is no news; that it lasts is.
  const stale = away || ((state === 'connecting' || state === 'refused') && wasLive);
  setAttribute(byId('analyses'), 'data-stale', stale ? (heardAt === null ? '' : formatClock(heardAt)) : null);
  document.body.classList.toggle('stale', stale);
  if (live) {
    wasLive = true;
    refresh();
    detail.reread();
  } else if (away && kills.counts === null) {
    killsChart.fail('What was killed can\'t be had now.');
  }
  // A stream that is not given looks like none: it may be that this is for who has signed in.
  if (state === 'lost') refreshViewer();
  schedule();
}

const stream = new Stream('/api/events/stream', {
  state: onState,
  rows(rows, whole) {
    heardAt = now();
    runs.apply(rows, heardAt, {whole});
    if (whole) for (const record of [...log.records].reverse()) noteOfTheLiving(record);
    detail.rows(rows);
    schedule();
  },
  record(record) {
    const fresh = log.add([record]);
    if (fresh.length === 0) return;
    runs.note(record, now());
    const kill = killOf(record);
    if (kill !== null) {
      kills.seen.push(kill);
      showKills();
      killsTimer ??= setTimeout(refreshKills, KILLS_AFTER_MS);
    }
    eventsChanged = true;
    eventsView.announce(fresh);
    detail.record(record);
    schedule();
  },
  status(object) {
    status = object.watchdog ?? object;
    schedule();
  },
  gone(which) {
    runs.gone(which, now());
    schedule();
  },
});

/** What the last events say of the runs that live; an end of one that lives is of before this page was opened. */
function noteOfTheLiving(record) {
  if (record.kind === 'ending' && runs.find(record)?.state === 'ending') runs.note(record, now());
}

// --- what is asked for -----------------------------------------------------------------------------------------------------

/** Shows it, or not, where the gateway can't tell; what is wrong with the connection the stream says. */
async function tryTo(act) {
  try {
    await act();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error;
  }
  return null;
}

/** An answer is for who looked when it was asked for: says, once it is here, whether somebody else does. */
function asWhoLooks() {
  const asking = viewing;
  return () => asking !== viewing;
}

function refresh() {
  const isOld = asWhoLooks();
  tryTo(async () => {
    const answer = await readStatus();
    if (isOld()) return;
    status = answer;
    schedule();
  });
  tryTo(async () => {
    const records = await readEvents(EVENTS_SHOWN);
    if (isOld()) return;
    for (const record of log.add(records)) noteOfTheLiving(record);
    eventsChanged = true;
    schedule();
  });
  refreshKills();
  refreshViewer();
}

async function refreshKills() {
  clearTimeout(killsTimer);
  killsTimer = null;
  const isOld = asWhoLooks();
  const error = await tryTo(async () => {
    const answer = await readKills(sinceFor('week', now())); // Which has a day's, too.
    if (isOld()) return;
    kills = {
      counts: answer.counts.map(({at, reason, count}) => ({at: Date.parse(at), span: QUARTER_MS, reason, count})),
      asOf: Date.parse(answer.as_of),
      // What the stream told while the answer was on its way is in it, if it is older.
      seen: kills.seen.filter((kill) => kill.at > Date.parse(answer.as_of)),
    };
    showKills();
    schedule();
  });
  if (error === null || isOld()) return;
  if (kills.counts === null) killsChart.fail('What was killed can\'t be had now.');
  // Others were first.
  if (error.status === 503) killsTimer ??= setTimeout(refreshKills, KILLS_AFTER_MS);
}

function showKills() {
  if (kills.counts === null) return;
  killsChart.set([...kills.counts, ...kills.seen.filter((kill) => kill.at > kills.asOf)]);
}

async function refreshViewer() {
  const isOld = asWhoLooks();
  const error = await tryTo(async () => {
    const viewer = await readViewer();
    if (isOld()) return;
    const anonymous = viewer.sight === 'anonymous';
    byId('anonymous').hidden = !anonymous;
    byId('sign-in-open').hidden = !anonymous || !viewer.login;
    byId('anonymous-sign-in').hidden = !viewer.login;
    setText(byId('anonymous').querySelector('p'), 'You see anonymous rows: how many analyses there are and how they fare, but not whose, nor their names. '
      + (viewer.login ? 'With the gateway\'s token you see all of it.' : 'This gateway has no token (TokenFile= in its configuration); its unix socket shows more to whom it knows.'));
    byId('sign-out').hidden = anonymous || !viewer.login;
  });
  if (error?.status !== 401 || isOld()) return;
  // Further out than its own host the gateway shows nothing to who is not known.
  stream.stop();
  for (const id of ['anonymous', 'sign-in-open', 'anonymous-sign-in']) byId(id).hidden = false;
  byId('sign-out').hidden = true;
  setText(byId('anonymous').querySelector('p'), 'This gateway shows nothing to who has not signed in: it can be reached from other hosts.');
}

let seeding = 0;

/** A run that was there before this page has a past: its samples are asked for once it is in sight, a few at a time. */
function seedTrends() {
  if (!live || document.hidden) return;
  const isOld = asWhoLooks();
  for (const run of table.inSight()) {
    if (seeding >= SEEDS_AT_ONCE) return;
    if (run.seeded || run.id === null || run.isOver) continue;
    run.seeded = true;
    seeding += 1;
    tryTo(async () => {
      const series = await readSeries(run.id, run.runId);
      if (isOld()) return;
      run.trend.seed(samplesOf(series).filter((sample) => sample.memory !== null).map((sample) => [sample.at, sample.memory]));
    }).finally(() => {
      seeding -= 1;
      schedule();
    });
  }
}

// --- routes ------------------------------------------------------------------------------------------------------------

function route() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/');
  let view = ['kills', 'events'].includes(parts[0]) ? parts[0] : 'live';
  let id = null;
  if (parts[0] === 'analysis' && parts.length > 1) {
    try {
      id = decodeURIComponent(parts.slice(1).join('/'));
    } catch {
      id = null; // No escape that anybody made; so it is nobody's id.
    }
    if (id !== null) view = 'detail';
  }
  const before = document.body.dataset.view;
  document.body.dataset.view = view;
  byId('overview').hidden = view === 'detail';
  byId('detail').hidden = view !== 'detail';
  for (const link of document.querySelectorAll('nav.views a')) {
    setAttribute(link, 'aria-current', link.dataset.view === view ? 'page' : null);
  }
  if (view === 'detail') {
    detail.show(id, new URLSearchParams(query).get('run'));
    byId('detail').scrollTop = 0;
    // Whoever came by the keyboard goes on reading where the page does; at the start there is nothing to leave.
    if (before !== 'detail' && started) byId('detail-title').focus({preventScroll: true});
  } else {
    detail.hide();
    if (before === 'detail') byId('content').focus({preventScroll: true});
  }
  eventsChanged = true;
  schedule();
}

// --- hands ---------------------------------------------------------------------------------------------------------------

let foundTimer = null;

function readFilter() {
  table.choose({text: byId('filter').value, state: byId('filter-state').value, reason: byId('filter-reason').value});
  schedule();
  // Said once it is typed: the count itself changes all the time, which nobody wants to hear.
  clearTimeout(foundTimer);
  foundTimer = setTimeout(() => setText(byId('found'), `${plural(table.order.length, 'analysis', 'analyses')} shown`), FOUND_MS);
}

byId('ending-count').addEventListener('click', () => {
  const select = byId('filter-state');
  select.value = select.value === 'ending' ? '' : 'ending';
  location.hash = '#/';
  readFilter();
});
byId('filter').addEventListener('input', readFilter);
byId('filter-state').addEventListener('change', readFilter);
byId('filter-reason').addEventListener('change', readFilter);
byId('rows').addEventListener('scroll', schedule, {passive: true});
new ResizeObserver(() => {
  table.resized();
  schedule();
}).observe(byId('rows'));
table.onSorted = (atOnce = false) => (atOnce ? render() : schedule());

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest('input, select, textarea, dialog') !== null;
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (document.body.dataset.view !== 'live') {
      location.hash = '#/';
      route(); // Its own event comes too late: what is hidden takes no focus.
    }
    byId('filter').focus();
  } else if (event.key === 'Escape' && event.target === byId('filter')) {
    byId('filter').value = '';
    readFilter();
  } else if (event.key === 'Escape' && !typing && document.body.dataset.view === 'detail'
             && !event.target.closest('.chart')) {
    location.hash = '#/';
  }
});

const dialog = byId('sign-in');
for (const id of ['sign-in-open', 'anonymous-sign-in']) {
  byId(id).addEventListener('click', () => {
    setText(byId('sign-in-error'), '');
    byId('token').value = '';
    dialog.showModal();
  });
}
byId('sign-in-cancel').addEventListener('click', () => dialog.close());
byId('sign-in-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const error = await tryTo(() => signIn(byId('token').value));
  if (error === null) {
    dialog.close();
    startOver();
  } else {
    setText(byId('sign-in-error'), error.status === 0 ? 'The gateway does not answer.'
      : error.status === 401 || error.status === 403 ? 'That token is not one of this gateway\'s.' : error.message);
    byId('token').select();
  }
});
byId('sign-out').addEventListener('click', async () => {
  if (await tryTo(signOut) !== null) return;
  // An address or a filter may be a name, too.
  history.replaceState(null, '', '#/');
  byId('filter').value = '';
  readFilter();
  startOver();
});

/** Somebody else looks now: nothing stays that they may not see, nor in the views that are hidden. */
function startOver() {
  viewing += 1;
  runs.clear();
  log.clear();
  kills = {...NO_KILLS, seen: []};
  table.render(runs, now(), live);
  eventsView.clear();
  detail.clear();
  stream.open();
  route();
  refreshViewer();
}

window.addEventListener('hashchange', route);
setInterval(schedule, 1_000);
setInterval(refreshKills, KILLS_EVERY_MS);
route();
started = true;
stream.open();
refreshViewer(); // Again when it is live: while the daemon is away nothing is told, this neither.

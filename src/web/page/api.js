// SPDX-License-Identifier: Apache-2.0
//
// What is asked of the gateway once; what it tells by itself is in stream.js.

/** How far this machine's clock is behind the gateway's, in ms; deadlines are by the gateway's. */
let offset = 0;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status; // 0: no answer
  }
}

function learnClock(response) {
  const date = Date.parse(response.headers.get('date') ?? '');
  if (Number.isNaN(date)) return;
  const difference = date + 500 - Date.now(); // Date has whole seconds.
  offset = Math.abs(difference) > 2_000 ? difference : 0;
}

/** The time on the gateway's host. */
export function now() {
  return Date.now() + offset;
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {cache: 'no-store', credentials: 'same-origin', ...options});
  } catch {
    throw new ApiError(0, 'no answer');
  }
  learnClock(response);
  return response;
}

async function messageOf(response) {
  try {
    return (await response.clone().json()).error ?? response.statusText;
  } catch {
    return response.statusText;
  }
}

export async function getJson(path) {
  const response = await request(path);
  if (!response.ok) throw new ApiError(response.status, await messageOf(response));
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, 'the answer is not JSON');
  }
}

/** An id is never a part of the path: whoever reads a URL folds `.` and `..` away there, however they are written. */
function ofId(path, id, more = {}) {
  const given = Object.entries({id, ...more}).filter(([, value]) => value !== null && value !== undefined);
  return `${path}?${given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')}`;
}

export const readStatus = async () => (await getJson('/api/quests/status')).watchdog;
export const readViewer = () => getJson('/api/viewer');
export const readEvents = (limit) => getJson(`/api/events?limit=${limit}`);
export const readEventsOf = (id, limit, runId = null) => getJson(ofId('/api/events', id, {run: runId, limit}));
export const readKills = (since) => getJson(`/api/kills?since=${encodeURIComponent(new Date(since).toISOString())}`);
export const readAnalysis = (id) => getJson(ofId('/api/analysis', id));
export const readSeries = (id, runId) => getJson(ofId('/api/analysis/series', id, {run: runId}));
export const readExplanation = (id, runId) => getJson(ofId('/api/analysis/explain', id, {run: runId}));

/** 200: all is well, 503: the daemon is away, 0: the gateway is. */
export async function readHealth() {
  try {
    return (await request('/healthz')).status;
  } catch {
    return 0;
  }
}

export async function signIn(token) {
  const response = await request('/login', {
    method: 'POST',
    headers: {'content-type': 'application/x-www-form-urlencoded'},
    body: new URLSearchParams({token}).toString(),
  });
  if (!response.ok) throw new ApiError(response.status, await messageOf(response));
}

export async function signOut() {
  const response = await request('/logout', {method: 'POST'});
  if (!response.ok) throw new ApiError(response.status, await messageOf(response));
}

// SPDX-License-Identifier: Apache-2.0
//
// The closed vocabularies of the interface (include/analysis_watchdog/words.h), with what they mean to a person.

/** Reasons that a chart of kills shows, in the order in which it stacks them. `exited` is no kill. */
export const KILL_REASONS = ['memory', 'oom', 'wall-clock', 'orphaned', 'external', 'requested', 'lost'];

const REASON_TEXTS = {
  'exited': 'ended by itself',
  'wall-clock': 'its time was over',
  'memory': 'used more memory than its limit',
  'oom': 'killed by the kernel at its ceiling',
  'orphaned': 'left behind by its leader or owner',
  'external': 'killed by somebody else',
  'requested': 'somebody asked for it',
  'lost': 'nobody can know',
};

export const LIVE_STATES = ['placing', 'running', 'ending', 'unkillable'];
export const STATES = [...LIVE_STATES, 'ended', 'unregistered'];
export const UNREGISTERED_TEXT = 'is watched no more, and lives on';

export function isReason(word) {
  return Object.hasOwn(REASON_TEXTS, word);
}

export function reasonText(reason) {
  return isReason(reason) ? REASON_TEXTS[reason] : '';
}

/** A word from outside as it may go into a class name: those that are known, else `other`. */
export function reasonClass(reason) {
  return `reason-${isReason(reason) ? reason : 'other'}`;
}

export function stateClass(state) {
  return `state-${STATES.includes(state) ? state : 'other'}`;
}

// SPDX-License-Identifier: Apache-2.0
//
// Events as a list, newest first; and verdicts, said aloud.

import {h, detailLink} from './dom.js';
import {formatIso, formatMoment, parseTime} from './format.js';
import {isVerdict, nameOf, particulars, sentence} from './events.js';
import {reasonClass, reasonText} from './words.js';

const EVERYDAY = new Set(['registered', 'adopted', 'extended', 'limits-changed', 'unregistered']);
const isEveryday = (record) => EVERYDAY.has(record.kind) || (record.kind === 'ended' && record.reason === 'exited');

/** One event; `nameOfKey` finds a name for a run that the record doesn't name. */
export function eventItem(record, {withName = true, nameOfKey = () => null} = {}) {
  const at = parseTime(record.occurred_at);
  const name = nameOf(record);
  const subject = !withName ? null
    : name !== null ? h('a', {class: 'name', href: detailLink(name, record.run_id ?? null), title: name, text: name})
      : record.key ? h('span', {class: 'name anonymous', text: nameOfKey(record.key) ?? `run ${record.key.slice(0, 8)}`}) : null;
  return h('li', {'data-kind': record.kind, 'data-reason': record.reason ?? null, 'data-event': record.event_id,
    'data-everyday': isEveryday(record)},
  h('time', {datetime: record.occurred_at, title: formatIso(at), text: formatMoment(at)}),
  h('span', {class: `key ${record.reason ? reasonClass(record.reason) : 'reason-none'}`, 'aria-hidden': 'true'}),
  h('span', {class: 'what'}, ...(subject === null ? [] : [subject, ' ']), h('span', {class: 'kind', text: record.kind}),
    record.reason ? h('span', {class: 'reason', title: reasonText(record.reason) || null, text: record.reason}) : null,
    h('span', {class: 'particulars', text: particulars(record)})));
}

export class EventsView {
  constructor({list, verdicts, exits}) {
    this.list = list;
    this.verdicts = verdicts;
    this.elements = new Map();
    exits.addEventListener('change', () => list.classList.toggle('only-news', !exits.checked));
    list.classList.toggle('only-news', !exits.checked);
  }

  /** Shows these records, newest first; elements that are there already stay. */
  render(records) {
    const wanted = records.map((record) => {
      const element = this.elements.get(record.event_id) ?? eventItem(record);
      this.elements.set(record.event_id, element);
      return element;
    });
    const ids = new Set(records.map((record) => record.event_id));
    for (const [id, element] of this.elements) {
      if (ids.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    let cursor = this.list.firstChild;
    for (const element of wanted) {
      if (element === cursor) cursor = cursor.nextSibling;
      else this.list.insertBefore(element, cursor);
    }
  }

  clear() {
    this.render([]);
    this.verdicts.replaceChildren();
  }

  /** For those who listen instead of looking; many at once become one sentence. */
  announce(records) {
    const verdicts = records.filter(isVerdict);
    if (verdicts.length === 0) return;
    const text = verdicts.length > 3
      ? `${verdicts.length} analyses were ended.`
      : verdicts.map((record) => `${nameOf(record) ?? 'An analysis'} ${sentence(record)}.`).join(' ');
    this.verdicts.append(h('p', {text}));
    while (this.verdicts.childElementCount > 5) this.verdicts.firstElementChild.remove();
  }
}

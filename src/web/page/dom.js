// SPDX-License-Identifier: Apache-2.0
//
// Elements. Text is only ever set as text: nothing that an analysis calls itself can become markup, nor turn the
// direction of writing, in what is seen or in what is read out.

import {printable} from './format.js';

const SVG = 'http://www.w3.org/2000/svg';

/** Attributes that are shown or read out as they stand. The others are names and addresses, and stay what they are. */
const WORDS = new Set(['title', 'alt', 'placeholder', 'aria-label', 'aria-valuetext', 'aria-description', 'aria-roledescription']);

const written = (name, value) => (WORDS.has(name) ? printable(value) : value);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = printable(value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : written(name, value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined)
    .map((child) => (child instanceof Node ? child : printable(child))));
  return element;
}

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** Only what differs is written: a write costs layout, and a screen reader may say it again. */
export function setText(element, text) {
  const shown = printable(text);
  if (element.textContent !== shown) element.textContent = shown;
}

export function setAttribute(element, name, value) {
  if (value === null) {
    element.removeAttribute(name);
    return;
  }
  const shown = written(name, value);
  if (element.getAttribute(name) !== shown) element.setAttribute(name, shown);
}

/** Where the page of one analysis is. */
export function detailLink(id, runId = null) {
  return `#/analysis/${encodeURIComponent(id)}${runId === null ? '' : `?run=${encodeURIComponent(runId)}`}`;
}

/** What all parts of the console use of the page. What arrives is hostile, and is only ever written as text. */

/** @type {(id: string) => any} */
export const $ = (id) => document.getElementById(id);

/** An element with properties and children; texts become text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The content of a template, which has one element. */
export const copyOf = (template) => template.content.cloneNode(true).firstElementChild;

export const moves = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

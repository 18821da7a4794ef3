/** What the keys of the keyboard do. */

import { $ } from "./page.js";

/** Calls `actions[key]` when that key is pressed where nothing else takes it, and `escape` for Esc.
 * @param {Record<string, () => void>} actions  @param {() => void} escape */
export function onKeys(actions, escape) {
  addEventListener("keydown", (event) => {
    const { key, target, ctrlKey, metaKey, altKey } = event;
    if (ctrlKey || metaKey || altKey || document.querySelector("dialog:modal")) return;
    if (key === "Escape") return escape();
    if (target.closest("input:not([type=range]), textarea, select, dialog") || !Object.hasOwn(actions, key)) return;
    if (key === " " && target.closest("button, summary")) return;
    if (key.startsWith("Arrow") && target.closest("#detail, input")) return;
    event.preventDefault();
    actions[key]();
  });
}

$("open-keys").addEventListener("click", () => $("keys").showModal());
$("close-keys").addEventListener("click", () => $("keys").close());

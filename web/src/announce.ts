// Sentences for screen readers, and notes that everyone sees for a while.

import { signal } from "@preact/signals";

export const spokenText = signal("");
type Kind = "info" | "lasting" | "error";
export const note = signal<{ text: string; kind: Kind; action?: { label: string; run: () => void } } | null>(null);

let timer = 0;

/** Say a sentence by the live region. */
export function announce(text: string): void {
  // The same text twice is read once, unless the region was empty in between.
  spokenText.value = "";
  requestAnimationFrame(() => (spokenText.value = text));
}

/** Show a sentence for some seconds; a lasting one and an error stay until they are closed. */
export function show(text: string, kind: Kind = "info", action?: { label: string; run: () => void }): void {
  clearTimeout(timer);
  note.value = action ? { text, kind, action } : { text, kind };
  if (kind === "info") timer = window.setTimeout(() => (note.value = null), 4000);
}

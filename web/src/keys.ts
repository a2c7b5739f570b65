// Keys of the whole page. They are off while someone types.

import { signal } from "@preact/signals";
import { cursor, focusCursor, goTo, hitAtCursor, isOpen, LESS, MORE, termOf } from "./hits";
import { closeFilters, isFiltering } from "./filters";
import { copyPath, searchByPart } from "./foot";
import * as player from "./player";
import { addSound, query } from "./query";
import { results } from "./search";

export const isHelpOpen = signal(false);

export const KEYS: [string, string][] = [
  ["/", "Go to the search box"],
  ["↑ ↓", "Play the hit above or below"],
  ["PgUp PgDn Home End", "Move by ten hits; to the first or last"],
  ["Space", "Play or pause"],
  ["← →", "One second back or on; with Shift 15"],
  ["Enter", "Open or close the details of the hit"],
  ["s", "More like this"],
  ["x", "Less like this"],
  ["[ ]", "Begin or end a part at the current second"],
  ["p", "Search by the part"],
  ["l", "Loop the part"],
  ["c", "Copy the path"],
  ["Esc", "Clear the part, close the details"],
  ["?", "Show or hide this list"],
];

const TYPED = new Set(["text", "search", "email", "number", "password", "url"]);

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return TYPED.has(target.type);
  return target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** Whether the element has a use of its own for the key. */
function takes(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  const isControl = target.closest("button, a, summary, input, label") !== null;
  if (isControl && (key === " " || key === "Enter")) return true;
  return target instanceof HTMLInputElement && key.startsWith("Arrow");
}

const PAGE_ROWS = 10;

function move(by: number): void {
  const { total } = results.peek();
  if (total) goTo(Math.min(total - 1, Math.max(0, cursor.peek() + by)));
}

function withHit(use: (hit: NonNullable<ReturnType<typeof hitAtCursor>>) => void): void {
  const hit = hitAtCursor();
  if (hit) use(hit);
}

function setPart(side: "start" | "end"): void {
  const sound = player.current.peek();
  if (!sound) return;
  const now = player.time.peek();
  const { start_s, end_s } = player.part.peek() ?? { start_s: 0, end_s: sound.duration_s };
  const next = side === "start" ? { start_s: now, end_s } : { start_s, end_s: now };
  if (next.start_s < next.end_s) player.part.value = next;
}

function seekBy(seconds: number): void {
  if (player.current.peek()) player.seek(player.time.peek() + seconds);
}

const ACTIONS: Record<string, (event: KeyboardEvent) => void> = {
  "/": () => {
    const box = document.querySelector<HTMLInputElement>("#search");
    box?.focus();
    box?.select();
  },
  ArrowDown: () => move(1),
  ArrowUp: () => (cursor.peek() <= 0 ? document.getElementById("search")?.focus() : move(-1)),
  PageDown: () => move(PAGE_ROWS),
  PageUp: () => move(-PAGE_ROWS),
  Home: () => goTo(0, { play: false }),
  End: () => goTo(results.peek().total - 1, { play: false }),
  " ": () => (player.current.peek() ? player.toggle() : withHit((hit) => player.play(hit))),
  ArrowLeft: (event) => seekBy(event.shiftKey ? -15 : -1),
  ArrowRight: (event) => seekBy(event.shiftKey ? 15 : 1),
  Enter: () =>
    withHit((hit) => {
      const isSame = player.current.peek()?.path === hit.path;
      player.load(hit);
      isOpen.value = !(isSame && isOpen.peek());
    }),
  s: () => withHit((hit) => addSound(termOf(hit, MORE))),
  x: () => withHit((hit) => addSound(termOf(hit, LESS))),
  p: () => searchByPart(),
  l: () => (player.isLooping.value = !player.isLooping.peek()),
  c: () => withHit((hit) => void copyPath(hit.path)),
  "[": () => setPart("start"),
  "]": () => setPart("end"),
  "?": () => (isHelpOpen.value = true),
  Escape: () => {
    if (isFiltering.peek()) closeFilters();
    else if (player.part.peek()) player.part.value = null;
    else if (isOpen.peek()) {
      isOpen.value = false;
      focusCursor.value += 1;
    }
  },
};

const SHIFTED = new Set(["?", "/", "ArrowLeft", "ArrowRight", "[", "]"]);
const SEARCH_ONLY = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End", "Enter", "s", "x", "c"]);

export function takeKeys(): void {
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    const isChord = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && !SHIFTED.has(key));
    if (event.defaultPrevented || isChord || isTyping(target) || takes(target, key)) return;
    if (document.querySelector("dialog[open]")) return;
    if (SEARCH_ONLY.has(key) && query.peek().view !== "search") return;
    const action = ACTIONS[key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

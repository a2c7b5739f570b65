// Search while the query changes: debounced, late answers dropped, pages fetched as they scroll into view.

import { batch, effect, signal } from "@preact/signals";
import { get, post, ServerError, type Hit, type Overview, type SearchAnswer, type SearchInfo, type Suggestion } from "./api";
import { isSameSearch, query, terms, type Query } from "./query";
import { connection } from "./server";

export const PAGE = 50;
const TYPING_MS = 110;

export interface Results {
  state: "idle" | "loading" | "ready" | "failed";
  /** The query of the hits, which is an earlier one while the next is loading. */
  of: Query | null;
  total: number;
  hits: (Hit | undefined)[];
  info: SearchInfo | null;
  error: ServerError | null;
  ms: number;
}

const NONE: Results = { state: "idle", of: null, total: 0, hits: [], info: null, error: null, ms: 0 };

export const results = signal<Results>(NONE);
export const overview = signal<Overview | null>(null);
export const suggestions = signal<Suggestion[]>([]);

let abort = new AbortController();
let sequence = 0;
let timer = 0;
let shown: Query | null = null;
let asked = new Set<number>();

function body(value: Query, offset: number): object {
  const hasText = value.text.trim() !== "";
  const words = hasText ? (value.words === "only" && value.sounds.length ? "auto" : value.words) : "off";
  return { index: value.index, terms: terms(value), where: value.where, keywords: words, k: PAGE, offset };
}

async function search(value: Query): Promise<void> {
  abort.abort();
  abort = new AbortController();
  const { signal: stop } = abort;
  const own = ++sequence;
  const start = performance.now();
  results.value = { ...results.peek(), state: "loading" };
  void overviewOf(value);
  try {
    const answer = await post<SearchAnswer>("/v1/search/combined", body(value, 0), stop);
    if (own !== sequence) return;
    asked = new Set([0]);
    const hits: (Hit | undefined)[] = [...answer.hits];
    const ms = performance.now() - start;
    results.value = { state: "ready", of: value, total: answer.total, hits, info: answer.info, error: null, ms };
  } catch (error) {
    if (own !== sequence || stop.aborted) return;
    const shownError = error instanceof ServerError ? error : new ServerError(0, "The search failed.");
    results.value = { ...results.peek(), state: "failed", error: shownError };
  }
}

/** Count the filters again, unless they are what they were. */
async function overviewOf({ index, where }: Query): Promise<void> {
  const body = JSON.stringify({ index, where });
  if (body === counted) return;
  counted = body;
  const own = ++counting;
  try {
    const answer = await post<Overview>("/v1/facets/overview", { index, where });
    if (own === counting) overview.value = answer;
  } catch {
    if (own === counting) counted = ""; // the search itself reports what is wrong
  }
}
let counted = "";
let counting = 0;

/** Fetch the pages of some hits that are not there yet. */
export function fetchHits(first: number, last: number): void {
  const { of, total, state } = results.peek();
  if (!of || state !== "ready") return; // or they would come into the hits of the next query
  const own = sequence;
  const pages = asked;
  for (let page = Math.floor(first / PAGE); page * PAGE < Math.min(last, total); page += 1) {
    if (pages.has(page)) continue;
    pages.add(page);
    post<SearchAnswer>("/v1/search/combined", body(of, page * PAGE), abort.signal).then(
      (answer) => {
        if (own !== sequence) return;
        const hits = results.peek().hits.slice();
        answer.hits.forEach((hit, number) => (hits[page * PAGE + number] = hit));
        results.value = { ...results.peek(), hits };
      },
      () => pages.delete(page),
    );
  }
}

/** Search again: the index changed, or the server is back. */
export function refresh(): void {
  counted = "";
  void search(query.peek());
}

async function suggest(value: Query): Promise<void> {
  const own = ++suggested;
  try {
    const answer = await get<{ values: Suggestion[] }>("/v1/suggestions", {
      index: value.index,
      text: value.text.trim().slice(0, 200),
      limit: value.text.trim() ? 6 : 12,
    });
    if (own === suggested) suggestions.value = answer.values;
  } catch {
    // there are none, then
  }
}
let suggested = 0;

/** Start to follow the query. */
export function followQuery(): void {
  effect(() => {
    const value = query.value;
    if (connection.value === "token") return;
    if (value.view !== "search" || isSameSearch(shown, value)) return;
    const typed = ({ text, where }: Query): string => JSON.stringify([text.trim(), where.path]);
    const isTyping = shown !== null && typed(shown) !== typed(value);
    shown = value;
    clearTimeout(timer);
    // Outside of the effect, which would otherwise depend on the signals that a search reads.
    timer = window.setTimeout(() => batch(() => (void search(value), void suggest(value))), isTyping ? TYPING_MS : 0);
  });
}

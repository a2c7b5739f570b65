// The connection to the server: settings, indexes, progress of indexing, and what to do when it is lost.

import { computed, effect, signal } from "@preact/signals";
import { address, get, post, ServerError, wait, watchConnection } from "./api";
import type { IndexingState, IndexObject, PageSettings } from "./api";
import { query } from "./query";

/** "token": the server wants its token; "lost": it cannot be reached. */
export const connection = signal<"unknown" | "ok" | "lost" | "token">("unknown");
export const settings = signal<PageSettings | null>(null);
export const indexes = signal<IndexObject[]>([]);
export const indexing = signal<IndexingState | null>(null);

/** Called when the server is back after a loss, and when an indexing run changed the index. */
let onChange: () => void = () => {};

export function watchChanges(watcher: () => void): void {
  onChange = watcher;
}

async function loadSettings(): Promise<void> {
  settings.value = await get<PageSettings>("/v1/page");
  await loadIndexes();
  connection.value = "ok";
}

let loads = 0;

async function loadIndexes(): Promise<void> {
  const own = ++loads;
  const { data } = await get<{ data: IndexObject[] }>("/v1/indexes");
  if (own === loads) indexes.value = data;
}

export async function openSession(token: string): Promise<void> {
  await post("/session", { token });
  await loadSettings();
  onChange();
}

const LONGEST_WAIT_MS = 5000;
let isWaiting = false;

/** Ask until the server answers, then load everything again. */
async function reconnect(): Promise<void> {
  if (isWaiting) return;
  isWaiting = true;
  for (let ms = 500; ; ms = Math.min(ms * 1.5, LONGEST_WAIT_MS)) {
    await wait(ms);
    try {
      if (!(await fetch("/health")).ok) continue;
      await loadSettings();
      break;
    } catch (error) {
      if (error instanceof ServerError && error.status === 401) break; // it was started with another token
    }
  }
  isWaiting = false;
  if (connection.peek() === "ok") onChange();
}

const REFRESH_MS = 4000;
let refreshed = 0;

function receive(state: IndexingState): void {
  const before = indexing.peek();
  indexing.value = state;
  if (state.state !== "running") {
    // A short run is over before the stream says that it began; the first state of all is no change.
    if (before) loadIndexes().then(onChange, () => {}); // the connection's own messages say what is wrong
  } else if (Date.now() - refreshed > REFRESH_MS && state.done > 0) {
    refreshed = Date.now();
    loadIndexes().then(
      () => {
        if ((indexes.peek().find((each) => each.name === state.index)?.files ?? 0) < 50) onChange();
      },
      () => {},
    );
  }
}

const listeners = new Map<string, (data: unknown) => void>();

/** Changes when a run begins, and with every one that ends: a short run ends before the stream says that it began. */
export function changeOf<T extends { state: string }>(state: T | null): T | string | null {
  return state?.state === "running" ? state.state : state;
}

/** Follow another kind of event of the stream, such as "duplicates". */
export function onEvent(name: string, listener: (data: unknown) => void): void {
  listeners.set(name, listener);
}

function followEvents(index: string | null): () => void {
  const name = index ?? indexes.peek()[0]?.name;
  if (indexing.peek()?.index !== name) indexing.value = null;
  const source = new EventSource(address("/v1/indexing/events", { index }));
  source.addEventListener("indexing", (event) => receive(JSON.parse((event as MessageEvent<string>).data)));
  for (const [name, listener] of listeners) {
    source.addEventListener(name, (event) => listener(JSON.parse((event as MessageEvent<string>).data)));
  }
  source.onerror = () => {
    source.close();
    void get("/v1/page").catch(() => {}); // says whether the server is gone or wants its token
    timer = window.setTimeout(() => (again.value += 1), 2000);
  };
  let timer = 0;
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
const again = signal(0);
const isReady = computed(() => connection.value === "ok" && indexes.value.length > 0);
const chosen = computed(() => query.value.index);

/** Start to follow the server. */
export function followServer(): void {
  watchConnection((error) => {
    if (error?.status === 401) connection.value = "token";
    else if (error) {
      connection.value = "lost";
      void reconnect();
    }
  });
  loadSettings().catch(() => {});
  effect(() => {
    void again.value;
    if (!isReady.value) return;
    return followEvents(chosen.value);
  });
}

// Collections: a star in each row, a view of what was starred, and its export as CSV.

import { batch, computed, effect, signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { get, post, remove, type Hit, type SearchAnswer } from "./api";
import { announce, show } from "./announce";
import { clock, innerFolders, nameOf, plural, visible } from "./format";
import { Icon, IconButton } from "./icons";
import { current, isPlaying, play, toggle, type Playable } from "./player";
import { query } from "./query";
import { connection, settings } from "./server";
import { Waveform } from "./waveform";

const FIRST_NAME = "Starred";
const PAGE = 100;

const names = signal<string[]>([]);
/** The collection that stars add to, and its sounds. */
const chosen = signal(localStorage.getItem("collection") ?? FIRST_NAME);
const paths = signal<string[]>([]);
/** Whether `paths` are those of the chosen collection, and not still on their way. */
const isLoaded = signal(false);
const starred = computed(() => new Set(paths.value));

function url(name: string): string {
  const { index } = query.peek();
  return `/v1/collections/${encodeURIComponent(name)}${index ? `?index=${encodeURIComponent(index)}` : ""}`;
}

let changes = 0;
let queue: Promise<unknown> = Promise.resolve();

/** After the changes so far are stored. */
function afterChanges<T>(run: () => Promise<T>): Promise<T> {
  const result = queue.then(run);
  queue = result.catch(() => {});
  return result;
}

async function load(): Promise<void> {
  const name = chosen.peek();
  const listed = (await get<{ names: string[] }>("/v1/collections", { index: query.peek().index })).names;
  const stored = listed.includes(name) ? (await get<{ paths: string[] }>(url(name))).paths : [];
  if (name !== chosen.peek()) return;
  names.value = listed;
  isLoaded.value = true;
  if (!changes) paths.value = stored;
}

const place = computed(() => `${connection.value === "ok"} ${query.value.index} ${chosen.value}`);

/** Follow the index and the chosen collection. */
export function followCollections(): void {
  effect(() => {
    if (place.value.startsWith("true")) afterChanges(load).catch(() => {}); // the connection's own messages say what is wrong
  });
}

interface Change {
  add?: string[];
  remove?: string[];
}

/** Show a change at once, and store it after those before it: the server then has each, in their order. */
async function change({ add = [], remove = [] }: Change, name = chosen.peek()): Promise<void> {
  const address = url(name);
  if (name === chosen.peek()) paths.value = [...new Set([...paths.peek().filter((each) => !remove.includes(each)), ...add])];
  changes += 1;
  try {
    const send = () => post<{ paths: string[] }>(address, { add, remove }, undefined, "PATCH");
    const stored = (await afterChanges(send)).paths;
    changes -= 1;
    if (!names.peek().includes(name)) names.value = [...names.peek(), name].sort();
    if (!changes && address === url(chosen.peek())) paths.value = stored;
  } catch (error) {
    changes -= 1;
    show((error as Error).message, "error");
    await afterChanges(load).catch(() => {});
  }
}

function toggleStar(path: string): void {
  const isStarred = starred.peek().has(path);
  announce(`${nameOf(path)} ${isStarred ? "removed from" : "added to"} ${chosen.peek()}`);
  void change(isStarred ? { remove: [path] } : { add: [path] });
}

export function Star({ hit, tabIndex }: { hit: Playable; tabIndex?: number }) {
  const isStarred = starred.value.has(hit.path);
  return (
    <IconButton
      icon="star"
      filled={isStarred}
      pressed={isStarred}
      label={isStarred ? `Remove from ${chosen.value}` : `Add to ${chosen.value}`}
      {...(tabIndex === undefined ? {} : { tabIndex })}
      onClick={() => toggleStar(hit.path)}
    />
  );
}

/** Adds several sounds at once. */
export function StarAll({ paths: added }: { paths: string[] }) {
  return (
    <button
      type="button"
      onClick={() => {
        void change({ add: added });
        show(`${plural(added.length, "sound")} added to ${chosen.peek()}.`);
      }}
    >
      <Icon name="star" /> Add to {chosen.value}
    </button>
  );
}

function choose(name: string): void {
  localStorage.setItem("collection", name);
  if (name === chosen.peek()) return;
  batch(() => {
    chosen.value = name;
    paths.value = [];
    isLoaded.value = false;
  });
}

export function CollectionsView() {
  const [pages, setPages] = useState(1);
  const { hits, failed } = useFacts(paths.value.slice(0, pages * PAGE));
  const listed = [...new Set([...names.value, chosen.value])].sort();
  return (
    <main class="view list-view">
      <h1>Collections</h1>
      <div class="buttons" role="group" aria-label="Collections">
        {listed.map((name) => (
          <button key={name} type="button" aria-pressed={name === chosen.value} class="toggle" onClick={() => choose(name)}>
            <bdi dir="auto">{visible(name)}</bdi>
          </button>
        ))}
        <NewCollection />
      </div>
      {paths.value.length > 0 ? (
        <p class="quiet">
          {plural(paths.value.length, "sound")} in <bdi>{visible(chosen.value)}</bdi>. Stars in the search add to it.
        </p>
      ) : isLoaded.value && (
        <div class="empty">
          <Icon name="star" />
          <h2>
            No sounds in <bdi>{visible(chosen.value)}</bdi> yet
          </h2>
          <p>The star at a hit adds it here. A collection is stored on the server, and can be exported.</p>
        </div>
      )}
      {failed && <p class="error-text">{failed}</p>}
      <ul class="sounds">
        {hits.map((hit) => (
          <SoundRow key={hit.path} hit={hit}>
            <IconButton icon="close" label={`Remove ${nameOf(hit.path)}`} onClick={() => toggleStar(hit.path)} />
          </SoundRow>
        ))}
      </ul>
      {paths.value.length > pages * PAGE && (
        <button type="button" onClick={() => setPages(pages + 1)}>
          Show more
        </button>
      )}
      <p class="buttons">
        <button type="button" disabled={!paths.value.length} onClick={() => void exportCsv()}>
          <Icon name="download" /> Export as CSV
        </button>
        {settings.value?.can_reveal && (
          <button type="button" disabled={!paths.value.length} onClick={() => void exportLinks()}>
            <Icon name="folder" /> Export as folder of links
          </button>
        )}
        {names.value.includes(chosen.value) && (
          <button type="button" onClick={() => void deleteCollection()}>
            Delete the collection
          </button>
        )}
      </p>
    </main>
  );
}

function NewCollection() {
  const [name, setName] = useState("");
  return (
    <form
      class="token"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) choose(name.trim());
        setName("");
      }}
    >
      <input aria-label="Name of a new collection" placeholder="New collection" maxLength={200} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      <button type="submit" disabled={!name.trim()}>
        Add
      </button>
    </form>
  );
}

async function deleteCollection(): Promise<void> {
  const name = chosen.peek();
  const before = paths.peek();
  try {
    await afterChanges(() => remove(`/v1/collections/${encodeURIComponent(name)}`, { index: query.peek().index }));
    names.value = names.peek().filter((each) => each !== name);
    if (name === chosen.peek()) paths.value = [];
    show(`${name} is deleted; its sounds stay.`, "info", { label: "Undo", run: () => void change({ add: before }, name) });
  } catch (error) {
    show((error as Error).message, "error");
  }
}

/** The facts of some sounds, in the order of `wanted`. */
async function factsOf(wanted: string[]): Promise<Hit[]> {
  const found = new Map<string, Hit>();
  for (let first = 0; first < wanted.length; first += PAGE) {
    const where = { path: wanted.slice(first, first + PAGE) };
    const body = { index: query.peek().index, terms: [], where, k: PAGE };
    for (const hit of (await post<SearchAnswer>("/v1/search/combined", body)).hits) found.set(hit.path, hit);
  }
  return wanted.flatMap((path) => found.get(path) ?? []);
}

export function useFacts(wanted: string[]): { hits: Hit[]; failed: string } {
  const [state, setState] = useState<{ hits: Hit[]; failed: string }>({ hits: [], failed: "" });
  const key = JSON.stringify(wanted);
  useEffect(() => {
    let isHere = true;
    factsOf(wanted).then(
      (hits) => isHere && setState({ hits, failed: "" }),
      (error: Error) => isHere && setState({ hits: [], failed: error.message }),
    );
    return () => {
      isHere = false;
    };
  }, [key]);
  // Those of an earlier list that are still wanted, until the others are there.
  const isWanted = new Set(wanted);
  return { ...state, hits: state.hits.filter((hit) => isWanted.has(hit.path)) };
}

const COLUMNS = ["path", "duration_s", "rate", "channels", "caption", "tags", "category", "licence", "artist", "title"] as const;

/** A cell of a table that spreadsheets read: one that begins like a formula would be computed. */
function cell(value: unknown): string {
  const text = Array.isArray(value) ? value.join("; ") : String(value ?? "");
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
}

function csv(hits: Hit[]): string {
  const lines = hits.map((hit) => COLUMNS.map((column) => cell(hit[column])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

async function exportCsv(): Promise<void> {
  const name = chosen.peek();
  const address = url(name);
  try {
    const text = csv(await afterChanges(async () => factsOf((await get<{ paths: string[] }>(address)).paths)));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${name.replace(/[^\p{L}\p{N} _-]/gu, "_")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    show((error as Error).message, "error");
  }
}

interface Links {
  folder: string;
  links: number;
  missing: string[];
}

/** Make a folder of links on the server's machine, which is this one. */
async function exportLinks(): Promise<void> {
  const name = chosen.peek();
  const link = (reveal: boolean): Promise<Links> =>
    post<Links>(`/v1/collections/${encodeURIComponent(name)}/links`, { index: query.peek().index, reveal });
  try {
    const { folder, links, missing } = await afterChanges(() => link(false));
    const gone = missing.length ? ` ${plural(missing.length, "sound is", "sounds are")} no longer there.` : "";
    show(`${plural(links, "link")} in ${visible(folder)}.${gone}`, "lasting", {
      label: "Open the folder",
      run: () => void link(true).catch((error: Error) => show(error.message, "error")),
    });
  } catch (error) {
    show((error as Error).message, "error");
  }
}

/** A sound in a list: play, name, waveform, length, and what the list adds. */
export function SoundRow({ hit, children, note }: { hit: Playable; children?: preact.ComponentChildren; note?: string }) {
  const isCurrent = current.value?.path === hit.path;
  const isOn = isCurrent && isPlaying.value;
  return (
    <li class={`sound-row ${isCurrent ? "current" : ""}`}>
      <IconButton
        icon={isOn ? "pause" : "play"}
        filled
        class="play"
        label={`${isOn ? "Pause" : "Play"} ${nameOf(hit.path)}`}
        onClick={() => (isCurrent ? toggle() : play(hit))}
      />
      <div class="name">
        <bdi class="file" dir="auto" title={hit.path}>
          {nameOf(hit.path)}
        </bdi>
        <bdi class="under" dir="auto" title={note}>
          {note ?? (visible(hit.caption ?? hit.title ?? "") || innerFolders(hit.path))}
        </bdi>
      </div>
      <Waveform sound={hit} />
      <span class="time">{clock(hit.duration_s)}</span>
      <span class="sound-actions">{children}</span>
    </li>
  );
}

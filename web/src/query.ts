// The search as the address has it: text, sounds with weights, filters. Back, forward and reload need nothing else.

import { signal } from "@preact/signals";
import type { Condition, Where } from "./api";

/** A sound of the query: an indexed one, a part of it, or an upload by its embedding. */
export interface SoundTerm {
  name: string;
  weight: number;
  path?: string;
  start_s?: number;
  end_s?: number;
  /** The embedding of an upload: int8 in base64url. */
  vector?: string;
}

export type WordsUse = "auto" | "off" | "only";

export interface Query {
  view: string;
  index: string | null;
  text: string;
  sounds: SoundTerm[];
  where: Where;
  words: WordsUse;
}

export const query = signal<Query>(read(location.search));

const PAUSE_MS = 2000; // a text that is changed again within this time is one step of the history
let lastTyped = 0;

/** Change the query. Typing replaces the newest step of the history while it goes on; other changes add one. */
export function change(part: Partial<Query>, typing = false): void {
  const next = { ...query.peek(), ...part };
  const url = location.pathname + write(next);
  if (url === location.pathname + location.search) return;
  const now = Date.now();
  if (typing && now - lastTyped < PAUSE_MS) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  lastTyped = typing ? now : 0;
  query.value = next;
}

addEventListener("popstate", () => {
  lastTyped = 0;
  query.value = read(location.search);
});

export function read(search: string): Query {
  const values = new URLSearchParams(search);
  const words = values.get("words");
  return {
    view: values.get("view") ?? "search",
    index: values.get("index"),
    text: values.get("q") ?? "",
    sounds: values.getAll("sound").flatMap((text) => parsed<SoundTerm>(text, isSound)),
    where: values.getAll("where").flatMap((text) => parsed<Where>(text, isWhere))[0] ?? {},
    words: words === "off" || words === "only" ? words : "auto",
  };
}

function write(value: Query): string {
  const values = new URLSearchParams();
  if (value.view !== "search") values.set("view", value.view);
  if (value.index) values.set("index", value.index);
  if (value.text) values.set("q", value.text);
  for (const sound of value.sounds) values.append("sound", JSON.stringify(sound));
  if (Object.keys(value.where).length) values.set("where", JSON.stringify(value.where));
  if (value.words !== "auto") values.set("words", value.words);
  const text = values.toString();
  return text ? `?${text}` : "";
}

function parsed<T>(text: string, check: (value: unknown) => boolean): T[] {
  try {
    const value: unknown = JSON.parse(text);
    return check(value) ? [value as T] : [];
  } catch {
    return []; // an address that was cut short or typed by hand
  }
}

function isSound(value: unknown): boolean {
  const sound = value as Partial<SoundTerm> | null;
  return (
    typeof sound === "object" &&
    typeof sound?.name === "string" &&
    typeof sound.weight === "number" &&
    (typeof sound.path === "string" || typeof sound.vector === "string")
  );
}

function isWhere(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((each) => Array.isArray(each) || (typeof each === "object" && each !== null))
  );
}

/** The terms of a request. */
export function terms(value: Query): object[] {
  const text = value.text.trim();
  const sounds = value.sounds.map(({ name: _, vector, ...rest }) => (vector ? { ...rest, vector: unpack(vector) } : rest));
  return text ? [{ text, weight: 1 }, ...sounds] : sounds;
}

/** Add a sound, or change the weight of one that is there. */
export function addSound(sound: SoundTerm): void {
  const others = query.peek().sounds.filter((each) => !isSame(each, sound));
  change({ view: "search", sounds: [...others, sound] });
}

function isSame(a: SoundTerm, b: SoundTerm): boolean {
  return a.path === b.path && a.start_s === b.start_s && a.end_s === b.end_s && a.vector === b.vector;
}

/** Whether two queries have the same hits. */
export function isSameSearch(a: Query | null, b: Query): boolean {
  return (
    a !== null &&
    a.index === b.index &&
    a.text.trim() === b.text.trim() &&
    a.words === b.words &&
    JSON.stringify([a.sounds, a.where]) === JSON.stringify([b.sounds, b.where])
  );
}

export function setFilter(fact: string, value: Condition | null, typing = false): void {
  const { [fact]: _, ...others } = query.peek().where;
  const isEmpty = value === null || (Array.isArray(value) && !value.length);
  change({ view: "search", where: isEmpty ? others : { ...others, [fact]: value } }, typing);
}

/** A unit vector in 8 bits a number: its cosine with the original is above 0.9999. */
export function pack(vector: number[]): string {
  const largest = Math.max(...vector.map(Math.abs)) || 1;
  const numbers = Int8Array.from(vector, (value) => Math.round((value / largest) * 127));
  return btoa(String.fromCharCode(...new Uint8Array(numbers.buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function unpack(text: string): number[] {
  try {
    const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return [...Int8Array.from(binary, (each) => each.charCodeAt(0))];
  } catch {
    return [];
  }
}

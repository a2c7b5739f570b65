// The one player of the page: what plays, from where, and the part that is selected.

import { effect, signal } from "@preact/signals";
import { address, errorAt, get, ServerError, type Hit, type Peaks, type SoundFacts } from "./api";
import { announce } from "./announce";
import { clock, nameOf } from "./format";
import { query } from "./query";

export interface Part {
  start_s: number;
  end_s: number;
}

/** What the player needs to know of a sound. */
export type Playable = Pick<Hit, "path" | "start_s" | "end_s" | "duration_s" | "rate" | "channels"> & Partial<Hit>;

export const audio = new Audio();
audio.preload = "metadata";

export const current = signal<Playable | null>(null);
export const isPlaying = signal(false);
export const time = signal(0);
export const part = signal<Part | null>(null);
export const isLooping = signal(false);
export const peaks = signal<Peaks | null>(null);
export const problem = signal<ServerError | null>(null);
/** Whether the server decodes the sound, since the browser cannot. */
export const isTranscoded = signal(false);

const SHORT_S = 0.05; // a sound that ends right after the match starts over

export function soundAddress(kind: "file" | "stream" | "clip", path: string, values: Partial<Part> = {}): string {
  return address(`/v1/sounds/${kind}`, { path, index: query.peek().index, ...values });
}

/** Whether a match covers its whole sound, up to rounding. */
export function isWhole(sound: Pick<Hit, "start_s" | "end_s" | "duration_s">): boolean {
  return sound.start_s < 0.01 && sound.end_s > sound.duration_s - 0.01;
}

/** The addresses of waveforms that were asked for, so that the list and the player share them. */
const stored = new Map<string, Promise<Peaks>>();
const MOST_STORED = 500;

export function peaksOf(path: string): Promise<Peaks> {
  let found = stored.get(path);
  if (!found) {
    found = get<Peaks>("/v1/sounds/peaks", { path, index: query.peek().index, columns: 500 });
    found.catch(() => stored.delete(path));
    stored.set(path, found);
    if (stored.size > MOST_STORED) stored.delete(stored.keys().next().value as string);
  }
  return found;
}

/** The facts of a sound as the index has them now. */
export function factsOf(path: string): Promise<SoundFacts> {
  return get<SoundFacts>("/v1/sounds", { path, index: query.peek().index });
}

/** Make a sound the current one, without playing it yet. */
export function load(sound: Playable): void {
  if (current.peek()?.path === sound.path && !problem.peek()) {
    current.value = sound;
    return;
  }
  audio.pause();
  isTranscoded.value = false;
  problem.value = null;
  part.value = null;
  peaks.value = null;
  current.value = sound;
  time.value = sound.start_s;
  setSource("file", sound.start_s);
  peaksOf(sound.path).then(
    (value) => {
      if (current.peek()?.path === sound.path) peaks.value = value;
    },
    () => {}, // the audio element reports what is wrong with the sound
  );
}

function setSource(kind: "file" | "stream", start_s: number): void {
  const sound = current.peek();
  if (!sound) return;
  audio.src = new URL(soundAddress(kind, sound.path), location.href).href;
  seek(start_s);
}

/** Play a sound from its match, or from another second. */
export function play(sound: Playable, from_s = sound.start_s): void {
  load(sound);
  seek(from_s >= sound.duration_s - SHORT_S ? 0 : from_s);
  start();
  announce(`Playing ${nameOf(sound.path)} from ${clock(from_s)}`);
}

function start(): void {
  audio.play().catch(() => {}); // the element's own error event says why, if it is one
}

/** Pause, or play on. */
export function toggle(): void {
  const sound = current.peek();
  if (!sound) return;
  if (!audio.paused) {
    audio.pause();
    announce("Paused");
  } else if (problem.peek()) play(sound);
  else {
    if (audio.ended || time.peek() >= sound.duration_s - SHORT_S) seek(part.peek()?.start_s ?? sound.start_s);
    start();
  }
}

export function seek(to_s: number): void {
  const sound = current.peek();
  if (!sound) return;
  const to = Math.min(Math.max(0, to_s), sound.duration_s);
  time.value = to;
  if (audio.readyState >= HTMLMediaElement.HAVE_METADATA) audio.currentTime = to;
  else pending = to;
}
let pending: number | null = null;

/** Select a part of a sound and make the sound the current one. */
export function select(sound: Playable, chosen: Part | null): void {
  load(sound);
  part.value = chosen;
}

export function stop(): void {
  audio.pause();
  audio.removeAttribute("src");
  audio.load();
  current.value = null;
  part.value = null;
}

audio.addEventListener("loadedmetadata", () => {
  if (pending !== null) audio.currentTime = pending;
  pending = null;
});
audio.addEventListener("play", () => (isPlaying.value = true));
audio.addEventListener("pause", () => (isPlaying.value = false));
audio.addEventListener("seeking", () => {
  if (pending === null) time.value = audio.currentTime; // wavesurfer.js seeks by itself
});
audio.addEventListener("ended", () => {
  isPlaying.value = false;
  time.value = audio.currentTime;
  const loop = loopOf();
  if (loop) play(current.peek() as Playable, loop.start_s);
});
audio.addEventListener("error", () => void recover());

/** The server decodes what the browser cannot; what the server cannot send either, it says why. */
async function recover(): Promise<void> {
  const sound = current.peek();
  if (!sound || !audio.src) return;
  const wasAt = pending ?? time.peek();
  const error = await errorAt(audio.src);
  if (current.peek() !== sound) return;
  if (!error && !isTranscoded.peek()) {
    isTranscoded.value = true;
    setSource("stream", wasAt);
    start();
    return;
  }
  isPlaying.value = false;
  problem.value = error ?? new ServerError(400, "This sound cannot be played here. Download the file.");
  announce(problem.value.message);
}

function loopOf(): Part | null {
  const sound = current.peek();
  return sound && isLooping.peek() ? (part.peek() ?? { start_s: sound.start_s, end_s: sound.end_s }) : null;
}

// The element reports its time four times a second, too rarely for a cursor and for the end of a loop.
effect(() => {
  if (!isPlaying.value) return;
  let frame = 0;
  const follow = (): void => {
    if (audio.readyState >= HTMLMediaElement.HAVE_METADATA && pending === null) {
      const loop = loopOf();
      if (loop && audio.currentTime >= loop.end_s) audio.currentTime = loop.start_s;
      time.value = audio.currentTime;
    }
    frame = requestAnimationFrame(follow);
  };
  frame = requestAnimationFrame(follow);
  return () => cancelAnimationFrame(frame);
});

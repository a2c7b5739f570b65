// Requests to the server, their types, and their errors.

export interface Hit {
  path: string;
  start_s: number;
  end_s: number;
  score: number;
  duration_s: number;
  caption: string | null;
  tags: string[];
  licence: string | null;
  rate: number;
  channels: number;
  size: number;
  modified: string;
  title: string | null;
  artist: string | null;
  album: string | null;
  comment: string | null;
  copyright: string | null;
  date: string | null;
  category: string | null;
  subcategory: string | null;
  keywords: string[];
  fit: number | null;
  words: string[];
  /** The model's own guesses. */
  labels: string[];
}

/** The facts of a sound, without those of a match in it. */
export type SoundFacts = Omit<Hit, "start_s" | "end_s" | "score" | "fit" | "words">;

export interface SearchInfo {
  method: string;
  fit: number | null;
  probably_nothing: boolean;
  summary: string;
}

export interface SearchAnswer {
  index: string;
  total: number;
  hits: Hit[];
  info: SearchInfo;
}

export interface Peaks {
  duration_s: number;
  low: number[];
  high: number[];
}

export interface SoundEmbedding extends Peaks {
  vector: number[];
  warning: string | null;
}

export interface Range {
  low?: number | null;
  high?: number | null;
}

export interface Contains {
  contains: string;
}

export type Condition = (string | number)[] | Range | Contains;
export type Where = Record<string, Condition>;

export interface FacetValue {
  value: string | number;
  count: number;
}

export interface Overview {
  total: number;
  facets: Record<string, FacetValue[]>;
  durations: { low: number | null; high: number | null; count: number }[];
}

export interface Suggestion {
  text: string;
  kind: "caption" | "tag" | "category" | "description";
  count: number;
}

export interface IndexObject {
  name: string;
  model: string;
  files: number;
  windows: number;
  folders: string[];
}

export interface PageSettings {
  version: string;
  can_reveal: boolean;
  clip_s: number;
  upload_bytes: number;
  upload_s: number;
}

export interface IndexingState {
  index: string;
  state: "idle" | "running" | "done" | "failed" | "stopped";
  done: number;
  total: number;
  message: string | null;
  seconds: number;
  added: number;
  unchanged: number;
  moved: number;
  removed: number;
  skipped: number;
}

export interface Spectrogram {
  start_s: number;
  end_s: number;
  low_hz: number;
  high_hz: number;
  columns: number;
  bands: number;
  levels: string;
}

/** An error with a sentence for the reader. `status` is 0 when the server cannot be reached. */
export class ServerError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterS = 0,
  ) {
    super(message);
  }
}

/** Called with each error of status 0 or 401, so that the page can show what to do; and with null after a success. */
let onConnection: (error: ServerError | null) => void = () => {};

export function watchConnection(watcher: typeof onConnection): void {
  onConnection = watcher;
}

const RETRIES = 4;

async function send(url: string, options: RequestInit, attempt = 0): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const lost = new ServerError(0, "The server cannot be reached.");
    onConnection(lost);
    throw lost;
  }
  if (response.ok) {
    onConnection(null);
    return response;
  }
  const error = await errorOf(response);
  if (error.status === 429 && attempt < RETRIES) {
    await wait((error.retryAfterS || 1) * 1000 * 2 ** attempt, options.signal ?? undefined);
    return send(url, options, attempt + 1);
  }
  if (error.status === 401) onConnection(error);
  throw error;
}

async function errorOf(response: Response): Promise<ServerError> {
  let message = `The server answered with status ${response.status}.`;
  try {
    const body = (await response.json()) as { error?: { message?: string } };
    message = body.error?.message ?? message;
  } catch {
    // not in our form: from a proxy, for example
  }
  return new ServerError(response.status, message, Number(response.headers.get("Retry-After")) || 0);
}

/** Wait; ends with an error when the signal aborts. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

type Values = Record<string, string | number | null | undefined>;

export function address(path: string, values: Values = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

export async function get<T>(path: string, values: Values = {}, signal?: AbortSignal): Promise<T> {
  return (await send(address(path, values), signal ? { signal } : {})).json() as Promise<T>;
}

export async function post<T>(path: string, body: unknown = {}, signal?: AbortSignal, method = "POST"): Promise<T> {
  const options: RequestInit = {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  if (signal) options.signal = signal;
  return (await send(path, options)).json() as Promise<T>;
}

export async function upload<T>(path: string, form: FormData): Promise<T> {
  return (await send(path, { method: "POST", body: form })).json() as Promise<T>;
}

export async function remove<T>(path: string, values: Values = {}): Promise<T> {
  return (await send(address(path, values), { method: "DELETE" })).json() as Promise<T>;
}

/** The error of an address that an audio element could not play; null when the server sends it. */
export async function errorAt(url: string): Promise<ServerError | null> {
  try {
    const response = await fetch(url, { headers: { Range: "bytes=0-0" } });
    if (!response.ok) return await errorOf(response);
    await response.body?.cancel();
    return null;
  } catch {
    return new ServerError(0, "The server cannot be reached.");
  }
}

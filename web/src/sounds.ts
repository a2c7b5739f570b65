// Search by a sound that is dropped, pasted, chosen or recorded.

import { signal } from "@preact/signals";
import { upload, type SoundEmbedding } from "./api";
import { announce, show } from "./announce";
import { bytes } from "./format";
import { addSound, pack, query } from "./query";
import { settings } from "./server";

export const isSending = signal(false);
export const recordingSince = signal<number | null>(null);
export const isDropping = signal(false);

const LONGEST_MS = 30_000;

export async function searchBySound(file: File): Promise<void> {
  const most = settings.peek()?.upload_bytes ?? Infinity;
  if (file.size > most) {
    show(`${file.name} has ${bytes(file.size)}, and this server takes up to ${bytes(most)}. Select a part of it.`, "error");
    return;
  }
  isSending.value = true;
  announce(`Sending ${file.name}`);
  try {
    const form = new FormData();
    form.set("file", file, file.name);
    const { index } = query.peek();
    if (index) form.set("index", index);
    const sound = await upload<SoundEmbedding>("/v1/sounds/embedding", form);
    addSound({ name: file.name, weight: 1, vector: pack(sound.vector) });
    if (sound.warning) show(`${file.name}: ${sound.warning}`, "error");
  } catch (error) {
    show((error as Error).message, "error", { label: "Choose another", run: () => document.getElementById("file")?.click() });
  } finally {
    isSending.value = false;
  }
}

const canRecord = typeof MediaRecorder !== "undefined" && navigator.mediaDevices !== undefined;
let recorder: MediaRecorder | null = null;

/** Start to record, or stop and search by the recording. */
export async function toggleRecording(): Promise<void> {
  if (recorder) {
    recorder.stop();
    return;
  }
  if (!canRecord) {
    show("Browsers record on this machine or over HTTPS only. Drop a recorded file here.", "error");
    return;
  }
  let stream: MediaStream;
  try {
    // As it sounds: processing for calls would remove what is not speech.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    const isRefused = (error as DOMException).name === "NotAllowedError";
    show(isRefused ? "The browser was not allowed to use the microphone. Allow it beside the address." : "There is no microphone.", "error");
    return;
  }
  const pieces: Blob[] = [];
  const own = new MediaRecorder(stream);
  recorder = own;
  own.ondataavailable = (event) => pieces.push(event.data);
  own.onstop = () => {
    recorder = null;
    recordingSince.value = null;
    for (const track of stream.getTracks()) track.stop();
    const time = new Date().toTimeString().slice(0, 8);
    void searchBySound(new File(pieces, `Recording ${time}`, { type: own.mimeType }));
  };
  own.start();
  recordingSince.value = Date.now();
  announce("Recording");
  setTimeout(() => recorder === own && own.stop(), LONGEST_MS);
}

function hasFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/** Take sounds that are dropped on the page or pasted into it. */
export function takeSounds(): void {
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    isDropping.value = true;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) isDropping.value = false;
  });
  addEventListener("drop", (event) => {
    isDropping.value = false;
    if (!hasFiles(event)) return;
    event.preventDefault();
    for (const file of event.dataTransfer?.files ?? []) void searchBySound(file);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    for (const file of files) void searchBySound(file);
  });
}

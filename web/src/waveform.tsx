// The waveform of a row: the match is marked, a click plays from there, a drag selects a part.

import { useEffect, useRef, useState } from "preact/hooks";
import { useComputed, useSignalEffect } from "@preact/signals";
import type { Peaks } from "./api";
import { current, part, peaksOf, play, select, time, type Part, type Playable } from "./player";

const BAR = 2;
const GAP = 1;
const DRAG_PX = 4; // a shorter movement is a click
const SHORTEST_S = 0.02;
const ASK_AFTER_MS = 80; // rows that scroll past ask for nothing

interface Colours {
  wave: string;
  match: string;
  played: string;
}

function coloursOf(element: Element): Colours {
  const style = getComputedStyle(element);
  const value = (name: string): string => style.getPropertyValue(name).trim();
  return { wave: value("--wave"), match: value("--wave-match"), played: value("--wave-played") };
}

/** Draw bars; those of the match in its colour, and of a playing sound those before `played_s` in theirs. */
export function draw(canvas: HTMLCanvasElement, peaks: Peaks, match: Part | null, played_s: number): void {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const colours = coloursOf(canvas);
  const bars = Math.max(1, Math.floor(width / (BAR + GAP)));
  const columns = peaks.low.length;
  for (let bar = 0; bar < bars; bar += 1) {
    const first = Math.floor((bar * columns) / bars);
    const last = Math.max(first + 1, Math.floor(((bar + 1) * columns) / bars));
    let highest = 0;
    for (let column = first; column < last; column += 1) {
      highest = Math.max(highest, peaks.high[column] ?? 0, -(peaks.low[column] ?? 0));
    }
    const at_s = ((bar + 0.5) / bars) * peaks.duration_s;
    const isMatch = match !== null && at_s >= match.start_s && at_s <= match.end_s;
    context.fillStyle = at_s < played_s ? colours.played : isMatch ? colours.match : colours.wave;
    const size = Math.max(1, (highest / 127) * (height - 2));
    context.fillRect(bar * (BAR + GAP), (height - size) / 2, BAR, size);
  }
}

/** The waveform of a sound, once it is known; null before. */
function usePeaks(path: string): Peaks | null {
  const [peaks, setPeaks] = useState<{ path: string; value: Peaks } | null>(null);
  useEffect(() => {
    let isHere = true;
    const timer = setTimeout(() => {
      peaksOf(path).then(
        (value) => isHere && setPeaks({ path, value }),
        () => {}, // a row without a waveform; playing it says why
      );
    }, ASK_AFTER_MS);
    return () => {
      isHere = false;
      clearTimeout(timer);
    };
  }, [path]);
  return peaks?.path === path ? peaks.value : null;
}

export function Waveform({ sound }: { sound: Playable }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const peaks = usePeaks(sound.path);
  const [drag, setDrag] = useState<Part | null>(null);
  const from = useRef<{ x: number; s: number } | null>(null);
  const own = useComputed(() => current.value?.path === sound.path);
  const match = { start_s: sound.start_s, end_s: sound.end_s };

  const paint = (): void => {
    if (canvas.current && peaks) draw(canvas.current, peaks, match, own.value ? time.value : -1);
  };
  useSignalEffect(() => {
    void (own.value && time.value);
    paint();
  });
  useEffect(() => {
    paint();
    const element = canvas.current;
    if (!element) return;
    const observer = new ResizeObserver(paint);
    observer.observe(element);
    addEventListener("themechange", paint);
    return () => {
      observer.disconnect();
      removeEventListener("themechange", paint);
    };
  }, [peaks, sound.path, sound.start_s, sound.end_s]);

  const secondsAt = (event: PointerEvent): number => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * sound.duration_s;
  };
  const isDrag = (event: PointerEvent): boolean => from.current !== null && Math.abs(event.clientX - from.current.x) > DRAG_PX;
  const spanTo = (event: PointerEvent): Part => {
    const a = from.current?.s ?? 0;
    const b = secondsAt(event);
    return { start_s: Math.min(a, b), end_s: Math.max(a, b) };
  };
  const finish = (event: PointerEvent): void => {
    if (from.current === null) return;
    const chosen = isDrag(event) ? spanTo(event) : null;
    const at = from.current.s;
    from.current = null;
    setDrag(null);
    if (chosen && chosen.end_s - chosen.start_s > SHORTEST_S) select(sound, chosen);
    else play(sound, at);
  };
  const shown = drag ?? (own.value ? part.value : null);
  const percent = (s: number): string => `${(100 * s) / (sound.duration_s || 1)}%`;
  return (
    <div
      class="waveform"
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        (event.currentTarget as Element).setPointerCapture(event.pointerId);
        from.current = { x: event.clientX, s: secondsAt(event) };
      }}
      onPointerMove={(event) => isDrag(event) && setDrag(spanTo(event))}
      onPointerUp={finish}
      onPointerCancel={() => {
        from.current = null;
        setDrag(null);
      }}
    >
      <canvas ref={canvas} aria-hidden="true" />
      {shown && <div class="selection" style={{ left: percent(shown.start_s), width: percent(shown.end_s - shown.start_s) }} />}
    </div>
  );
}

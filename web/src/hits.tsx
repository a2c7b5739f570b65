// The list of hits: only the rows in view are in the document, whatever the number of hits.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { signal, useSignalEffect } from "@preact/signals";
import type { Hit } from "./api";
import { channelsName, clock, clockIn, innerFolders, kilohertz, nameOf, visible } from "./format";
import { IconButton } from "./icons";
import { current, isPlaying, isWhole, load, play, soundAddress, toggle, type Playable } from "./player";
import { addSound, isSameSearch, query, type SoundTerm } from "./query";
import { fetchHits, results } from "./search";
import { rowActions } from "./extensions";
import { Waveform } from "./waveform";

const OVERSCAN = 4;
const NARROW_PX = 720;
const FETCH_MS = 60;

/** The number of the row that the keyboard is at; -1 for none. */
export const cursor = signal(-1);
/** Raised when the focus should move to the row of the cursor. */
export const focusCursor = signal(0);
export const isOpen = signal(false);

/** A hit as a term of a query: its part, unless it is the whole sound. */
export function termOf(hit: Playable, weight: number): SoundTerm {
  const whole = { name: nameOf(hit.path), weight, path: hit.path };
  return isWhole(hit) ? whole : { ...whole, start_s: hit.start_s, end_s: hit.end_s };
}

export const MORE = 1;
export const LESS = -0.5;

/** Move the cursor to a row, and play it. */
export function goTo(row: number, options: { play?: boolean; focus?: boolean } = {}): void {
  const { total, hits } = results.peek();
  if (row < 0 || row >= total) return;
  cursor.value = row;
  if (options.focus !== false) focusCursor.value += 1;
  const hit = hits[row];
  if (hit && options.play !== false) play(hit);
}

export function hitAtCursor(): Hit | undefined {
  return results.peek().hits[cursor.peek()];
}

export function HitList() {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 800, rowHeight: 60 });
  const { hits, total, of, state } = results.value;

  const measure = (): void => {
    const element = box.current;
    if (!element) return;
    const rowHeight = element.clientWidth < NARROW_PX ? 92 : 60;
    setView((old) =>
      old.top === element.scrollTop && old.height === element.clientHeight && old.rowHeight === rowHeight
        ? old
        : { top: element.scrollTop, height: element.clientHeight, rowHeight },
    );
  };
  useLayoutEffect(() => {
    measure();
    const observer = new ResizeObserver(measure);
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    if (box.current) box.current.scrollTop = 0;
    cursor.value = -1;
    measure();
  }, [of]);

  const first = Math.max(0, Math.floor(view.top / view.rowHeight) - OVERSCAN);
  const last = Math.min(total, Math.ceil((view.top + view.height) / view.rowHeight) + OVERSCAN);
  useEffect(() => {
    const timer = setTimeout(() => fetchHits(first, last), FETCH_MS); // rows that scroll past ask for nothing
    return () => clearTimeout(timer);
  }, [first, last, hits]);

  useSignalEffect(() => {
    void focusCursor.value;
    const row = cursor.peek();
    const element = box.current;
    if (!element || row < 0 || !focusCursor.value) return;
    const top = row * view.rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + view.rowHeight > element.scrollTop + element.clientHeight) {
      element.scrollTop = top + view.rowHeight - element.clientHeight;
    }
    measure();
    requestAnimationFrame(() => element.querySelector<HTMLElement>(`[data-row="${row}"]`)?.focus({ preventScroll: true }));
  });

  const rows = [];
  for (let row = first; row < last; row += 1) {
    rows.push(<Row key={row} row={row} hit={hits[row]} top={row * view.rowHeight} height={view.rowHeight} />);
  }
  return (
    <div
      ref={box}
      class={`hits ${of?.text.trim() || of?.sounds.length ? "" : "browsing"}`}
      role="grid"
      aria-label="Sounds"
      aria-rowcount={total}
      aria-colcount={4}
      aria-busy={state === "loading" || !isSameSearch(of, query.value)}
      onScroll={measure}
    >
      <div class="hits-space" role="presentation" style={{ height: `${total * view.rowHeight}px` }}>
        {rows}
      </div>
    </div>
  );
}

/** Move the focus from a button to its row, whose keys do more; at once, or the next key would press the button. */
function focusRow(event: MouseEvent): void {
  (event.currentTarget as Element).closest<HTMLElement>(".row")?.focus({ preventScroll: true });
}

interface RowProps {
  row: number;
  hit: Hit | undefined;
  top: number;
  height: number;
}

function Row({ row, hit, top, height }: RowProps) {
  const isCurrent = hit !== undefined && current.value?.path === hit.path;
  const isTabStop = cursor.value === row || (cursor.value < 0 && row === 0);
  const style = { transform: `translateY(${top}px)`, height: `${height}px` };
  if (!hit) {
    return (
      <div class="row loading" role="row" aria-rowindex={row + 1} style={style}>
        <span role="gridcell">…</span>
      </div>
    );
  }
  return (
    <div
      class={`row ${isCurrent ? "current" : ""}`}
      role="row"
      data-row={row}
      data-path={hit.path}
      aria-rowindex={row + 1}
      aria-selected={isCurrent}
      tabIndex={isTabStop ? 0 : -1}
      style={style}
      onFocus={() => (cursor.value = row)}
    >
      <div class="cell-play" role="gridcell">
        <IconButton
          icon={isCurrent && isPlaying.value ? "pause" : "play"}
          filled
          label={`${isCurrent && isPlaying.value ? "Pause" : "Play"} ${nameOf(hit.path)}`}
          tabIndex={-1}
          class="play"
          onClick={(event) => {
            focusRow(event);
            if (isCurrent) toggle();
            else play(hit);
          }}
        />
      </div>
      <div class="cell-name" role="gridcell">
        <Name hit={hit} />
      </div>
      <div class="cell-wave" role="gridcell">
        <Waveform sound={hit} />
      </div>
      <div class="cell-facts" role="gridcell">
        <span class="time" title={`${kilohertz(hit.rate)} · ${channelsName(hit.channels)}`}>
          {isWhole(hit) ? clock(hit.duration_s) : `${clockIn(hit.start_s, hit.duration_s)}–${clockIn(hit.end_s, hit.duration_s)}`}
          <small>{isWhole(hit) ? `${kilohertz(hit.rate)} ${channelsName(hit.channels)}` : `of ${clock(hit.duration_s)}`}</small>
        </span>
        <Fit hit={hit} />
        <span class="row-actions">
          {rowActions.value.map((Action, number) => (
            <Action key={number} hit={hit} tabIndex={-1} />
          ))}
          <IconButton icon="similar" label="More like this" keys="s" tabIndex={-1} onClick={() => addSound(termOf(hit, MORE))} />
          <IconButton icon="less" label="Less like this" keys="x" tabIndex={-1} onClick={() => addSound(termOf(hit, LESS))} />
          <IconButton
            icon="more"
            label="Open"
            keys="Enter"
            tabIndex={-1}
            onClick={(event) => {
              focusRow(event);
              load(hit);
              isOpen.value = true;
            }}
          />
        </span>
      </div>
    </div>
  );
}

/** A handle that Chromium lets one drag out as a file: DownloadURL has its type, name and address. */
export function dragOut(event: DragEvent, path: string, part?: { start_s: number; end_s: number }): void {
  const name = nameOf(path).replace(/:/g, "_");
  const url = new URL(part ? soundAddress("clip", path, part) : soundAddress("file", path), location.href).href;
  const target = part ? `audio/wav:${name.replace(/\.[^.]*$/, "")}.wav` : `application/octet-stream:${name}`;
  event.dataTransfer?.setData("DownloadURL", `${target}:${url}`);
  event.dataTransfer?.setData("text/uri-list", url);
  event.dataTransfer?.setData("text/plain", path);
}

function Name({ hit }: { hit: Hit }) {
  const second = hit.caption ?? hit.title ?? "";
  return (
    <div class="name" draggable onDragStart={(event) => dragOut(event, hit.path)}>
      <bdi class="file" dir="auto" title={hit.path}>
        <Marked text={nameOf(hit.path)} words={hit.words} />
      </bdi>
      <span class="under">
        {second && (
          <bdi class="caption" dir="auto">
            <Marked text={visible(second)} words={hit.words} />
          </bdi>
        )}
        <bdi class="folder" dir="ltr">
          {innerFolders(hit.path)}
        </bdi>
      </span>
    </div>
  );
}

/** A text with the words of the query that it has. */
function Marked({ text, words }: { text: string; words: string[] }) {
  if (!words.length) return <>{text}</>;
  const escaped = [...words].sort((a, b) => b.length - a.length).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pieces = text.split(new RegExp(`(${escaped.join("|")})`, "iu"));
  return <>{pieces.map((piece, number) => (number % 2 ? <mark key={number}>{piece}</mark> : piece))}</>;
}

const STEPS = [
  [0.9, "Strong"],
  [0.6, "Good"],
  [0.3, "Fair"],
  [0.1, "Weak"],
  [-1, "Poor"],
] as const;

/** How well a hit fits: for texts by the background of queries, for sounds the cosine itself. */
function fitOf(hit: Hit): { level: number; word: string; title: string } | null {
  if (hit.fit !== null) {
    const step = STEPS.findIndex(([least]) => (hit.fit ?? 0) >= least);
    const percent = Math.round(100 * hit.fit);
    return {
      level: STEPS.length - step,
      word: STEPS[step]?.[1] ?? "",
      title: `Better than the best hit of ${percent}% of the reference queries (cosine ${hit.score.toFixed(3)})`,
    };
  }
  if (hit.score === 0) return null;
  const level = Math.min(5, Math.max(1, Math.ceil(hit.score * 5)));
  return { level, word: hit.score.toFixed(2), title: `Cosine similarity ${hit.score.toFixed(3)}; 1 is the same sound` };
}

function Fit({ hit }: { hit: Hit }) {
  const fit = fitOf(hit);
  if (!fit) return <span class="fit none" />;
  return (
    <span class="fit" data-level={fit.level} title={fit.title}>
      <span class="bars" aria-hidden="true">
        <i />
        <i />
        <i />
        <i />
        <i />
      </span>
      <span class="word">{fit.word}</span>
    </span>
  );
}

// A map of the collection: sounds as points, near ones alike. Pointing at one plays it; a loop around some lists them.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "./api";
import { announce } from "./announce";
import { SoundRow, StarAll, useFacts } from "./collections";
import { count, nameOf, plural, visible } from "./format";
import * as player from "./player";
import { query } from "./query";

interface SoundMap {
  total: number;
  paths: string[];
  x: number[];
  y: number[];
  group: number[];
  groups: string[];
}

type Point = [x: number, y: number];
type GroupBy = "folder" | "category" | "labels" | "tags";

const SIDE = 10_000; // of the server's coordinates
const MARGIN = 14;
const REACH_PX = 14;
const DWELL_MS = 90; // a pointer that only passes plays nothing
const LISTED = 60;
/** Colours that are told apart in both themes, also with common colour blindness (after Okabe and Ito). */
const COLOURS = ["#0a8f7f", "#d0661b", "#5b79d6", "#c2508f", "#a58a00", "#4a9bd4", "#8a5fbf", "#7a8a3c"];
const OTHER = "#8b9794";

const plays = signal(true);

export function MapView() {
  const [group, setGroup] = useState<GroupBy>("folder");
  const [map, setMap] = useState<SoundMap | null>(null);
  const [failed, setFailed] = useState("");
  const [chosen, setChosen] = useState<string[]>([]);
  const { index } = query.value;
  useEffect(() => {
    let isHere = true;
    setFailed("");
    get<SoundMap>("/v1/map", { index, group }).then(
      (value) => isHere && setMap(value),
      (error: Error) => isHere && (setMap(null), setFailed(error.message)),
    );
    return () => {
      isHere = false;
    };
  }, [index, group]);
  useEffect(() => setChosen([]), [index]);
  return (
    <main class="map-view">
      <div class="toolbar">
        <h1>Map</h1>
        <p class="summary">{map ? (map.paths.length < map.total ? `${count(map.paths.length)} of ${plural(map.total, "sound")}` : plural(map.total, "sound")) : failed || "Computing…"}</p>
        <label class="check">
          <input type="checkbox" checked={plays.value} onChange={() => (plays.value = !plays.value)} /> Play on pointing
        </label>
        <label class="check">
          Colours by
          <select value={group} onChange={(event) => setGroup(event.currentTarget.value as GroupBy)}>
            <option value="folder">folder</option>
            <option value="category">category</option>
            <option value="labels">label</option>
            <option value="tags">tag</option>
          </select>
        </label>
      </div>
      {map && <Canvas map={map} chosen={chosen} onChoose={setChosen} />}
      {map && map.groups.length > 0 && (
        <ul class="legend" aria-label="Colours">
          {map.groups.map((name, number) => (
            <li key={name}>
              <i style={{ background: COLOURS[number] }} />
              <bdi dir="auto">{visible(name)}</bdi>
            </li>
          ))}
          {map.group.includes(-1) && (
            <li>
              <i style={{ background: OTHER }} />
              others
            </li>
          )}
        </ul>
      )}
      {chosen.length > 0 && <Chosen paths={chosen} onClear={() => setChosen([])} />}
    </main>
  );
}

function Chosen({ paths, onClear }: { paths: string[]; onClear: () => void }) {
  const { hits, failed } = useFacts(paths.slice(0, LISTED));
  return (
    <section class="chosen" aria-label="Selected sounds">
      <div class="toolbar">
        <h2>{plural(paths.length, "sound")}</h2>
        <p class="summary">{paths.length > LISTED ? `the first ${LISTED} are listed` : ""}</p>
        <StarAll paths={paths} />
        <button type="button" onClick={onClear}>
          Clear
        </button>
      </div>
      {failed && <p class="error-text">{failed}</p>}
      <ul class="sounds">
        {hits.map((hit) => (
          <SoundRow key={hit.path} hit={hit} />
        ))}
      </ul>
    </section>
  );
}

interface CanvasProps {
  map: SoundMap;
  chosen: string[];
  onChoose: (paths: string[]) => void;
}

function Canvas({ map, chosen, onChoose }: CanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [at, setAt] = useState(-1);
  const loop = useRef<Point[]>([]);
  const timer = useRef(0);

  const place = (number: number): Point => {
    const { clientWidth, clientHeight } = canvas.current as HTMLCanvasElement;
    const part = (value: number, size: number): number => MARGIN + (value / SIDE) * (size - 2 * MARGIN);
    return [part(map.x[number] ?? 0, clientWidth), part(SIDE - (map.y[number] ?? 0), clientHeight)];
  };
  const paint = (): void => {
    if (canvas.current) draw(canvas.current, map, place, new Set(chosen), at, loop.current);
  };
  useEffect(() => {
    paint();
    const observer = new ResizeObserver(paint);
    if (canvas.current) observer.observe(canvas.current);
    return () => observer.disconnect();
  }, [map, chosen, at]);

  const nearest = ([x, y]: Point): number => {
    let best = -1;
    let least = REACH_PX ** 2;
    for (let number = 0; number < map.paths.length; number += 1) {
      const [px, py] = place(number);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [number, distance];
    }
    return best;
  };
  const pointOf = (event: PointerEvent): Point => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const playAt = (number: number): void => {
    const path = map.paths[number];
    if (path) void playPath(path);
  };
  const goTo = (number: number): void => {
    clearTimeout(timer.current);
    setAt(number);
    if (number >= 0 && plays.peek()) timer.current = window.setTimeout(() => playAt(number), DWELL_MS);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    const direction = DIRECTIONS[event.key];
    if (event.key === "Enter" && at >= 0) {
      playAt(at);
      onChoose([map.paths[at] as string]);
    } else if (direction) {
      const next = at < 0 ? 0 : neighbour(map, at, direction);
      setAt(next);
      announce(nameOf(map.paths[next] ?? ""));
      if (plays.peek()) playAt(next);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="map">
      <canvas
        ref={canvas}
        tabIndex={0}
        role="application"
        aria-label={`Map of ${plural(map.paths.length, "sound")}. Arrows move to the nearest sound in their direction, Enter selects it.`}
        onKeyDown={onKeyDown}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          loop.current = [pointOf(event)];
        }}
        onPointerMove={(event) => {
          if (loop.current.length) {
            loop.current.push(pointOf(event));
            paint();
          } else goTo(nearest(pointOf(event)));
        }}
        onPointerUp={(event) => {
          const drawn = loop.current;
          loop.current = [];
          const number = nearest(pointOf(event));
          if (drawn.length > 8) onChoose(map.paths.filter((_, each) => isInside(place(each), drawn)));
          else if (number >= 0) {
            playAt(number);
            onChoose([map.paths[number] as string]);
          } else onChoose([]);
          paint();
        }}
        onPointerLeave={() => goTo(-1)}
      />
      {at >= 0 && (
        <bdi class="map-name" dir="auto">
          {nameOf(map.paths[at] ?? "")}
        </bdi>
      )}
    </div>
  );
}

let asked = 0;

async function playPath(path: string): Promise<void> {
  const own = ++asked;
  const facts = await player.factsOf(path).catch(() => null);
  if (facts && own === asked) player.play({ ...facts, start_s: 0, end_s: facts.duration_s });
}

const DIRECTIONS: Record<string, Point> = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** The nearest sound in a direction, up to 45° from it; the same where there is none. */
function neighbour(map: Pick<SoundMap, "x" | "y">, at: number, [dx, dy]: Point): number {
  let best = at;
  let least = Infinity;
  map.x.forEach((x, number) => {
    const [right, up] = [x - (map.x[at] ?? 0), (map.y[number] ?? 0) - (map.y[at] ?? 0)];
    const along = right * dx + up * dy;
    const across = Math.abs(right * dy) + Math.abs(up * dx);
    const distance = along ** 2 + across ** 2;
    if (along > 0 && across <= along && distance < least) [best, least] = [number, distance];
  });
  return best;
}

/** Whether a point is inside a closed line: an odd number of its edges cross a ray to the right. */
function isInside([x, y]: Point, line: Point[]): boolean {
  let inside = false;
  let [ax, ay] = line[line.length - 1] as Point;
  for (const [bx, by] of line) {
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    [ax, ay] = [bx, by];
  }
  return inside;
}

function draw(canvas: HTMLCanvasElement, map: SoundMap, place: (number: number) => Point, chosen: Set<string>, at: number, loop: Point[]): void {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  const ink = getComputedStyle(canvas).getPropertyValue("--ink");
  const radius = map.paths.length > 3000 ? 2 : map.paths.length > 600 ? 3 : 4.5;
  for (let number = 0; number < map.paths.length; number += 1) {
    const [x, y] = place(number);
    const isChosen = chosen.has(map.paths[number] as string);
    context.globalAlpha = chosen.size && !isChosen ? 0.3 : 0.85;
    context.fillStyle = COLOURS[map.group[number] ?? -1] ?? OTHER;
    context.beginPath();
    context.arc(x, y, number === at ? radius + 3 : radius, 0, 7);
    context.fill();
    if (number === at) {
      context.globalAlpha = 1;
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.stroke();
    }
  }
  context.globalAlpha = 1;
  if (loop.length > 1) {
    context.strokeStyle = ink;
    context.setLineDash([4, 4]);
    context.beginPath();
    for (const [x, y] of loop) context.lineTo(x, y);
    context.stroke();
  }
}

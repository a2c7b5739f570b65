// The bar at the foot: the current sound, its waveform as a slider, and, when it is open, all that can be done with it.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useSignalEffect } from "@preact/signals";
import WaveSurfer from "wavesurfer.js";
import RegionsPlugin from "wavesurfer.js/plugins/regions";
import { get, post, ServerError, type SoundFacts, type Spectrogram } from "./api";
import { announce, show } from "./announce";
import { bytes, channelsName, clock, clockIn, folderOf, kilohertz, nameOf, spoken, visible } from "./format";
import { Labels } from "./filters";
import { cursor, dragOut, goTo, isOpen, LESS, MORE, termOf } from "./hits";
import { Icon, IconButton } from "./icons";
import * as player from "./player";
import { addSound, query } from "./query";
import { rowActions } from "./extensions";
import { indexes, indexing, settings } from "./server";

const SEEK_S = 1;
const JUMP_S = 15;

export function Foot() {
  const sound = player.current.value;
  if (!sound) return null;
  const open = isOpen.value;
  return (
    <section class={`foot ${open ? "open" : ""}`} aria-label="Player">
      {player.problem.value && <Problem error={player.problem.value} />}
      {open && <Details sound={sound} />}
      <div class="foot-bar">
        <div class="transport">
          <IconButton icon="previous" class="step" label="Previous hit" keys="↑" onClick={() => goTo(cursor.value - 1, { focus: false })} />
          <IconButton
            icon={player.isPlaying.value ? "pause" : "play"}
            filled
            class="big"
            label={player.isPlaying.value ? "Pause" : "Play"}
            keys="Space"
            onClick={player.toggle}
          />
          <IconButton icon="next" class="step" label="Next hit" keys="↓" onClick={() => goTo(cursor.value + 1, { focus: false })} />
        </div>
        <div class="now" draggable onDragStart={(event) => dragOut(event, sound.path)}>
          <bdi class="file" dir="auto" title={sound.path}>
            {nameOf(sound.path)}
          </bdi>
          <Time />
        </div>
        <Slider sound={sound} />
        <div class="foot-buttons">
          <IconButton
            icon="loop"
            label="Loop the part"
            keys="l"
            pressed={player.isLooping.value}
            onClick={() => (player.isLooping.value = !player.isLooping.value)}
          />
          <IconButton
            icon={open ? "down" : "up"}
            label={open ? "Close details" : "Open details"}
            keys="Enter"
            pressed={open}
            onClick={() => (isOpen.value = !open)}
          />
          <IconButton icon="close" label="Close the player" onClick={player.stop} />
        </div>
      </div>
      {player.part.value && <PartBar sound={sound} part={player.part.value} />}
    </section>
  );
}

function Time() {
  const sound = player.current.value;
  return (
    <span class="now-time">
      <b>{clockIn(player.time.value, sound?.duration_s ?? 0)}</b> / {clock(sound?.duration_s ?? 0)}
      {player.isTranscoded.value && <em title="The browser cannot play this format, so the server decodes it."> · decoded by the server</em>}
    </span>
  );
}

function Problem({ error }: { error: ServerError }) {
  const isStale = error.status === 404 || error.status === 409;
  const isRunning = indexing.value?.state === "running";
  return (
    <div class="problem" role="alert">
      <span>{error.message}</span>
      {isStale && !isRunning && (
        <button type="button" onClick={() => void updateIndex()}>
          Update the index
        </button>
      )}
      {error.status === 0 && (
        <button type="button" onClick={player.toggle}>
          Try again
        </button>
      )}
    </div>
  );
}

export async function updateIndex(): Promise<void> {
  try {
    const { index } = query.peek();
    await post(index ? `/v1/indexing?index=${encodeURIComponent(index)}` : "/v1/indexing");
    show("The index is being brought up to date.");
  } catch (error) {
    show((error as Error).message, "error");
  }
}

/** wavesurfer.js draws and takes the pointer; the element around it is the slider that keyboards and readers know. */
function Slider({ sound }: { sound: player.Playable }) {
  const host = useRef<HTMLDivElement>(null);
  const surfer = useRef<WaveSurfer | null>(null);
  const regions = useRef<RegionsPlugin | null>(null);
  /** Whether a region is made from the part, and not by the pointer. */
  const isOwn = useRef(false);

  useSignalEffect(() => {
    const peaks = player.peaks.value;
    if (!peaks || !host.current) return;
    const data = [peaks.high, peaks.low].map((side) => Float32Array.from(side, (value) => value / 127));
    if (surfer.current) {
      // The address that the element has now, as wavesurfer.js reads it, or it would set it anew and stop the sound.
      const source = player.audio.currentSrc || player.audio.src;
      void surfer.current.load(source, data, peaks.duration_s).then(paint);
      return;
    }
    const plugin = RegionsPlugin.create();
    const created = WaveSurfer.create({
      container: host.current,
      media: player.audio,
      peaks: data,
      duration: peaks.duration_s,
      height: "auto",
      barWidth: 2,
      barGap: 1,
      hideScrollbar: true,
      cursorWidth: 2,
      cspNonce: document.querySelector<HTMLMetaElement>('meta[name="style-nonce"]')?.content ?? "",
      plugins: [plugin],
      ...colours(),
    });
    surfer.current = created;
    regions.current = plugin;
    created.on("ready", paint);
    plugin.enableDragSelection({ color: selectionColour() });
    plugin.on("region-created", (region) => {
      for (const other of plugin.getRegions()) if (other !== region) other.remove();
      if (!isOwn.current) player.part.value = { start_s: region.start, end_s: region.end };
    });
    plugin.on("region-updated", (region) => (player.part.value = { start_s: region.start, end_s: region.end }));
  });
  const paint = (): void => {
    const plugin = regions.current;
    const chosen = player.part.peek();
    const [region] = plugin?.getRegions() ?? [];
    // Before its waveform is there, wavesurfer.js would move every region to 0.
    if (!plugin || !surfer.current?.getDuration() || !player.peaks.peek()) return;
    if (!chosen) plugin.clearRegions();
    else if (!region) {
      isOwn.current = true;
      plugin.addRegion({ start: chosen.start_s, end: chosen.end_s, color: selectionColour() });
      isOwn.current = false;
    } else if (region.start !== chosen.start_s || region.end !== chosen.end_s) {
      region.setOptions({ start: chosen.start_s, end: chosen.end_s });
    }
  };
  useSignalEffect(() => {
    void player.part.value;
    paint();
  });
  useEffect(() => {
    const repaint = (): void => surfer.current?.setOptions(colours());
    addEventListener("themechange", repaint);
    return () => {
      removeEventListener("themechange", repaint);
      surfer.current?.destroy();
      surfer.current = null;
    };
  }, []);

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? JUMP_S : SEEK_S;
    const to = {
      ArrowLeft: player.time.peek() - step,
      ArrowRight: player.time.peek() + step,
      ArrowDown: player.time.peek() - step,
      ArrowUp: player.time.peek() + step,
      Home: 0,
      End: sound.duration_s,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    player.seek(to);
  };
  const percent = (s: number): string => `${(100 * s) / (sound.duration_s || 1)}%`;
  return (
    <div
      class={`slider ${player.peaks.value ? "" : "waiting"}`}
      role="slider"
      tabIndex={0}
      aria-label={`Position in ${nameOf(sound.path)}`}
      aria-valuemin={0}
      aria-valuemax={Number(sound.duration_s.toFixed(1))}
      aria-valuenow={Number(player.time.value.toFixed(1))}
      aria-valuetext={`${spoken(player.time.value)} of ${spoken(sound.duration_s)}`}
      onKeyDown={onKeyDown}
    >
      <div
        class="match"
        style={{ left: percent(sound.start_s), width: percent(sound.end_s - sound.start_s) }}
        aria-hidden="true"
      />
      <div ref={host} class="surfer" />
    </div>
  );
}

function cssValue(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function colours(): { waveColor: string; progressColor: string; cursorColor: string } {
  return { waveColor: cssValue("--wave-match"), progressColor: cssValue("--wave-played"), cursorColor: cssValue("--ink") };
}

function selectionColour(): string {
  return cssValue("--selection");
}

function PartBar({ sound, part }: { sound: player.Playable; part: player.Part }) {
  const length = part.end_s - part.start_s;
  const longest = settings.value?.clip_s ?? 120;
  return (
    <div class="part-bar" role="group" aria-label="The selected part">
      <span class="part-time" draggable onDragStart={(event) => dragOut(event, sound.path, part)} title="Drag this part out as a file (Chromium)">
        <Icon name="drag" /> {clock(part.start_s, 2)}–{clock(part.end_s, 2)} <small>({clock(length, 2)})</small>
      </span>
      <button type="button" class="primary" onClick={() => searchByPart()}>
        Search by this part
      </button>
      <button type="button" onClick={() => player.play(sound, part.start_s)}>
        Play it
      </button>
      {length <= longest ? (
        <a class="button" href={player.soundAddress("clip", sound.path, part)} download>
          Download WAV
        </a>
      ) : (
        <span class="quiet">Parts up to {longest} s can be downloaded.</span>
      )}
      <IconButton icon="close" label="Clear the selection" keys="Esc" onClick={() => (player.part.value = null)} />
    </div>
  );
}

/** Search by the selected part, or else by the match of the current sound. */
export function searchByPart(): void {
  const sound = player.current.peek();
  const part = player.part.peek();
  if (!sound) return;
  const chosen = part ?? { start_s: sound.start_s, end_s: sound.end_s };
  const rounded = { start_s: Number(chosen.start_s.toFixed(3)), end_s: Number(chosen.end_s.toFixed(3)) };
  addSound({ name: nameOf(sound.path), weight: MORE, path: sound.path, ...rounded });
}

export async function copyPath(path: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(path);
    show("The path is copied.");
    announce("Path copied");
  } catch {
    show("This browser does not let the page copy. Select the path in the details, and copy it from there.", "error");
  }
}

async function reveal(path: string): Promise<void> {
  try {
    await post("/v1/sounds/reveal", { path, index: query.peek().index });
    show("The folder opens in the file manager.");
  } catch (error) {
    show((error as Error).message, "error");
  }
}

/** The facts of a sound, whatever view it was opened from; null until they are there. */
function useFacts(path: string): SoundFacts | null {
  const [facts, setFacts] = useState<SoundFacts | null>(null);
  useEffect(() => {
    let isHere = true;
    player.factsOf(path).then(
      (value) => isHere && setFacts(value),
      () => {}, // the player says what is wrong with the sound
    );
    return () => {
      isHere = false;
    };
  }, [path, indexes.value]); // another list of indexes follows each change of one
  return facts?.path === path ? facts : null;
}

function Details({ sound }: { sound: player.Playable }) {
  const hit = { ...sound, ...useFacts(sound.path) };
  const facts: [string, ComponentChildren][] = [
    ["Caption", hit.caption],
    ["Title", hit.title],
    ["Artist", hit.artist],
    ["Album", hit.album],
    ["Comment", hit.comment],
    ["Category", [hit.category, hit.subcategory].filter(Boolean).join(" · ") || null],
    ["Tags", [...(hit.tags ?? []), ...(hit.keywords ?? [])].join(", ") || null],
    [hit.labels?.length === 1 ? "Label" : "Labels", hit.labels?.length ? <Labels labels={hit.labels} /> : null],
    ["Licence", hit.licence],
    ["Format", `${kilohertz(sound.rate)} · ${channelsName(sound.channels)}${hit.size ? ` · ${bytes(hit.size)}` : ""}`],
    [hit.date ? "Date" : "Modified", hit.date ?? hit.modified?.slice(0, 10)],
  ];
  return (
    <div class="details">
      <div class="details-actions">
        <button type="button" onClick={() => void copyPath(sound.path)}>
          <Icon name="copy" /> Copy path
        </button>
        <a class="button" href={player.soundAddress("file", sound.path)} download={nameOf(sound.path)}>
          <Icon name="download" /> Download
        </a>
        {settings.value?.can_reveal && (
          <button type="button" onClick={() => void reveal(sound.path)}>
            <Icon name="folder" /> Show in folder
          </button>
        )}
        <button type="button" onClick={() => addSound(termOf(hit, MORE))}>
          <Icon name="similar" /> More like this
        </button>
        <button type="button" onClick={() => addSound(termOf(hit, LESS))}>
          <Icon name="less" /> Less like this
        </button>
        {rowActions.value.map((Action, number) => <Action key={number} hit={hit} />)}
      </div>
      <div class="details-body">
        <dl>
          <div>
            <dt>Path</dt>
            <dd>
              <bdi class="path">{visible(`${folderOf(sound.path)}/${nameOf(sound.path)}`)}</bdi>
            </dd>
          </div>
          {facts.map(
            ([name, value]) =>
              value && (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>
                    {typeof value === "string" ? <bdi dir="auto">{visible(value)}</bdi> : value}
                  </dd>
                </div>
              ),
          )}
        </dl>
        <SpectrogramView sound={sound} />
      </div>
    </div>
  );
}

const COLUMNS = 800;
const BANDS = 128;
/** Black to violet, orange and pale yellow, even in lightness. */
const MAP = [
  [0, 0, 4],
  [43, 11, 87],
  [120, 28, 109],
  [190, 55, 84],
  [240, 112, 32],
  [250, 185, 50],
  [252, 255, 200],
] as const;

function SpectrogramView({ sound }: { sound: player.Playable }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [isWanted, setWanted] = useState(false);
  const [shown, setShown] = useState<Spectrogram | null>(null);
  const [error, setError] = useState("");
  const longest = settings.value?.clip_s ?? 120;
  const first = sound.duration_s <= longest ? 0 : Math.max(0, Math.min(sound.start_s - longest / 2, sound.duration_s - longest));
  useEffect(() => {
    setShown(null);
    setError("");
    if (!isWanted) return;
    let isHere = true;
    const values = { path: sound.path, index: query.peek().index, start_s: first, end_s: first + Math.min(longest, sound.duration_s + 1), columns: COLUMNS, bands: BANDS };
    get<Spectrogram>("/v1/sounds/spectrogram", values).then(
      (value) => isHere && setShown(value),
      (reason: Error) => isHere && setError(reason.message),
    );
    return () => {
      isHere = false;
    };
  }, [isWanted, sound.path, first]);
  useEffect(() => {
    if (shown && canvas.current) paintSpectrogram(canvas.current, shown);
  }, [shown]);
  const span = (shown?.end_s ?? 1) - (shown?.start_s ?? 0);
  const place = shown ? (player.time.value - shown.start_s) / span : -1;
  return (
    <div class="spectrogram">
      <button type="button" aria-expanded={isWanted} onClick={() => setWanted(!isWanted)}>
        <Icon name="spectrum" /> {isWanted ? "Hide spectrogram" : "Spectrogram"}
      </button>
      {isWanted && (
        <div class="spectrogram-box" onClick={(event) => seekTo(event, shown)}>
          {error && <p class="quiet">{error}</p>}
          <canvas ref={canvas} width={COLUMNS} height={BANDS} role="img" aria-label={`Spectrogram of ${nameOf(sound.path)}`} />
          {place >= 0 && place <= 1 && <div class="needle" style={{ left: `${100 * place}%` }} />}
          {shown && (
            <span class="scale" aria-hidden="true">
              <span>{kilohertz(shown.high_hz)}</span>
              <span>{Math.round(shown.low_hz)} Hz</span>
            </span>
          )}
        </div>
      )}
    </div>
  );
}

function seekTo(event: MouseEvent, shown: Spectrogram | null): void {
  if (!shown) return;
  const box = (event.currentTarget as Element).getBoundingClientRect();
  player.seek(shown.start_s + ((event.clientX - box.left) / box.width) * (shown.end_s - shown.start_s));
}

function paintSpectrogram(canvas: HTMLCanvasElement, { columns, bands, levels }: Spectrogram): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const binary = atob(levels);
  const image = context.createImageData(columns, bands);
  for (let band = 0; band < bands; band += 1) {
    for (let column = 0; column < columns; column += 1) {
      // Below -80 dB all is black: little is heard there.
      const level = Math.max(0, binary.charCodeAt(band * columns + column) / 255 - 0.2) / 0.8;
      const place = level * (MAP.length - 1);
      const low = MAP[Math.floor(place)] ?? MAP[0];
      const high = MAP[Math.min(MAP.length - 1, Math.floor(place) + 1)] ?? low;
      const at = 4 * ((bands - 1 - band) * columns + column);
      for (let each = 0; each < 3; each += 1) {
        image.data[at + each] = (low[each] ?? 0) + ((high[each] ?? 0) - (low[each] ?? 0)) * (place % 1);
      }
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

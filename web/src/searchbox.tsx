// The search box, ways to give a sound, the sounds of the query as chips, and suggestions.

import { useEffect, useRef, useState } from "preact/hooks";
import { Icon, IconButton } from "./icons";
import { clock } from "./format";
import { goTo } from "./hits";
import { change, query, type SoundTerm, type WordsUse } from "./query";
import { suggestions } from "./search";
import { isSending, recordingSince, searchBySound, toggleRecording } from "./sounds";

const NARROW_PX = 560;

export function SearchBox() {
  const file = useRef<HTMLInputElement>(null);
  const { text, sounds } = query.value;
  return (
    <form
      class="search-box"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        goTo(0);
      }}
    >
      <Icon name="search" />
      <input
        id="search"
        type="search"
        autocomplete="off"
        spellcheck={false}
        dir="auto"
        enterkeyhint="search"
        aria-label="Describe a sound"
        aria-keyshortcuts="/"
        placeholder={sounds.length ? "…and describe it" : innerWidth < NARROW_PX ? "Describe a sound" : "Describe a sound, or drop one here"}
        value={text}
        onInput={(event) => change({ text: event.currentTarget.value, view: "search" }, true)}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") {
            event.preventDefault();
            goTo(0);
          } else if (event.key === "Escape" && !text) event.currentTarget.blur();
        }}
      />
      {isSending.value && <span class="spinner" aria-label="Sending the sound" role="img" />}
      <Recorder />
      <input
        ref={file}
        id="file"
        type="file"
        accept="audio/*,video/*,.aif,.aiff,.caf,.w64,.flac,.opus"
        class="hidden"
        tabIndex={-1}
        aria-label="A sound to search by"
        onChange={(event) => {
          const [chosen] = event.currentTarget.files ?? [];
          if (chosen) void searchBySound(chosen);
          event.currentTarget.value = "";
        }}
      />
      <IconButton icon="upload" label="Search by a sound file" onClick={() => file.current?.click()} />
    </form>
  );
}

function Recorder() {
  const since = recordingSince.value;
  const [, tick] = useState(0);
  useEffect(() => {
    if (since === null) return;
    const timer = setInterval(() => tick((value) => value + 1), 100);
    return () => clearInterval(timer);
  }, [since]);
  return (
    <>
      {since !== null && <span class="recording">{clock((Date.now() - since) / 1000)}</span>}
      <IconButton
        icon={since === null ? "mic" : "stop"}
        label={since === null ? "Record a sound to search by" : "Stop, and search by the recording"}
        class={since === null ? "" : "is-recording"}
        onClick={() => void toggleRecording()}
      />
    </>
  );
}

export function Chips() {
  const { sounds, text } = query.value;
  if (!sounds.length) return null;
  const replace = (old: SoundTerm, sound: SoundTerm | null): void =>
    change({ sounds: sounds.flatMap((each) => (each === old ? (sound ? [sound] : []) : [each])) });
  return (
    <ul class="chips" aria-label="Sounds of this search">
      {sounds.map((sound, number) => (
        <li key={number} class={`chip ${sound.weight < 0 ? "less" : "more"}`}>
          <Icon name={sound.weight < 0 ? "less" : "similar"} />
          <span class="chip-text">
            <bdi class="chip-name" dir="auto" title={sound.path ?? sound.name}>
              {sound.name}
            </bdi>
            {sound.end_s !== undefined && (
              <small>
                {clock(sound.start_s ?? 0)}–{clock(sound.end_s)}
              </small>
            )}
          </span>
          <input
            type="range"
            min={-1}
            max={1}
            step={0.1}
            value={sound.weight}
            aria-label={`Weight of ${sound.name}`}
            title="From less like this to more like this"
            onChange={(event) => replace(sound, { ...sound, weight: Number(event.currentTarget.value) })}
          />
          <output>{sound.weight > 0 ? `+${sound.weight}` : `−${Math.abs(sound.weight)}`}</output>
          <IconButton icon="close" label={`Remove ${sound.name}`} onClick={() => replace(sound, null)} />
        </li>
      ))}
      {(sounds.length > 1 || text) && (
        <li>
          <button type="button" class="link" onClick={() => change({ sounds: [] })}>
            Remove all sounds
          </button>
        </li>
      )}
    </ul>
  );
}

export function Suggestions({ title }: { title?: string }) {
  const values = suggestions.value;
  if (!values.length) return null;
  return (
    <nav class="suggestions" aria-label="Suggested searches">
      {title && <h2>{title}</h2>}
      {values.map(({ text, kind, count }) => (
        <button
          key={text}
          type="button"
          class="suggestion"
          title={kind === "description" ? "This library has a good hit" : `The ${kind} of ${count} ${count === 1 ? "sound" : "sounds"}`}
          onClick={() => {
            change({ text });
            document.getElementById("search")?.focus();
          }}
        >
          <bdi dir="auto">{text}</bdi>
        </button>
      ))}
    </nav>
  );
}

const WORDS: [WordsUse, string, string, string][] = [
  ["auto", "Sound and words", "Both", "Rank by the sound, and by rare words in names and facts"],
  ["off", "Sound", "Sound", "Rank by the sound alone"],
  ["only", "Words", "Words", "Find words of names and facts alone"],
];

export function WordsChoice() {
  const { words, text } = query.value;
  if (!text.trim()) return null;
  return (
    <div class="segments" role="radiogroup" aria-label="Rank by">
      {WORDS.map(([value, label, short, title]) => (
        <label key={value} title={title}>
          <input type="radio" name="words" aria-label={label} checked={words === value} onChange={() => change({ words: value })} />
          <span data-short={short}>{label}</span>
        </label>
      ))}
    </div>
  );
}

// Filters with the number of sounds for each value.

import { signal } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Contains, FacetValue, Range } from "./api";
import { channelsName, count, kilohertz, plural, visible } from "./format";
import { query, setFilter } from "./query";
import { overview, results } from "./search";

/** Whether the filters are open, in a window that is too narrow to show them beside the hits. */
export const isFiltering = signal(false);

export function closeFilters(): void {
  isFiltering.value = false;
  document.querySelector<HTMLElement>(".filter-button")?.focus();
}

const SHOWN = 7;

const GUESS = "The model's own guess, which can be wrong";

const FACETS: { fact: string; title: string; hint?: string; label?: (value: string | number) => string }[] = [
  { fact: "category", title: "Category" },
  { fact: "labels", title: "Label", hint: GUESS },
  { fact: "tags", title: "Tags" },
  { fact: "rate", title: "Sample rate", label: (value) => kilohertz(Number(value)) },
  { fact: "channels", title: "Channels", label: (value) => channelsName(Number(value)) },
  { fact: "format", title: "Format", label: (value) => String(value).toUpperCase() },
  { fact: "licence", title: "Licence" },
];

export function activeFilters(): number {
  return Object.keys(query.value.where).length;
}

export function Filters() {
  const counts = overview.value;
  const drawer = useRef<HTMLElement>(null);
  const isOpen = isFiltering.value;
  useLayoutEffect(() => {
    if (isOpen) drawer.current?.querySelector<HTMLElement>(".filters-done")?.focus();
  }, [isOpen]);
  if (!counts) return <aside class="filters" aria-label="Filters" />;
  return (
    <aside
      ref={drawer}
      class="filters"
      aria-label="Filters"
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !isOpen) return;
        event.stopPropagation();
        closeFilters();
      }}
    >
      <header class="filters-head">
        <h2>Filters</h2>
        <button type="button" class="primary filters-done" onClick={closeFilters}>
          Show {plural(results.value.total, "sound")}
        </button>
      </header>
      <NamePart />
      <Folders values={counts.facets.folder ?? []} />
      <Lengths />
      {FACETS.map((facet) => (
        <Facet key={facet.fact} {...facet} values={counts.facets[facet.fact] ?? []} />
      ))}
    </aside>
  );
}

function chosenValues(fact: string): (string | number)[] {
  const chosen = query.value.where[fact];
  return Array.isArray(chosen) ? chosen : [];
}

function toggleValue(fact: string, value: string | number): void {
  const chosen = chosenValues(fact);
  setFilter(fact, chosen.includes(value) ? chosen.filter((each) => each !== value) : [...chosen, value]);
}

/** The labels of a sound, which filter the search. */
export function Labels({ labels }: { labels: string[] }) {
  const chosen = chosenValues("labels");
  return (
    <span class="labels" title={GUESS}>
      {labels.map((label) => (
        <button
          key={label}
          type="button"
          class="toggle label"
          aria-pressed={chosen.includes(label)}
          title={chosen.includes(label) ? "Show sounds with other labels, too" : "Show sounds with this label"}
          onClick={() => toggleValue("labels", label)}
        >
          <bdi dir="auto">{visible(label)}</bdi>
        </button>
      ))}
      <span class="quiet">the model’s guess</span>
    </span>
  );
}

/** A part of the name or of a folder. */
function NamePart() {
  const chosen = query.value.where.path as Partial<Contains> | undefined;
  return (
    <input
      type="search"
      class="name-part"
      dir="auto"
      autocomplete="off"
      spellcheck={false}
      aria-label="Part of the name or folder"
      placeholder="In the name or folder"
      value={chosen?.contains ?? ""}
      onInput={(event) => {
        const text = event.currentTarget.value;
        setFilter("path", text ? { contains: text } : null, true);
      }}
    />
  );
}

interface FacetProps {
  fact: string;
  title: string;
  hint?: string | undefined;
  values: FacetValue[];
  label?: (value: string | number) => string;
}

function Facet({ fact, title, hint, values, label = String }: FacetProps) {
  const [isWhole, setWhole] = useState(false);
  const chosen = chosenValues(fact);
  // A chosen value stays in sight when no sound has it any more.
  const missing = chosen.filter((value) => !values.some((each) => each.value === value)).map((value) => ({ value, count: 0 }));
  const all = [...missing, ...values];
  if (all.length < 2 && !chosen.length) return null;
  const shown = isWhole ? all : all.filter((each, number) => number < SHOWN || chosen.includes(each.value));
  return (
    <Group title={title} fact={fact} hint={hint}>
      {shown.map(({ value, count: files }) => (
        <Choice
          key={value}
          label={label(value)}
          files={files}
          isChosen={chosen.includes(value)}
          onChange={() => toggleValue(fact, value)}
        />
      ))}
      {all.length > shown.length && (
        <button type="button" class="link" onClick={() => setWhole(true)}>
          {count(all.length - shown.length)} more
        </button>
      )}
    </Group>
  );
}

interface GroupProps {
  title: string;
  fact: string;
  hint?: string | undefined;
  children: preact.ComponentChildren;
}

function Group({ title, fact, hint, children }: GroupProps) {
  const isActive = fact in query.value.where;
  return (
    <details class="facet" open>
      <summary>
        <span title={hint}>{title}</span>
        {isActive && (
          <button
            type="button"
            class="link"
            aria-label={`Clear ${title.toLowerCase()}`}
            onClick={(event) => {
              event.preventDefault();
              setFilter(fact, null);
            }}
          >
            Clear
          </button>
        )}
      </summary>
      <fieldset>
        <legend class="hidden">{title}</legend>
        {children}
      </fieldset>
    </details>
  );
}

interface ChoiceProps {
  label: string;
  files: number;
  isChosen: boolean;
  onChange: () => void;
  depth?: number;
}

function Choice({ label, files, isChosen, onChange, depth = 0 }: ChoiceProps) {
  return (
    <label class={`choice ${files ? "" : "unused"}`} style={{ paddingInlineStart: `${depth * 14}px` }}>
      <input type="checkbox" checked={isChosen} onChange={onChange} />
      <bdi class="choice-name" dir="auto" title={visible(label)}>
        {visible(label)}
      </bdi>
      <span class="count">{count(files)}</span>
    </label>
  );
}

const LENGTHS = ["up to 1 s", "1–5 s", "5–15 s", "15–60 s", "1–5 min", "over 5 min"];

function Lengths() {
  const chosen = query.value.where.duration_s as Range | undefined;
  const ranges = overview.value?.durations ?? [];
  const isChosen = (low: number | null, high: number | null): boolean =>
    chosen !== undefined && (chosen.low ?? null) === low && (chosen.high ?? null) === high;
  return (
    <Group title="Length" fact="duration_s">
      {ranges.map(({ low, high, count: files }, number) => (
        <Choice
          key={number}
          label={LENGTHS[number] ?? ""}
          files={files}
          isChosen={isChosen(low, high)}
          onChange={() => setFilter("duration_s", isChosen(low, high) ? null : { low, high })}
        />
      ))}
    </Group>
  );
}

interface Folder {
  name: string;
  path: string;
  files: number;
  folders: Map<string, Folder>;
}

/** Folders as a tree, without the levels that all of them share. */
function folderTree(values: FacetValue[]): Folder {
  const root: Folder = { name: "", path: "", files: 0, folders: new Map() };
  for (const { value, count: files } of values) {
    let at = root;
    at.files += files;
    for (const name of String(value).split("/")) {
      if (!name) continue;
      let next = at.folders.get(name);
      if (!next) at.folders.set(name, (next = { name, path: `${at.path}/${name}`, files: 0, folders: new Map() }));
      next.files += files;
      at = next;
    }
  }
  let top = root;
  for (;;) {
    const [only, second] = top.folders.values();
    if (!only || second || only.files < top.files) return top;
    top = only;
  }
}

function Folders({ values }: { values: FacetValue[] }) {
  const top = folderTree(values);
  const chosen = chosenValues("folder");
  if (!top.folders.size && !chosen.length) return null;
  const missing = chosen.filter((path) => !values.some(({ value }) => `${value}/`.startsWith(`${path}/`)));
  return (
    <Group title="Folder" fact="folder">
      {missing.map((path) => (
        <Choice key={path} label={String(path)} files={0} isChosen onChange={() => toggleValue("folder", path)} />
      ))}
      <Branch folder={top} depth={0} />
    </Group>
  );
}

function Branch({ folder, depth }: { folder: Folder; depth: number }) {
  const [isWhole, setWhole] = useState(false);
  const chosen = chosenValues("folder");
  const all = [...folder.folders.values()].sort((a, b) => b.files - a.files);
  const shown = isWhole ? all : all.slice(0, SHOWN);
  const isOpen = (each: Folder): boolean => depth < 1 && all.length < 4 ? true : chosen.some((path) => `${path}/`.startsWith(`${each.path}/`));
  return (
    <>
      {shown.map((each) => (
        <div key={each.path}>
          <Choice
            label={each.name}
            files={each.files}
            depth={depth}
            isChosen={chosen.includes(each.path)}
            onChange={() => toggleValue("folder", each.path)}
          />
          {each.folders.size > 0 && isOpen(each) && <Branch folder={each} depth={depth + 1} />}
        </div>
      ))}
      {all.length > shown.length && (
        <button type="button" class="link" onClick={() => setWhole(true)}>
          {count(all.length - shown.length)} more
        </button>
      )}
    </>
  );
}

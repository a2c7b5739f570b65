// Review of duplicates: groups of files that are the same recording, played side by side, and judged.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, post, remove, type SoundFacts } from "./api";
import { show } from "./announce";
import { SoundRow } from "./collections";
import { copyPath } from "./foot";
import { bytes, channelsName, count, innerFolders, kilohertz, plural, visible } from "./format";
import { IconButton } from "./icons";
import * as player from "./player";
import { query } from "./query";
import { changeOf, onEvent } from "./server";

interface State {
  state: "idle" | "running" | "done" | "failed" | "stopped";
  done: number;
  total: number;
  message: string | null;
}

type DuplicateFile = Omit<SoundFacts, "modified" | "labels"> & {
  kind: string;
  similarity: number;
  offset_s: number;
};

interface Group {
  id: string;
  kind: string;
  files: DuplicateFile[];
  judged: boolean;
}

interface Answer {
  state: State;
  groups: number;
  judged: number;
  listed: Group[];
  skipped: { path: string; reason: string }[];
}

const PAGE_SIZE = 10;
const state = signal<State | null>(null);

export function followDuplicates(): void {
  onEvent("duplicates", (data) => (state.value = data as State));
}

export function DuplicatesView() {
  const [page, setPage] = useState(1);
  const [withJudged, setWithJudged] = useState(false);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const { index } = query.value;
  const latest = useRef(0);
  const reload = async (): Promise<void> => {
    const own = ++latest.current;
    try {
      const found = await get<Answer>("/v1/duplicates", { index, page, page_size: PAGE_SIZE, judged: String(withJudged) });
      if (own === latest.current) setAnswer(found);
    } catch (error) {
      show((error as Error).message, "error");
    }
  };
  useEffect(() => void reload(), [index, page, withJudged, changeOf(state.value)]);
  const now = state.value ?? answer?.state;
  const number = answer ? answer.groups + (withJudged ? answer.judged : 0) : 0;
  const pages = Math.max(1, Math.ceil(number / PAGE_SIZE));
  useEffect(() => {
    if (page > pages) setPage(pages); // the last group of the last page was judged
  }, [page, pages]);
  return (
    <main class="view list-view">
      <h1>Duplicates</h1>
      <p class="quiet">Files that are the same recording: identical, in another format, at another level, or cut. Nothing is deleted.</p>
      <Run state={now ?? null} />
      {answer && now?.state === "done" && (
        <div class="toolbar">
          <p class="summary">
            {plural(answer.groups, "group")} to review, {count(answer.judged)} judged
          </p>
          <label class="check">
            <input type="checkbox" checked={withJudged} onChange={() => setWithJudged(!withJudged)} /> Show judged groups
          </label>
        </div>
      )}
      {answer?.listed.map((group) => <GroupCard key={group.id} group={group} onChange={reload} />)}
      {answer && now?.state === "done" && !answer.listed.length && (
        <div class="empty">
          <h2>{answer.judged && !withJudged ? "All groups are judged" : "No duplicates"}</h2>
        </div>
      )}
      {pages > 1 && (
        <nav class="buttons" aria-label="Pages of groups">
          <button type="button" disabled={page <= 1} onClick={() => setPage(page - 1)}>
            Previous
          </button>
          <span class="quiet">
            Page {page} of {pages}
          </span>
          <button type="button" disabled={page >= pages} onClick={() => setPage(page + 1)}>
            Next
          </button>
        </nav>
      )}
      {answer && answer.skipped.length > 0 && (
        <details>
          <summary>{plural(answer.skipped.length, "pair")} could not be compared</summary>
          <ul class="paths">
            {answer.skipped.map(({ path, reason }) => (
              <li key={path}>
                <bdi>{visible(path)}</bdi>: {visible(reason)}
              </li>
            ))}
          </ul>
        </details>
      )}
    </main>
  );
}

function Run({ state: now }: { state: State | null }) {
  const isRunning = now?.state === "running";
  const run = async (action: () => Promise<unknown>): Promise<void> => {
    try {
      await action();
    } catch (error) {
      show((error as Error).message, "error");
    }
  };
  const { index } = query.value;
  const start = `/v1/duplicates${index ? `?index=${encodeURIComponent(index)}` : ""}`;
  return (
    <div class="progress" role="group" aria-label="Comparison of all sounds">
      {isRunning && (
        <>
          <p role="status">{now.total ? `${count(now.done)} of ${plural(now.total, "pair")} compared` : "Looking for pairs"}</p>
          <progress max={now.total || 1} value={now.done} aria-label="Pairs compared" />
        </>
      )}
      {(!now || now.state === "idle") && (
        <p>Each sound is compared with those that are near to it. Searching goes on meanwhile, and a later comparison takes seconds.</p>
      )}
      {(now?.state === "failed" || now?.state === "stopped") && <p role="status">{now.message}</p>}
      <p class="buttons">
        {isRunning ? (
          <button type="button" onClick={() => void run(() => remove("/v1/duplicates", { index }))}>
            Stop
          </button>
        ) : (
          <button type="button" class={now?.state === "done" ? "" : "primary"} onClick={() => void run(() => post(start))}>
            {now?.state === "done" ? "Compare again" : "Compare all sounds"}
          </button>
        )}
      </p>
    </div>
  );
}

function whole(file: DuplicateFile): player.Playable {
  return { ...file, start_s: 0, end_s: file.duration_s };
}

function describe(file: DuplicateFile): string {
  const facts = [innerFolders(file.path), bytes(file.size), kilohertz(file.rate), channelsName(file.channels)];
  const relation = file.kind ? [`${file.kind}${file.similarity < 1 ? `, ${(100 * file.similarity).toFixed(1)}%` : ""}`] : [];
  return [...relation, ...facts].join("\u00a0· ");
}

/** Go on with another file of the group at the same moment of the recording. */
function switchTo(file: DuplicateFile, group: Group): void {
  const from = group.files.find((each) => each.path === player.current.peek()?.path);
  const moment = from ? player.time.peek() + from.offset_s : 0;
  player.play(whole(file), Math.max(0, moment - file.offset_s));
}

function GroupCard({ group, onChange }: { group: Group; onChange: () => Promise<void> }) {
  const judge = async (): Promise<void> => {
    try {
      await post("/v1/duplicates/judgements", { index: query.peek().index, id: group.id, judged: !group.judged });
      await onChange();
    } catch (error) {
      show((error as Error).message, "error");
    }
  };
  return (
    <section class={`card ${group.judged ? "judged" : ""}`} aria-label={`Group of ${plural(group.files.length, "file")}`}>
      <div class="toolbar">
        <h2>{group.kind}</h2>
        <p class="summary">{plural(group.files.length, "file")}</p>
        <button type="button" onClick={() => void judge()}>
          {group.judged ? "Review again" : "Mark as judged"}
        </button>
      </div>
      <ul class="sounds">
        {group.files.map((file, number) => (
          <SoundRow key={file.path} hit={whole(file)} note={describe(file)}>
            <button type="button" title="Play on at the same moment of the recording" onClick={() => switchTo(file, group)}>
              {letter(number)}
            </button>
            <IconButton icon="copy" label="Copy path" onClick={() => void copyPath(file.path)} />
          </SoundRow>
        ))}
      </ul>
    </section>
  );
}

function letter(number: number): string {
  return number < 26 ? String.fromCharCode(65 + number) : String(number + 1);
}

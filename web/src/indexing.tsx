// What is indexed: progress, what was read, what failed and why.

import { useEffect, useState } from "preact/hooks";
import { get, remove } from "./api";
import { show } from "./announce";
import { updateIndex } from "./foot";
import { count, plural, spoken, visible } from "./format";
import { change, query } from "./query";
import { changeOf, indexes, indexing, settings } from "./server";
import type { IndexingState } from "./api";

interface Skipped {
  count: number;
  files: { path: string; reason: string }[];
}

function currentIndex(): (typeof indexes.value)[number] | undefined {
  return indexes.value.find((each) => each.name === query.value.index) ?? indexes.value[0];
}

/** The state in the header: the number of sounds, or the progress. */
export function IndexStatus() {
  const state = indexing.value;
  const index = currentIndex();
  if (!index) return null;
  const isRunning = state?.state === "running";
  const percent = state?.total ? Math.floor((100 * state.done) / state.total) : 0;
  return (
    <button
      type="button"
      class={`status ${isRunning ? "running" : ""} ${state?.skipped || state?.state === "failed" ? "warning" : ""}`}
      title="Show what is indexed"
      onClick={() => change({ view: query.value.view === "index" ? "search" : "index" })}
    >
      {isRunning ? `Indexing ${percent}%` : plural(index.files, "sound")}
    </button>
  );
}

export function IndexView() {
  const state = indexing.value;
  const index = currentIndex();
  const skipped = useSkipped(state);
  if (!index) return null;
  const isRunning = state?.state === "running";
  return (
    <main class="view index-view">
      <h1>
        <bdi dir="auto">{visible(index.name)}</bdi>
      </h1>
      <p>
        {plural(index.files, "sound")} in {plural(index.windows, "window")}, embedded by <bdi>{index.model}</bdi>. openclap {settings.value?.version}.
      </p>
      {state && <Progress state={state} />}
      <p class="buttons">
        {isRunning ? (
          <button type="button" onClick={() => void stop()}>
            Stop
          </button>
        ) : (
          <button type="button" class="primary" onClick={() => void updateIndex()}>
            Update the index
          </button>
        )}
        <button type="button" onClick={() => change({ view: "search" })}>
          Back to the search
        </button>
      </p>
      {index.folders.length > 0 && (
        <>
          <h2>Folders</h2>
          <ul class="paths">
            {index.folders.map((folder) => (
              <li key={folder}>
                <bdi>{visible(folder)}</bdi>
              </li>
            ))}
          </ul>
        </>
      )}
      {skipped && skipped.count > 0 && (
        <>
          <h2>{plural(skipped.count, "file")} could not be read</h2>
          <table class="skipped">
            <thead>
              <tr>
                <th scope="col">File</th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {skipped.files.map(({ path, reason }) => (
                <tr key={path}>
                  <td>
                    <bdi dir="auto">{visible(path)}</bdi>
                  </td>
                  <td>{visible(reason)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {skipped.count > skipped.files.length && <p class="quiet">The first {count(skipped.files.length)} are listed.</p>}
        </>
      )}
    </main>
  );
}

const SENTENCES: Record<IndexingState["state"], string> = {
  idle: "No run since the server started.",
  running: "Sounds are being read and embedded. What is done can be searched already.",
  done: "The index is up to date.",
  failed: "Indexing failed.",
  stopped: "Indexing was stopped.",
};

function Progress({ state }: { state: IndexingState }) {
  return (
    <div class="progress" role="group" aria-label="Progress of indexing">
      <p role="status">{SENTENCES[state.state]}</p>
      {state.state === "running" && (
        <>
          <progress max={state.total || 1} value={state.done} aria-label="Files read" />
          <p class="quiet">
            {state.total ? `${count(state.done)} of ${plural(state.total, "file")}` : "Looking for files"}
            {state.seconds > 0 && `, ${spoken(state.seconds)} of sound embedded`}
          </p>
        </>
      )}
      {state.state === "done" && (
        <p class="quiet">{summary(state)}</p>
      )}
      {(state.state === "failed" || state.state === "stopped") && <p>{state.message}</p>}
    </div>
  );
}

/** What a run found, without the zeros. */
function summary({ added, unchanged, moved, removed, skipped }: IndexingState): string {
  const counts: [number, string][] = [
    [added, "added"],
    [unchanged, "unchanged"],
    [moved, "moved"],
    [removed, "removed"],
    [skipped, "not read"],
  ];
  const parts = counts.filter(([files]) => files).map(([files, what]) => `${count(files)} ${what}`);
  return parts.length ? `${parts.join(", ")}.` : "The folders have no sounds.";
}

function useSkipped(state: IndexingState | null): Skipped | null {
  const [skipped, setSkipped] = useState<Skipped | null>(null);
  const index = query.value.index;
  useEffect(() => {
    let isHere = true;
    get<Skipped>("/v1/indexing/skipped", { index }).then(
      (value) => isHere && setSkipped(value),
      () => {},
    );
    return () => {
      isHere = false;
    };
  }, [index, changeOf(state)]);
  return skipped;
}

async function stop(): Promise<void> {
  try {
    await remove("/v1/indexing", { index: query.peek().index });
  } catch (error) {
    show((error as Error).message, "error");
  }
}

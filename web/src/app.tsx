// The page: header, views, foot, and the states that stand in place of a view.

import { useEffect, useRef, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { announce, note, spokenText } from "./announce";
import { views } from "./extensions";
import { activeFilters, Filters, isFiltering } from "./filters";
import { Foot } from "./foot";
import { count, plural } from "./format";
import { HitList } from "./hits";
import { IconButton, Icon } from "./icons";
import { IndexStatus, IndexView } from "./indexing";
import { isHelpOpen, KEYS } from "./keys";
import { change, query } from "./query";
import { refresh, results } from "./search";
import { Chips, SearchBox, Suggestions, WordsChoice } from "./searchbox";
import { connection, indexes, indexing, openSession } from "./server";
import { isDropping } from "./sounds";

export function App() {
  const { view } = query.value;
  const Other = views.value.find((each) => each.id === view)?.component;
  return (
    <>
      <Header />
      <Banner />
      {connection.value === "token" ? <TokenForm /> : view === "index" ? <IndexView /> : Other ? <Other /> : <SearchView />}
      <Foot />
      <Help />
      {isDropping.value && <div class="drop">Drop a sound to search by it</div>}
      <Note />
      <div class="hidden" role="status" aria-live="polite">
        {spokenText.value}
      </div>
    </>
  );
}

function Header() {
  const { view, index } = query.value;
  const tabs = [{ id: "search", title: "Search" }, ...views.value];
  return (
    <header class="head">
      <a
        class="brand"
        href="/"
        aria-label="openclap: start over"
        onClick={(event) => {
          if (event.ctrlKey || event.metaKey) return;
          event.preventDefault();
          change({ view: "search", text: "", sounds: [], where: {}, words: "auto" });
        }}
      >
        <img src="/static/icon.svg" alt="" width="26" height="26" />
        <span>openclap</span>
      </a>
      <SearchBox />
      <div class="head-end">
        {indexes.value.length > 1 && (
          <select
            aria-label="Index"
            value={index ?? indexes.value[0]?.name}
            onChange={(event) => change({ index: event.currentTarget.value, where: {}, sounds: [] })}
          >
            {indexes.value.map((each) => (
              <option key={each.name} value={each.name}>
                {each.name}
              </option>
            ))}
          </select>
        )}
        <IndexStatus />
        <ThemeButton />
        <IconButton icon="help" label="Keys" keys="?" onClick={() => (isHelpOpen.value = true)} />
      </div>
      {tabs.length > 1 && (
        <nav class="tabs" aria-label="Views">
          {tabs.map((tab) => (
            <button key={tab.id} type="button" aria-current={view === tab.id ? "page" : undefined} onClick={() => change({ view: tab.id })}>
              {tab.title}
            </button>
          ))}
        </nav>
      )}
    </header>
  );
}

function Banner() {
  if (connection.value !== "lost") return null;
  return (
    <div class="banner" role="alert">
      <span class="spinner" aria-hidden="true" />
      <span>
        The server cannot be reached. This page goes on by itself as soon as it is back: start it again with <code>openclap serve</code>.
      </span>
    </div>
  );
}

function SearchView() {
  const { text, sounds } = query.value;
  const isEmpty = !text.trim() && !sounds.length;
  const filters = activeFilters();
  return (
    <div class={`search-view ${isFiltering.value ? "filtering" : ""}`}>
      <Filters />
      <main class="results" aria-label="Results">
        <h1 class="hidden">Find sounds</h1>
        <Chips />
        {isEmpty ? <Suggestions title="This library answers these well" /> : <Suggestions />}
        <div class="toolbar">
          <button
            type="button"
            class="filter-button"
            aria-expanded={isFiltering.value}
            onClick={() => (isFiltering.value = !isFiltering.value)}
          >
            <Icon name="filter" /> Filters{filters ? ` (${filters})` : ""}
          </button>
          <Summary />
          {filters > 0 && (
            <button type="button" class="link" onClick={() => change({ where: {} })}>
              Clear filters
            </button>
          )}
          <WordsChoice />
        </div>
        <Body />
      </main>
    </div>
  );
}

function Summary() {
  const { state, total, info, of, ms, error } = results.value;
  const hasFailed = state === "failed" && error?.status !== 0;
  const text = of?.text.trim();
  const isQuery = Boolean(text) || Boolean(of?.sounds.length);
  const sentence = of && total && !hasFailed ? plural(total, "sound") : "";
  const order = isQuery ? ", best first" : " by folder and name";
  useEffect(() => {
    if (state !== "ready" || !of) return;
    const timer = setTimeout(() => {
      const nothing = info?.probably_nothing ? " Probably nothing here fits." : "";
      announce(`${plural(total, "hit")}.${nothing}`);
    }, 700);
    return () => clearTimeout(timer);
  }, [of, state]);
  return (
    <p class={`summary ${state === "loading" ? "loading" : ""}`} title={info ? `${info.summary}, ${Math.round(ms)} ms` : undefined}>
      {sentence}
      {sentence && <span class="order">{order}</span>}
    </p>
  );
}

function Body() {
  const { state, total, info, of, error } = results.value;
  if (state === "failed" && error && error.status !== 0 && error.status !== 401) {
    return (
      <Empty title="The search failed" text={error.message}>
        <button type="button" class="primary" onClick={refresh}>
          Try again
        </button>
        <button type="button" onClick={() => change({ text: "", sounds: [], where: {} })}>
          Start over
        </button>
      </Empty>
    );
  }
  if (!of) return <div class="hits" aria-busy="true" />;
  if (!total) return <NothingFound />;
  return (
    <>
      {info?.probably_nothing && (
        <div
          class="nothing"
          role="note"
          title={`${Math.round(100 * (1 - (info.fit ?? 0)))}% of the reference queries have a better best hit here`}
        >
          <b>Probably nothing here.</b> Even the best hit fits badly. These are the nearest sounds; other words may find more.
        </div>
      )}
      <HitList />
    </>
  );
}

function NothingFound() {
  const files = indexes.value.reduce((sum, each) => sum + each.files, 0);
  if (!files) {
    const isRunning = indexing.value?.state === "running";
    return (
      <Empty
        title={isRunning ? "The first sounds are being read" : "This index has no sounds yet"}
        text={
          isRunning
            ? `${count(indexing.value?.done ?? 0)} of ${plural(indexing.value?.total ?? 0, "file")}. Hits appear here as soon as there are some.`
            : "Add a folder with: openclap index add FOLDER"
        }
      >
        <button type="button" onClick={() => change({ view: "index" })}>
          Show the progress
        </button>
      </Empty>
    );
  }
  const hasFilters = activeFilters() > 0;
  const isWords = query.value.words === "only" && query.value.text.trim() !== "";
  return (
    <Empty
      title="No sound fits"
      text={
        isWords
          ? "No name or fact has these words."
          : hasFilters
            ? `None of ${plural(files, "sound")} fulfils all filters.`
            : "There is nothing to compare with."
      }
    >
      {isWords && (
        <button type="button" class="primary" onClick={() => change({ words: "auto" })}>
          Search by sound, too
        </button>
      )}
      {hasFilters && (
        <button type="button" class="primary" onClick={() => change({ where: {} })}>
          Clear filters
        </button>
      )}
    </Empty>
  );
}

function Empty({ title, text, children }: { title: string; text: string; children?: preact.ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      <p>{text}</p>
      <p class="buttons">{children}</p>
    </div>
  );
}

function TokenForm() {
  const [error, setError] = useState("");
  const [token, setToken] = useState("");
  return (
    <main class="empty">
      <h1>This server needs its token</h1>
      <p>Whoever started it has the token: in the file of --token-file, or in OPENCLAP_TOKEN.</p>
      <form
        class="token"
        onSubmit={(event) => {
          event.preventDefault();
          openSession(token.trim()).catch((reason: Error) => setError(reason.message));
        }}
      >
        <input
          type="password"
          aria-label="Token"
          aria-invalid={error !== ""}
          aria-describedby="token-error"
          autocomplete="current-password"
          value={token}
          autofocus
          onInput={(event) => setToken(event.currentTarget.value)}
        />
        <button type="submit" class="primary">
          Open
        </button>
      </form>
      <p id="token-error" class="error-text" role="alert">
        {error}
      </p>
    </main>
  );
}

function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = isHelpOpen.value;
  useEffect(() => {
    if (isOpen && !dialog.current?.open) dialog.current?.showModal();
    if (!isOpen) dialog.current?.close();
  }, [isOpen]);
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-labelledby="help-title"
      onClose={() => (isHelpOpen.value = false)}
      onClick={(event) => event.target === dialog.current && (isHelpOpen.value = false)}
      onKeyDown={(event) => event.key === "?" && (isHelpOpen.value = false)}
    >
      <header>
        <h2 id="help-title">Keys</h2>
        <IconButton icon="close" label="Close" keys="Esc" onClick={() => (isHelpOpen.value = false)} />
      </header>
      <dl>
        {KEYS.map(([key, text]) => (
          <div key={key}>
            <dt>
              {key.split(" ").map((each) => (
                <kbd key={each}>{each}</kbd>
              ))}
            </dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
      <p class="quiet">
        Drag over a waveform to select a part. Drop or paste a sound anywhere to search by it. Drag a name out of the page to copy the
        file (Chromium; elsewhere use Download).
      </p>
    </dialog>
  );
}

function Note() {
  const shown = note.value;
  if (!shown) return null;
  return (
    <div class={`note ${shown.kind}`} role={shown.kind === "error" ? "alert" : "status"}>
      <span>{shown.text}</span>
      {shown.action && (
        <button
          type="button"
          onClick={() => {
            note.value = null;
            shown.action?.run();
          }}
        >
          {shown.action.label}
        </button>
      )}
      <IconButton icon="close" label="Close" onClick={() => (note.value = null)} />
    </div>
  );
}

const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
const theme = signal<Theme>((localStorage.getItem("theme") as Theme | null) ?? "system");

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
systemIsDark.addEventListener("change", applyTheme);

/** Set the colours; "themechange" makes canvases paint theirs again. */
export function applyTheme(): void {
  const isDark = theme.value === "system" ? systemIsDark.matches : theme.value === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  dispatchEvent(new Event("themechange"));
}

function ThemeButton() {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] ?? "system";
  return (
    <IconButton
      icon="theme"
      label={`Colours: ${theme.value}. Change to ${next}`}
      onClick={() => {
        theme.value = next;
        localStorage.setItem("theme", next);
        applyTheme();
      }}
    />
  );
}


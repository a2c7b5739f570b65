// Icons of 20 × 20, drawn for this page. They are decoration: the button around one has the name.

const PATHS: Record<string, string> = {
  search: "M9 3.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11ZM13 13l4 4",
  play: "M6.5 4.2v11.6L15.8 10Z",
  pause: "M6.5 4.5v11M13.5 4.5v11",
  previous: "M15 5 8 10l7 5ZM5.5 5v10",
  next: "M5 5l7 5-7 5ZM14.5 5v10",
  loop: "M4 9.5V8a2.5 2.5 0 0 1 2.5-2.5H15M12.7 3 15.2 5.5 12.7 8M16 10.5V12a2.5 2.5 0 0 1-2.5 2.5H5M7.3 17 4.8 14.5 7.3 12",
  mic: "M10 3a2.2 2.2 0 0 1 2.2 2.2v4.3a2.2 2.2 0 1 1-4.4 0V5.2A2.2 2.2 0 0 1 10 3ZM5.2 9.5a4.8 4.8 0 0 0 9.6 0M10 14.3V17",
  stop: "M6 6h8v8H6Z",
  upload: "M10 13V4M6.5 7.5 10 4l3.5 3.5M4 13v2.5h12V13",
  download: "M10 4v9M6.5 9.5 10 13l3.5-3.5M4 13v2.5h12V13",
  similar: "M3.5 8c2.2-2.6 4.3-2.6 6.5-.6s4.3 2 6.5-.6M3.5 13c2.2-2.6 4.3-2.6 6.5-.6s4.3 2 6.5-.6",
  less: "M3.5 8c2.2-2.6 4.3-2.6 6.5-.6s4.3 2 6.5-.6M3.5 13c2.2-2.6 4.3-2.6 6.5-.6s4.3 2 6.5-.6M5.5 17l9-14",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  close: "M5 5l10 10M15 5 5 15",
  copy: "M7 7h9v9H7ZM4 13V4h9",
  folder: "M3 6V5h5l1.5 2H17v9H3Z",
  help: "M7.6 7.7A2.4 2.4 0 1 1 10 10.3v1.4M10 14.5h.01",
  filter: "M3.5 5.5h13M6 10h8M8.5 14.5h3",
  theme: "M10 3.5a6.5 6.5 0 1 0 0 13ZM10 3.5a6.5 6.5 0 0 1 0 13",
  up: "M5 12.5 10 7.5l5 5",
  down: "M5 7.5l5 5 5-5",
  spectrum: "M4 16V9M8 16V5M12 16v-5M16 16V7",
  drag: "M8 5h.01M12 5h.01M8 10h.01M12 10h.01M8 15h.01M12 15h.01",
  star: "M10 3.3l2 4.3 4.7.5-3.5 3.2 1 4.6L10 13.6l-4.2 2.3 1-4.6L3.3 8.1 8 7.6Z",
  part: "M4 4v12M16 4v12M7.5 10h5M7 8v4M13 8v4",
};

const DOTS = new Set(["more", "drag"]);

export function Icon({ name, filled = false }: { name: string; filled?: boolean }) {
  return (
    <svg class={DOTS.has(name) ? "icon dots" : "icon"} viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill={filled ? "currentColor" : "none"} />
    </svg>
  );
}

interface ButtonProps {
  icon: string;
  label: string;
  onClick: (event: MouseEvent) => void;
  pressed?: boolean;
  filled?: boolean;
  disabled?: boolean;
  class?: string;
  keys?: string;
  tabIndex?: number;
}

/** A button with an icon alone: its label is the name and the tooltip. */
export function IconButton({ icon, label, onClick, pressed, filled, disabled, class: extra = "", keys, tabIndex }: ButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${extra}`}
      aria-label={label}
      title={keys ? `${label} (${keys})` : label}
      aria-pressed={pressed}
      disabled={disabled}
      tabIndex={tabIndex}
      onClick={onClick}
    >
      <Icon name={icon} filled={filled ?? false} />
    </button>
  );
}

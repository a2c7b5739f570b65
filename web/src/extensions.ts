// What other parts of the page add to the search: buttons of rows, and views.

import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import type { Playable } from "./player";

/** Buttons at the end of each row, and in the details. */
export const rowActions = signal<ComponentType<{ hit: Playable; tabIndex?: number }>[]>([]);

export interface View {
  id: string;
  title: string;
  component: ComponentType;
}

/** Views besides the search, in the order of their tabs. */
export const views = signal<View[]>([]);

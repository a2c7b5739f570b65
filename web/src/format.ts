// Numbers, times and names as the page shows them.

/** Seconds as 0:01.2, 3:05.0 or 1:02:03; below a second with another digit, 0:00.14. */
export function clock(seconds: number, digits = seconds > 0 && seconds < 1 ? 2 : 1): string {
  const value = Math.max(0, seconds);
  const hours = Math.floor(value / 3600);
  const minutes = Math.floor((value % 3600) / 60);
  const rest = value % 60;
  if (hours) return `${hours}:${String(minutes).padStart(2, "0")}:${String(Math.floor(rest)).padStart(2, "0")}`;
  const text = (Math.floor(rest * 10 ** digits) / 10 ** digits).toFixed(digits);
  return `${minutes}:${text.padStart(digits ? 3 + digits : 2, "0")}`;
}

/** A time within a sound, with the digits of its length. */
export function clockIn(seconds: number, duration_s: number): string {
  return clock(seconds, duration_s < 1 ? 2 : 1);
}

/** Seconds in words, for screen readers: "1 minute 5.2 seconds". */
export function spoken(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const rest = Number((seconds % 60).toFixed(1)).toString();
  const parts = minutes ? [`${minutes} ${minutes === 1 ? "minute" : "minutes"}`] : [];
  return [...parts, `${rest} ${rest === "1" ? "second" : "seconds"}`].join(" ");
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function kilohertz(rate: number): string {
  return `${Number((rate / 1000).toFixed(2))} kHz`;
}

export function channelsName(channels: number): string {
  return channels === 1 ? "mono" : channels === 2 ? "stereo" : `${channels} channels`;
}

export function bytes(size: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Control characters as pictures, so that a name with a line break takes one line and shows that it has one. Those of
 * breaks and tabs are in most fonts. */
export function visible(text: string): string {
  return text
    .replace(/\r\n|[\r\n]/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f]/g, (each) => String.fromCharCode(0x2400 + each.charCodeAt(0)))
    .replace(/\u007f/g, "␡");
}

export function nameOf(path: string): string {
  return visible(path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1));
}

export function folderOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"), 0));
}

/** The two innermost folders of a file, which say most where there is little room. */
export function innerFolders(path: string): string {
  return visible(folderOf(path).split(/[\\/]/).slice(-2).join("/"));
}

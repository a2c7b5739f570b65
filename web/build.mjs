// Build the page into src/openclap/server/static. With --check, build into memory and compare with what is committed.
import { build } from "esbuild";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const WEB = dirname(fileURLToPath(import.meta.url));
const STATIC = join(WEB, "..", "src", "openclap", "server", "static");
const MOST_COMPRESSED = 150_000;

const bundle = await build({
  absWorkingDir: WEB,
  entryPoints: [{ in: "src/main.tsx", out: "page" }],
  outdir: STATIC,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome110", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  write: false,
});
const licences = ["preact", "@preact/signals", "wavesurfer.js"].map(async (name) => {
  const text = await readFile(join(WEB, "node_modules", name, "LICENSE"), "utf8");
  return `${name}\n\n${text.trim()}\n`;
});
const files = new Map([
  ...bundle.outputFiles.map((file) => [file.path.slice(STATIC.length + 1), Buffer.from(file.contents)]),
  ["index.html", await readFile(join(WEB, "src", "index.html"))],
  ["icon.svg", await readFile(join(WEB, "src", "icon.svg"))],
  ["licences.txt", Buffer.from((await Promise.all(licences)).join("\n---\n\n"))],
]);

const script = gzipSync(files.get("page.js")).length;
console.log(`page.js: ${script.toLocaleString("en")} bytes compressed`);
if (script > MOST_COMPRESSED) throw new Error(`page.js has ${script} bytes compressed, over ${MOST_COMPRESSED}.`);

if (process.argv.includes("--check")) {
  const committed = await readdir(STATIC);
  const names = [...files.keys()];
  const different = [...new Set([...names, ...committed])].filter((name) => !files.has(name) || !committed.includes(name));
  for (const name of names.filter((each) => committed.includes(each))) {
    if (!files.get(name).equals(await readFile(join(STATIC, name)))) different.push(name);
  }
  if (different.length) {
    console.error(`Not what web/src builds: ${different.join(", ")}. Run 'npm run build --prefix web' and commit.`);
    process.exit(1);
  }
  console.log("The committed files are what web/src builds.");
} else {
  await mkdir(STATIC, { recursive: true });
  for (const [name, content] of files) await writeFile(join(STATIC, name), content);
}

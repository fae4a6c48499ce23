// What the build leaves to do in dist/: compressed copies for the conversation server, the configuration for Static Web
// Apps, and a look at what a first visit loads.
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

/** Bytes of the page and all it names, compressed. */
const LIMIT = 250_000;
const dist = new URL("../dist/", import.meta.url);

for (const name of readdirSync(dist, { recursive: true })) {
  if (!/\.(html|js|css|svg)$/.test(name)) continue;
  const plain = readFileSync(new URL(name, dist));
  const gzip = gzipSync(plain, { level: 9 });
  if (gzip.length < plain.length) writeFileSync(new URL(`${name}.gz`, dist), gzip);
}

// Which server it calls there, and that it may, is written into a copy of the page when that is deployed.
copyFileSync(new URL("../staticwebapp.config.json", import.meta.url), new URL("staticwebapp.config.json", dist));

const page = readFileSync(new URL("index.html", dist));
const named = [...page.toString().matchAll(/(?:src|href)="\/([^"]+)"/g)].map(([, name]) => readFileSync(new URL(name, dist)));
const total = [page, ...named].reduce((sum, file) => sum + gzipSync(file).length, 0);
console.log(`first load: ${(total / 1000).toFixed(1)} kB compressed in ${named.length + 1} files, at most ${LIMIT / 1000} kB`);
if (total > LIMIT) {
  console.error("Too much is loaded at first: load what is not needed at once with import(), or use a smaller library.");
  process.exit(1);
}

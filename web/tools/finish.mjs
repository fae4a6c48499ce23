// What the build leaves to do in dist/: compressed copies for the conversation server, the configuration for Static Web
// Apps, and a look at what a first visit loads.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
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

// On another host than the server's own, the console calls the server's origin, that of the issuer people sign in with,
// and only those.
const called = [process.env.VITE_COLLOQUY_SERVER, process.env.CONSOLE_OIDC_ISSUER].filter(Boolean);
const config = readFileSync(new URL("../staticwebapp.config.json", import.meta.url), "utf8");
const origins = called.map((url) => ` ${new URL(url).origin}`).join("");
writeFileSync(new URL("staticwebapp.config.json", dist), config.replace("connect-src 'self'", `connect-src 'self'${origins}`));

const page = readFileSync(new URL("index.html", dist));
const named = [...page.toString().matchAll(/(?:src|href)="\/([^"]+)"/g)].map(([, name]) => readFileSync(new URL(name, dist)));
const total = [page, ...named].reduce((sum, file) => sum + gzipSync(file).length, 0);
console.log(`first load: ${(total / 1000).toFixed(1)} kB compressed in ${named.length + 1} files, at most ${LIMIT / 1000} kB`);
if (total > LIMIT) {
  console.error("Too much is loaded at first: load what is not needed at once with import(), or use a smaller library.");
  process.exit(1);
}

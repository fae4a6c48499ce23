import { readFileSync } from "node:fs";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// Where the conversation server listens, for `npm run dev`; what the console asks for goes there.
const server = process.env["COLLOQUY_CONSOLE_SERVER"] ?? "http://127.0.0.1:8080";

const proxy = Object.fromEntries(["/v1", "/admin", "/health", "/openapi.json", "/console.json"].map((path) => [path, server]));

// The built console under the headers it is deployed with.
const deployed = JSON.parse(readFileSync(new URL("staticwebapp.config.json", import.meta.url), "utf8")) as {
  globalHeaders: Record<string, string>;
};

// Where people sign in, the page may call as well.
const issuer = process.env["CONSOLE_OIDC_ISSUER"];
const headers = Object.fromEntries(
  Object.entries(deployed.globalHeaders).map(([name, value]) => [
    name,
    issuer ? value.replace("connect-src 'self'", `connect-src 'self' ${new URL(issuer).origin}`) : value,
  ]),
);

export default defineConfig({
  plugins: [react()],
  // Inlined data URLs and module preload scripts would need holes in the content security policy.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: "es2022", sourcemap: false },
  server: { proxy },
  preview: { proxy, headers },
  test: { environment: "node", include: ["src/**/*.test.ts", "src/**/*.test.tsx"] },
});

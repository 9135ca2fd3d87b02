// Measures in a real Chromium how a module starts: compiled while it streams in, and compiled after
// it has been fetched whole. Then the parts: fetching alone, compiling and instantiating bytes that
// are there, and the generated JavaScript up to its first document; and what merging 10,000 lww
// operations takes that another store has sent in one change.
//
//     node streaming.mjs CHROMIUM FOLDER
//
// FOLDER holds `app.js` and `app.wasm`. Prints one line of JSON, with medians in milliseconds.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [executablePath, folder] = process.argv.slice(2);

const files = {
  "/": ["text/html", "<!doctype html><title>VUDO</title>"],
  "/app.js": ["text/javascript", await readFile(join(folder, "app.js"))],
  "/app.wasm": ["application/wasm", await readFile(join(folder, "app.wasm"))],
};

// The two isolation headers make Chromium's clock count in steps of 5 microseconds, not 100.
const server = createServer((request, response) => {
  const [type, body] = files[new URL(request.url, "http://localhost").pathname] ?? [];
  response.writeHead(body === undefined ? 404 : 200, {
    "content-type": type ?? "text/plain",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
  });
  response.end(body);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

// Runs in the page. Every round asks for an address of its own, so that no compiled code is reused.
const measure = async (rounds) => {
  const median = (numbers) => numbers.sort((one, other) => one - other)[numbers.length >> 1];
  const times = { streaming: [], buffered: [], fetch: [], instantiation: [], first_operation: [], merge_10k_lww: [] };
  const timed = async (name, run) => {
    const start = performance.now();
    const result = await run();
    times[name].push(performance.now() - start);
    return result;
  };
  const { open } = await import("/app.js");
  for (let round = 0; round < rounds; round++) {
    const streamed = await timed("streaming", () =>
      WebAssembly.instantiateStreaming(fetch(`/app.wasm?streaming=${round}`)),
    );
    const buffered = await timed("buffered", async () =>
      WebAssembly.instantiate(await (await fetch(`/app.wasm?buffered=${round}`)).arrayBuffer()),
    );
    const bytes = await timed("fetch", async () =>
      (await fetch(`/app.wasm?bytes=${round}`)).arrayBuffer(),
    );
    await timed("instantiation", () => WebAssembly.instantiate(bytes));
    const name = await timed("first_operation", async () => {
      const user = (await open({ wasm: bytes })).User.create("alice");
      user.name = `Alice ${round}`;
      return user.name;
    });
    const writer = await open({ wasm: bytes });
    writer.transaction(() => {
      for (let user = 0; user < 10_000; user++) writer.User.create(`user ${user}`).name = `name ${round}`;
    });
    const [frame, store] = [writer.changesSince(), await open({ wasm: bytes })];
    await timed("merge_10k_lww", () => store.merge(frame));
    if (store.User.keys().length !== 10_000) throw new Error("the frame was not merged whole");
    const complete = [streamed, buffered].every((loaded) => loaded.instance.exports.memory);
    if (!complete || name !== `Alice ${round}`) throw new Error(`round ${round} gave ${name}`);
  }
  return Object.fromEntries(
    Object.entries(times).map(([name, numbers]) => [`${name}_milliseconds`, median(numbers)]),
  );
};

const browser = await chromium.launch({ executablePath });
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  assert(await page.evaluate(() => crossOriginIsolated), "the page has the fine clock");
  const medians = await page.evaluate(measure, 21);
  console.log(JSON.stringify({ version: browser.version(), ...medians }));
} finally {
  await browser.close();
  server.close();
}

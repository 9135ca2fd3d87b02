// Runs a script of a folder in a real Chromium and prints what it gives, as one line of JSON.
//
//     node run.mjs CHROMIUM FOLDER SCRIPT
//
// The folder is served on the loopback. SCRIPT is an ES module in it whose default export is called
// in a page with a function that gives the bytes of a file of the folder; what it throws ends this
// with an error.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const [executablePath, folder, script] = process.argv.slice(2);

const types = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".json": "application/json",
};

const answer = async (address) => {
  const path = normalize(decodeURIComponent(new URL(address, "http://localhost").pathname));
  if (path === "/") return ["text/html", "<!doctype html><title>VUDO</title>"];
  return [types[extname(path)] ?? "application/octet-stream", await readFile(join(folder, path))];
};

// The two isolation headers make Chromium's clock count in steps of 5 microseconds, not 100.
const server = createServer(async (request, response) => {
  const found = await answer(request.url).catch(() => undefined);
  response.writeHead(found ? 200 : 404, {
    "content-type": found?.[0] ?? "text/plain",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
  });
  response.end(found?.[1]);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({ executablePath });
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const result = await page.evaluate(async (name) => {
    const load = async (file) => {
      const response = await fetch(`/${file}`);
      if (!response.ok) throw new Error(`there is no ${file}`);
      return new Uint8Array(await response.arrayBuffer());
    };
    return (await import(`/${name}`)).default(load);
  }, script);
  console.log(JSON.stringify({ version: browser.version(), ...result }));
} finally {
  await browser.close();
  server.close();
}

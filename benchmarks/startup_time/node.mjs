// Measures in Node how a module starts, from bytes in memory: compiled and instantiated, and with
// the generated JavaScript to the first document.
//
//     node node.mjs FOLDER
//
// FOLDER holds `app.js` and `app.wasm`. Prints one line of JSON, with medians in milliseconds.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(process.argv[2] + "/");
const bytes = await readFile(new URL("app.wasm", folder));
const { open } = await import(new URL("app.js", folder));

const median = (numbers) => numbers.sort((one, other) => one - other)[numbers.length >> 1];
const timed = async (times, run) => {
  const start = performance.now();
  const result = await run();
  times.push(performance.now() - start);
  return result;
};

const [instantiation, firstOperation] = [[], []];
for (let round = 0; round < 21; round++) {
  const { instance } = await timed(instantiation, () => WebAssembly.instantiate(bytes));
  assert(instance.exports.memory);
  const name = await timed(firstOperation, async () => {
    const user = (await open({ wasm: bytes })).User.create("alice");
    user.name = `Alice ${round}`;
    return user.name;
  });
  assert.equal(name, `Alice ${round}`);
}
console.log(
  JSON.stringify({
    version: process.version,
    instantiation_milliseconds: median(instantiation),
    first_operation_milliseconds: median(firstOperation),
  }),
);

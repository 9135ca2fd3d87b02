// Asks modules what another host has asked of them, and compares all that they give: codes, and
// outputs by their lengths and hashes.
//
//     node replay.mjs FOLDER        or, in a page: the default export
//
// `traces.json` in the folder lists, for each instance, its module's file and what was asked of it:
//     ["put", input in Base64], ["call", export, arguments, result], ["output", length, hash]

const argument = (text) => {
  const rest = text.slice(1);
  if (text[0] == "i") return Number(rest);
  if (text[0] == "I") return BigInt(rest);
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(rest));
  return view.getFloat64(0);
};

// FNV-1a of 32 bits, twice with different beginnings.
const hash = (bytes) => {
  let [one, two] = [0x811c9dc5, 0x01234567];
  for (const byte of bytes) {
    one = Math.imul(one ^ byte, 0x01000193) >>> 0;
    two = Math.imul(two ^ byte, 0x01000193) >>> 0;
  }
  return `${one} ${two}`;
};

export default async function replay(load) {
  const traces = JSON.parse(new TextDecoder().decode(await load("traces.json")));
  const modules = new Map();
  let callCount = 0;
  for (const [place, { module, steps }] of traces.entries()) {
    if (!modules.has(module)) modules.set(module, await WebAssembly.compile(await load(module)));
    const { exports } = await WebAssembly.instantiate(modules.get(module), {});
    const expect = (given, wanted, what) => {
      if (given !== wanted) throw new Error(`trace ${place}, ${module}: ${what} gave ${given}, not ${wanted}`);
    };
    for (const [kind, ...step] of steps) {
      if (kind == "put") {
        const bytes = Uint8Array.from(atob(step[0]), (character) => character.charCodeAt(0));
        const address = exports.input(bytes.length) >>> 0;
        new Uint8Array(exports.memory.buffer).set(bytes, address);
      } else if (kind == "call") {
        const [name, given, result] = step;
        expect(exports[name](...given.map(argument)) >>> 0, result, name);
        callCount++;
      } else {
        const [length, wanted] = step;
        const address = exports.output() >>> 0;
        expect(exports.output_length(), length, "output_length");
        expect(hash(new Uint8Array(exports.memory.buffer, address, length)), wanted, "the output's hash");
      }
    }
  }
  return { traceCount: traces.length, callCount };
}

if (globalThis.process?.argv[2]) {
  const { readFile } = await import("node:fs/promises");
  const { join } = await import("node:path");
  const load = (file) => readFile(join(process.argv[2], file));
  console.log(JSON.stringify(await replay(load)));
}

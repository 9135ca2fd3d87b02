// Measures in this process how one library starts: the time that compiling and instantiating its
// module takes, and the time from loading the package to a value that was read from a document.
//
//     node start.mjs LIBRARY FOLDER
//
// FOLDER holds our `app.js` and `app.wasm`. Prints the figures as a JSON object. Time is CPU time of
// the whole process, compiler threads included; the machine may be shared.
import assert from "node:assert/strict";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [library, folder] = process.argv.slice(2);
const NAME = "Alice";

// Each creates a document, writes a name, and gives what is read back.
const libraries = {
  vudo: async () => {
    const { open } = await import(pathToFileURL(join(folder, "app.js")));
    const user = (await open()).User.create("alice");
    user.name = NAME;
    return user.name;
  },
  yjs: async () => {
    const { Doc } = await import("yjs");
    const user = new Doc().getMap("user");
    user.set("name", NAME);
    return user.get("name");
  },
  ywasm: async () => {
    const { YDoc } = (await import("ywasm")).default;
    const document = new YDoc({});
    const user = document.getMap("user");
    const transaction = document.beginTransaction("local");
    user.set("name", NAME, transaction);
    const name = user.get("name", transaction);
    transaction.commit();
    return name;
  },
  automerge: async () => {
    const { change, init } = await import("@automerge/automerge");
    const document = change(init(), (user) => {
      user.name = NAME;
    });
    return document.name;
  },
  loro: async () => {
    const { LoroDoc } = await import("loro-crdt");
    const user = new LoroDoc().getMap("user");
    user.set("name", NAME);
    return user.get("name");
  },
};

// The core of Jazz keeps sessions and knows no documents: it starts, and no more.
const startJazz = async () => {
  const { blake3HashOnce, initializeSync } = await import("cojson-core-wasm");
  initializeSync();
  assert.equal(blake3HashOnce(new Uint8Array(1)).length, 32);
};

const cpuMilliseconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

// Every package brings its own loader, so the time is taken where all of them pass.
const { Instance, Module, instantiate } = WebAssembly;
let webAssemblyMilliseconds = 0;
const timed = (constructor) =>
  new Proxy(constructor, {
    construct: (target, parameters) => {
      const start = cpuMilliseconds();
      const built = Reflect.construct(target, parameters);
      webAssemblyMilliseconds += cpuMilliseconds() - start;
      return built;
    },
  });
WebAssembly.Module = timed(Module);
WebAssembly.Instance = timed(Instance);
WebAssembly.instantiate = async (...parameters) => {
  const start = cpuMilliseconds();
  const loaded = await instantiate(...parameters);
  webAssemblyMilliseconds += cpuMilliseconds() - start;
  return loaded;
};

const figures = {};
if (library === "jazz") {
  await startJazz();
} else {
  const start = cpuMilliseconds();
  assert.equal(await libraries[library](), NAME);
  figures.node_first_document_ms = cpuMilliseconds() - start;
}
if (library !== "yjs") {
  assert(webAssemblyMilliseconds > 0, `${library} instantiated no module`);
  figures.node_compile_instantiate_ms = webAssemblyMilliseconds;
}
console.log(JSON.stringify(figures));

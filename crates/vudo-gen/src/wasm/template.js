// Made by the Gen compiler. Do not edit: change the Gen file and build again.
const schema = __SCHEMA__;
const reasons = "__REASONS__".split(" ");
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Something was refused; `code` says why and nothing has changed. */
export class VudoError extends Error {
  constructor(code, subject) {
    super(subject + ": " + code.replaceAll("_", " "));
    this.name = "VudoError";
    this.code = code;
  }
}

const refuse = (code, subject) => {
  throw new VudoError(code, subject);
};
const check = (number, subject) =>
  number && refuse(reasons[number - (number < 32 ? 1 : 19)], subject);
const encode = (text, subject) =>
  typeof text == "string" && text.isWellFormed()
    ? encoder.encode(text)
    : refuse("type_mismatch", subject);
const view = (bytes) => new DataView(bytes.buffer);

// By kind: whether a value is of it, what goes into the module, what comes out of it.
const kinds = {
__KINDS__};

const load = async (wasm = new URL("./app.wasm", import.meta.url)) => {
  if (wasm.protocol == "file:") {
    const files = "node:fs/promises";
    wasm = await (await import(/* @vite-ignore */ /* webpackIgnore: true */ files)).readFile(wasm);
  } else if (wasm instanceof URL) {
    const response = await fetch(wasm);
    if (response.headers.get("content-type") == "application/wasm")
      return (await WebAssembly.instantiateStreaming(response)).instance;
    wasm = await response.arrayBuffer();
  }
  const loaded = await WebAssembly.instantiate(wasm);
  return loaded.instance ?? loaded;
};

export async function open({
  replica = crypto.getRandomValues(new Uint8Array(32)),
  now = Date.now,
  wasm,
} = {}) {
  const module = (await load(wasm)).exports;
  const listeners = new Set();
  let isInTransaction = false;

  const put = (subject, key, value = []) => {
    const length = key.length + value.length;
    const address = module.input(length) >>> 0;
    if (!address) refuse("input_length", subject);
    const memory = new Uint8Array(module.memory.buffer, address, length);
    memory.set(key);
    memory.set(value, key.length);
    return key.length;
  };
  const take = () =>
    new Uint8Array(module.memory.buffer, module.output() >>> 0, module.output_length()).slice();
  const changed = () => isInTransaction || listeners.forEach((listener) => listener());

  const collection = (gen, fields) => {
    const call = (operation, subject, key, ...rest) => {
      put(subject, encode(key, subject));
      check(module[gen + operation](...rest), subject);
    };
    class Document {
      constructor(key) {
        Object.defineProperty(this, "key", { value: key, enumerable: true });
      }
      get exists() {
        put(gen, encode(this.key, gen));
        return !module[gen + ".exists"]();
      }
      delete() {
        call(".delete", gen + " " + this.key, this.key, now());
        changed();
      }
    }
    for (const [property, kind, name, adder] of fields) {
      const path = gen + "." + name;
      const [, , read] = kinds[kind[0]];
      const [is, write] = kinds[kind[1] ?? kind];
      const operation = module[path + (adder ? ".add" : ".set")];
      const change = function (value) {
        const subject = `${path} of ${this.key} = ${value}`;
        if (!is(value)) refuse("type_mismatch", subject);
        const key = encode(this.key, subject);
        check(
          write
            ? operation(put(subject, key), write(value), now())
            : operation(put(subject, key, encoder.encode(value)), now()),
          subject,
        );
        changed();
      };
      Object.defineProperty(Document.prototype, property, {
        get() {
          const subject = path + " of " + this.key;
          const number = module[path + ".get"](put(subject, encode(this.key, subject)));
          if (number != 44) return check(number, subject), read(take());
        },
        set: adder ? undefined : change,
        enumerable: true,
      });
      if (adder) Document.prototype[adder] = change;
    }
    const get = (key) => {
      const document = new Document(key);
      if (document.exists) return document;
    };
    const keys = () => {
      check(module[gen + ".keys"](), gen);
      const bytes = take();
      const found = [];
      for (let at = 0; at < bytes.length; ) {
        const end = at + 4 + view(bytes).getUint32(at, true);
        found.push(decoder.decode(bytes.subarray(at + 4, end)));
        at = end;
      }
      return found;
    };
    return {
      create(key) {
        call(".create", gen + " " + key, key, now());
        changed();
        return new Document(key);
      },
      get,
      keys,
      all: () => keys().map((key) => new Document(key)),
    };
  };

  put("replica", replica);
  check(module.open(crypto.getRandomValues(new BigInt64Array(1))[0]), "replica");
  const app = {
    transaction(work) {
      check(module.begin(now()), "transaction");
      isInTransaction = true;
      let result;
      try {
        result = work();
        if (result instanceof Promise) throw new TypeError("a transaction cannot wait");
        check(module.commit(), "transaction");
      } finally {
        module.rollback();
        isInTransaction = false;
      }
      changed();
      return result;
    },
    changesSince(version = []) {
      put("version", version);
      check(module.changes_since(), "version");
      return take();
    },
    merge(frame) {
      put("frame", frame);
      check(module.merge(), "frame");
      changed();
    },
    version() {
      check(module.version(), "version");
      return take();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  for (const [property, gen, fields] of schema) app[property] = collection(gen, fields);
  return app;
}

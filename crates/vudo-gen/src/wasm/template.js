const $schema = __SCHEMA__;
const $reasons = "__REASONS__".split(" ");

export class VudoError extends Error {
  constructor($code, $name, $key) {
    super(`${$name} ${$key}: ${$code.replaceAll("_", " ")}`);
    this.name = "VudoError";
    this.code = $code;
  }
}

const $refuse = (...$rest) => {
  throw new VudoError(...$rest);
};
const $isText = ($value) => typeof $value == "string" && $value.isWellFormed();
const $encode = ($text) =>
  $isText($text) ? new TextEncoder().encode($text) : $refuse("type_mismatch", "key", $text);
const $decode = ($bytes) => new TextDecoder().decode($bytes);
const $view = ($bytes) => new DataView($bytes.buffer);

// By kind: whether a value is of it, the argument it becomes, and what an output means.
const $kinds = {
__KINDS__};

const $load = async ($wasm = new URL(__WASM__, import.meta.url)) => {
  if ($wasm instanceof URL) {
    if ($wasm.protocol == "file:") {
      const $files = "node:fs/promises";
      $wasm = await (await import(/* @vite-ignore */ /* webpackIgnore: true */ $files)).readFile($wasm);
    } else {
      $wasm = await fetch($wasm);
      if (/wasm/.test($wasm.headers.get("content-type")))
        return (await WebAssembly.instantiateStreaming($wasm)).instance;
      $wasm = await $wasm.arrayBuffer();
    }
  }
  const $loaded = await WebAssembly.instantiate($wasm);
  return $loaded.instance ?? $loaded;
};

export async function open({
  replica: $replica = crypto.getRandomValues(new Uint8Array(32)),
  now: $now = Date.now,
  wasm: $wasm,
} = {}) {
  const $module = (await $load($wasm)).exports;
  const $listeners = new Set();
  let $isInTransaction;

  // Gives whether there is a value. `rest` are arguments, `parts` go to the input.
  const $run = ($name, $key, $rest, ...$parts) => {
    let $length = 0;
    for (const $part of $parts) $length += $part.length;
    let $address = $module.input($length) >>> 0 || $refuse("too_large", $name, $key);
    for (const $part of $parts) {
      new Uint8Array($module.memory.buffer).set($part, $address);
      $address += $part.length;
    }
    const $number = $module[$name](...$rest);
    if ($number && $number != 44) $refuse($reasons[$number - 32] ?? "malformed", $name, $key);
    return !$number;
  };
  const $change = (...$call) => {
    $run(...$call);
    $isInTransaction || $listeners.forEach(($listener) => $listener());
  };
  const $take = () =>
    new Uint8Array($module.memory.buffer, $module.output() >>> 0, $module.output_length()).slice();

  const $collection = ($gen, $fields) => {
    const $has = ($key) => $run($gen + ".exists", $key, [], $encode($key));
    class $Document {
      constructor($key) {
        Object.defineProperty(this, "key", { value: $key, enumerable: true });
      }
      get exists() {
        return $has(this.key);
      }
      delete() {
        $change($gen + ".delete", this.key, [$now()], $encode(this.key));
      }
    }
    for (const [$property, $kind, $name, $adder] of $fields) {
      const $path = $gen + "." + $name;
      const [$is, $write] = $kinds[$kind[1] ?? $kind];
      const $set = function ($value) {
        const $key = $encode(this.key);
        const $call = [$path + ($adder ? ".add" : ".set"), this.key];
        $is($value) || $refuse("type_mismatch", ...$call);
        $write
          ? $change(...$call, [$key.length, $write($value), $now()], $key)
          : $change(...$call, [$key.length, $now()], $key, $isText($value) ? $encode($value) : $value);
      };
      Object.defineProperty($Document.prototype, $property, {
        get() {
          const $key = $encode(this.key);
          if ($run($path + ".get", this.key, [$key.length], $key))
            return $kinds[$kind[0]][2]($take());
        },
        set: $adder ? undefined : $set,
      });
      if ($adder) $Document.prototype[$adder] = $set;
    }
    const $keys = () => {
      $run($gen + ".keys", "", []);
      const $bytes = $take();
      const $found = [];
      for (let $end = 0; $end < $bytes.length; ) {
        const $start = $end + 4;
        $end = $start + $view($bytes).getUint32($end, true);
        $found.push($decode($bytes.subarray($start, $end)));
      }
      return $found;
    };
    return {
      create($key) {
        $change($gen + ".create", $key, [$now()], $encode($key));
        return new $Document($key);
      },
      get: ($key) => ($has($key) ? new $Document($key) : undefined),
      keys: $keys,
      all: () => $keys().map(($key) => new $Document($key)),
    };
  };

  $run("open", "", [crypto.getRandomValues(new BigInt64Array(1))[0]], $replica);
  const $app = {
    transaction($work) {
      $run("begin", "", [$now()]);
      $isInTransaction = true;
      let $name = "rollback";
      try {
        const $result = $work();
        if ($result instanceof Promise) throw new TypeError("a transaction cannot wait");
        $name = "commit";
        return $result;
      } finally {
        $isInTransaction = false;
        ($name == "commit" ? $change : $run)($name, "", []);
      }
    },
    changesSince: ($vector = []) => ($run("changes_since", "", [], $vector), $take()),
    merge: ($frame) => $change("merge", "", [], $frame),
    version: () => ($run("version", "", []), $take()),
    subscribe($listener) {
      $listeners.add($listener);
      return () => void $listeners.delete($listener);
    },
  };
  for (const [$property, ...$rest] of $schema) $app[$property] = $collection(...$rest);
  return $app;
}

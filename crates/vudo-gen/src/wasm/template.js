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

//<values
// A type is a letter and what it is made of; a value crosses as a tag and what the tag announces.
const $records = __RECORDS__;
const $varint = ($number) => {
  const $out = [];
  for (; $number > 127n; $number >>= 7n) $out.push(Number($number & 127n) | 128);
  $out.push(Number($number));
  return $out;
};
const $sized = ($tag, $parts) => [$tag, ...$varint(BigInt($parts.flat().length)), ...$parts.flat()];
const $ascending = ($left, $right) => {
  let $at = 0;
  while ($at < $left.length && $left[$at] == $right[$at]) $at++;
  return ($left[$at] ?? -1) - ($right[$at] ?? -1);
};
const $unique = ($parts, $of = ($part) => $part) =>
  $parts
    .sort(($left, $right) => $ascending($of($left), $of($right)))
    .filter(($part, $at) => !$at || $ascending($of($parts[$at - 1]), $of($part)));
const $pack = ([$letter, $of, $to], $value) => {
  const $must = ($holds) => $holds || $refuse("type_mismatch", "value", String($value));
  const $each = ($values) => Array.from($values, ($one) => $pack($of, $one));
  switch ($letter) {
    case "o":
      return $value == null ? [36] : $pack($of, $value);
    case "l":
      return $must(Array.isArray($value)), $sized(47, $each($value));
    case "S":
      return $must($value?.[Symbol.iterator]), $sized(47, $unique($each($value)));
    case "m": {
      $must($value instanceof Map);
      const $pairs = Array.from($value, ([$key, $one]) => [$pack($of, $key), $pack($to, $one)]);
      return $sized(55, $unique($pairs, ($pair) => $pair[0]).flat());
    }
    case "t":
      $must($value?.length == $of.length);
      return $sized(47, $of.map(($part, $at) => $pack($part, $value[$at])));
    case "e": {
      const $found = $of.find(([$name]) => $name == $value)?.[1] ?? $value;
      return $must($found >>> 0 === $found), [41, ...$varint(BigInt($found))];
    }
    case "r": {
      $must(typeof $value == "object" && $value);
      const $held = $records[$of].filter(([$name]) => Object.hasOwn($value, $name) && $value[$name] !== undefined);
      $held.sort(($left, $right) => $left[1] - $right[1]);
      const $fields = $held.map(([$name, $number, $type]) => [...$varint(BigInt($number)), ...$pack($type, $value[$name])]);
      return $sized(51, $fields);
    }
    case "k":
      return $must($value instanceof Uint8Array), [...$value];
  }
  $must($kinds[$letter][0]($value));
  switch ($letter) {
    case "s":
      return $sized(27, [...$encode($value)]);
    case "x":
      return $sized(35, [...$value]);
    case "b":
      return [$value ? 8 : 4];
    case "f":
    case "g": {
      const $bytes = new Uint8Array(8);
      $view($bytes).setFloat64(0, ($letter == "g" ? Math.fround($value) : $value) + 0, true);
      return [22, ...$bytes];
    }
  }
  $must($of === undefined || ($of <= $value && $value <= $to));
  const $number = BigInt($value);
  if ($number >> 63n > 0n) return [17, ...$varint($number)];
  return [13, ...$varint($number < 0n ? -2n * $number - 1n : 2n * $number)];
};
// Gives undefined for what is not of the type.
const $unpack = ($type, $bytes) => {
  let $at = 0;
  const $integer = () => {
    let $number = 0n;
    for (let $shift = 0n; ; $shift += 7n) {
      const $byte = $bytes[$at++];
      $number |= BigInt($byte & 127) << $shift;
      if (!($byte > 127)) return $number;
    }
  };
  const $read = ([$letter, $of, $to]) => {
    const $start = $at;
    const $tag = $bytes[$at++];
    if ($letter == "o" && $tag != 36) return ($at = $start), $read($of);
    const $wire = $tag & 3;
    const $number = $wire & 1 ? $integer() : 0n;
    const $inside = $at;
    const $end = $wire == 3 ? $at + Number($number) : $wire == 2 ? $at + 8 : $at;
    const $all = ($one, $out = []) => {
      while ($at < $end) $out.push($one($out.length));
      return $out;
    };
    let $value;
    if ($letter == "o") $value = null;
    else if ($letter == "k") $value = $bytes.slice($start, $end);
    else if ($letter == "l" && $tag == 47) $value = $all(() => $read($of)).filter(($one) => $one !== undefined);
    else if ($letter == "S" && $tag == 47) $value = new Set($all(() => $read($of)));
    else if ($letter == "t" && $tag == 47) $value = $all(($index) => $read($of[$index] ?? ["k"]));
    else if ($letter == "m" && $tag == 55) $value = new Map($all(() => [$read($of), $read($to)]));
    else if ($letter == "e" && $tag == 41) $value = $of.find(($one) => $one[1] == $number)?.[0] ?? Number($number);
    else if ($letter == "r" && $tag == 51) {
      $value = {};
      $all(() => {
        const $field = Number($integer());
        const [$name, , $held] = $records[$of].find(($one) => $one[1] == $field) ?? [];
        const $one = $read($held ?? ["k"]);
        if ($held && $one !== undefined) Object.defineProperty($value, $name, { value: $one, enumerable: true, writable: true, configurable: true });
      });
    } else if ($letter == "b" && $wire == 0) $value = $tag == 8;
    else if ($letter == "s" && $tag == 27) $value = $decode($bytes.subarray($inside, $end));
    else if ($letter == "x" && $tag == 35) $value = $bytes.slice($inside, $end);
    else if (/f|g/.test($letter) && $tag == 22) $value = $view($bytes.slice($inside, $end)).getFloat64(0, true);
    else if (/n|i|u/.test($letter) && $wire == 1) {
      $value = $tag == 17 ? $number : $number & 1n ? -($number + 1n) / 2n : $number / 2n;
      if ($letter == "n") $value = Number($value);
    }
    $at = $end;
    return $value;
  };
  return $read($type);
};
//>

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
  //<rights
  founder: $founder = $replica,
  //>
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
    for (const [$property, $kind, $name, $adder, $type, $more] of $fields) {
      const $path = $gen + "." + $name;
      //<values
      if ($type) {
        const $ask = ($key, $operation, ...$parts) => {
          const $bytes = $encode($key);
          if ($run($path + $operation, $key, [$bytes.length], $bytes, ...$parts)) return $take();
        };
        const $tell = ($key, $operation, $rest, ...$parts) => {
          const $bytes = $encode($key);
          $change($path + $operation, $key, [$bytes.length, ...$rest, $now()], $bytes, ...$parts);
        };
        const $all = ($key, $shape) => {
          const $bytes = $ask($key, ".get");
          return $bytes && $unpack($shape, $bytes);
        };
        const $size = ($key) => Number($view($ask($key, ".size")).getBigUint64(0, true));
        const $set = ($key) => ({
          get size() {
            return $size($key);
          },
          has: ($element) => !!$ask($key, ".has", $pack($type, $element)),
          add: ($element) => $tell($key, ".add", [], $pack($type, $element)),
          delete: ($element) => $tell($key, ".remove", [], $pack($type, $element)),
          [Symbol.iterator]: () => $all($key, ["l", $type])[Symbol.iterator](),
        });
        const $map = ($key, [$held, $one, $amount] = $more) => {
          const $get = ($at) => {
            const $bytes = $ask($key, ".at", $pack($type, $at));
            return $bytes && $unpack($held, $bytes);
          };
          return {
            get size() {
              return $size($key);
            },
            get: $get,
            has: ($at) => $get($at) !== undefined,
            delete: ($at) => $tell($key, ".remove", [], $pack($type, $at)),
            [Symbol.iterator]: () => $all($key, ["m", $type, $held])[Symbol.iterator](),
            ...($amount
              ? {
                  add($at, $value) {
                    $kinds[$amount][0]($value) || $refuse("type_mismatch", $path, $key);
                    $tell($key, ".add", [$kinds[$amount][1]($value)], $pack($type, $at));
                  },
                }
              : {
                  set($at, $value) {
                    const $bytes = $pack($type, $at);
                    $tell($key, ".set", [$bytes.length], $bytes, $pack($one, $value));
                  },
                }),
          };
        };
        Object.defineProperty($Document.prototype, $property, {
          get() {
            if ($kind == "T") return $set(this.key);
            if ($kind == "M") return $map(this.key);
            if ($kind == "V") return $all(this.key, ["l", $type]) ?? [];
            return $all(this.key, $type);
          },
          set:
            $kind == "R" || $kind == "V"
              ? function ($value) {
                  $tell(this.key, ".set", [], $pack($type, $value));
                }
              : undefined,
        });
        continue;
      }
      //>
      //<rights
      if ($more) {
        $Document.prototype[$more[0]] = function ($up) {
          const $key = $encode(this.key);
          $run($path + ".rights", this.key, [$key.length, +$up], $key);
          return $kinds[$kind[0]][2]($take());
        };
        $Document.prototype[$more[1]] = function ($replica, $up, $amount) {
          const $key = $encode(this.key);
          const [$is, $write] = $kinds[$kind[1] ?? $kind];
          $is($amount) || $refuse("type_mismatch", $path, this.key);
          $change($path + ".give", this.key, [$key.length, +$up, $write($amount), $now()], $key, $replica);
        };
      }
      //>
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
  //<rights
  $run("found", "", [], $founder);
  //>
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

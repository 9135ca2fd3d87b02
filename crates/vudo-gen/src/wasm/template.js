const $schema = __SCHEMA__;
const $reasons = "__REASONS__".split(" ");

export class VudoError extends Error {
  constructor($value, $name, $key) {
    super(`${$name} ${$key}: ${$value}`);
    this.name = "VudoError";
    this.code = $value;
  }
}

const $refuse = (...$rest) => {
  throw new VudoError(...$rest);
};
const $isText = ($value) => $value?.isWellFormed?.();
const $encode = ($value) =>
  $isText($value) ? new TextEncoder().encode($value) : $refuse("type_mismatch", "key", $value);
const $decode = ($value) => new TextDecoder().decode($value);
const $view = ($value) => new DataView($value.buffer);

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

const $load = async ($part = new URL(__WASM__, import.meta.url)) => {
  if ($part.protocol == "file:") $part = process.getBuiltinModule("fs").readFileSync($part);
  else if ($part instanceof URL) {
    $part = await fetch($part);
    if (/wasm/.test($part.headers.get("content-type")))
      return (await WebAssembly.instantiateStreaming($part)).instance;
    $part = await $part.arrayBuffer();
  }
  $part = await WebAssembly.instantiate($part);
  return $part.instance ?? $part;
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
  //<generic
  // The number of each field by its path, which has a dot in it, and their classes by number.
  const $places = { n: 0 };
  const $classes = __CLASSES__;
  //>

  // Gives whether there is a value. The key and `part` go to the input; where the first argument is
  // left out, it is the key's length.
  const $run = ($name, $key = "", $rest = [], $part = []) => {
    const $bytes = $encode($key);
    const $address = $module.input($bytes.length + $part.length) >>> 0 || $refuse("too_large", $name, $key);
    const $memory = new Uint8Array($module.memory.buffer);
    $memory.set($bytes, $address);
    $memory.set($part, $address + $bytes.length);
    $rest[0] ??= $bytes.length;
    //<typed
    const $value = $module[$name](...$rest);
    //>
    //<generic
    const $at = $name.lastIndexOf(".");
    const $place = $places[$name.slice(0, $at)];
    const $call = $module[$name] ?? ($rest.unshift($place), $module[$classes[$place] + $name.slice($at)]);
    const $value = $call(...$rest);
    //>
    if ($value && $value != 44) $refuse($reasons[$value - 32] ?? "malformed", $name, $key);
    return !$value;
  };
  const $change = (...$rest) => {
    $run(...$rest);
    $isInTransaction || $listeners.forEach(($value) => $value());
  };
  const $take = () =>
    new Uint8Array($module.memory.buffer, $module.output() >>> 0, $module.output_length()).slice();

  const $collection = ($gen, $fields) => {
    const $has = ($key) => $run($gen + ".exists", $key);
    class $Document {
      constructor($key) {
        this.key = $key;
        Object.freeze(this);
      }
      get exists() {
        return $has(this.key);
      }
      delete() {
        $change($gen + ".delete", this.key, [$now()]);
      }
    }
    for (const [$property, $kind, $adder, $type, $more, $name = $property] of $fields) {
      const $path = $gen + "." + $name;
      //<generic
      $places[$path] = $places.n++;
      //>
      //<values
      if ($type) {
        const $ask = ($key, $operation, $part) => {
          if ($run($path + $operation, $key, [], $part)) return $take();
        };
        const $tell = ($key, $operation, $part, ...$rest) =>
          $change($path + $operation, $key, [, ...$rest, $now()], $part);
        const $all = ($key, $shape) => {
          const $bytes = $ask($key, ".get");
          return $bytes && $unpack($shape, $bytes);
        };
        const $set = ($key) => ({
          get size() {
            return $all($key, ["l", $type]).length;
          },
          has: ($element) => !!$ask($key, ".has", $pack($type, $element)),
          add: ($element) => $tell($key, ".add", $pack($type, $element)),
          delete: ($element) => $tell($key, ".remove", $pack($type, $element)),
          [Symbol.iterator]: () => $all($key, ["l", $type])[Symbol.iterator](),
        });
        const $map = ($key, [$held, $one, $amount] = $more) => {
          const $get = ($at) => {
            const $bytes = $ask($key, ".at", $pack($type, $at));
            return $bytes && $unpack($held, $bytes);
          };
          return {
            get size() {
              return $all($key, ["m", $type, $held]).size;
            },
            get: $get,
            has: ($at) => $get($at) !== undefined,
            delete: ($at) => $tell($key, ".remove", $pack($type, $at)),
            [Symbol.iterator]: () => $all($key, ["m", $type, $held])[Symbol.iterator](),
            ...($amount
              ? {
                  add($at, $value) {
                    $kinds[$amount][0]($value) || $refuse("type_mismatch", $path, $key);
                    $tell($key, ".add", $pack($type, $at), $kinds[$amount][1]($value));
                  },
                }
              : {
                  set($at, $value) {
                    const $bytes = $pack($type, $at);
                    $tell($key, ".set", $bytes.concat($pack($one, $value)), $bytes.length);
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
                  $tell(this.key, ".set", $pack($type, $value));
                }
              : undefined,
        });
        continue;
      }
      //>
      //<rights
      if ($more) {
        $Document.prototype[$more[0]] = function ($up) {
          $run($path + ".rights", this.key, [, +$up]);
          return $kinds[$kind[0]][2]($take());
        };
        $Document.prototype[$more[1]] = function ($replica, $up, $amount) {
          const [$is, $write] = $kinds[$kind[1] ?? $kind];
          $is($amount) || $refuse("type_mismatch", $path, this.key);
          $change($path + ".give", this.key, [, +$up, $write($amount), $now()], $replica);
        };
      }
      //>
      const [$is, $write] = $kinds[$kind[1] ?? $kind];
      const $set = function ($value) {
        const $rest = [$path + ($adder ? ".add" : ".set"), this.key];
        $is($value) || $refuse("type_mismatch", ...$rest);
        const $part = $write($value);
        $part.buffer ? $change(...$rest, [, $now()], $part) : $change(...$rest, [, $part, $now()]);
      };
      Object.defineProperty($Document.prototype, $property, {
        get() {
          if ($run($path + ".get", this.key)) return $kinds[$kind[0]][2]($take());
        },
        set: $adder ? undefined : $set,
      });
      if ($adder) $Document.prototype[$adder] = $set;
    }
    const $keys = ($rest = [], $end = 0) => {
      $run($gen + ".keys");
      for (const $part = $take(); $end < $part.length; ) {
        const $value = $end + 4;
        $end = $value + $view($part).getUint32($end, true);
        $rest.push($decode($part.slice($value, $end)));
      }
      return $rest;
    };
    return {
      create($key) {
        $change($gen + ".create", $key, [$now()]);
        return new $Document($key);
      },
      get: ($key) => ($has($key) ? new $Document($key) : undefined),
      keys: () => $keys(),
      all: () => $keys().map(($key) => new $Document($key)),
    };
  };

  $run("open", "", [0n], $replica);
  //<rights
  $run("found", "", [], $founder);
  //>
  const $app = {
    transaction($value) {
      $run("begin", "", [$now()]);
      $isInTransaction = true;
      let $end = () => $run("rollback");
      try {
        const $part = $value();
        if ($part instanceof Promise) throw new TypeError("a transaction cannot wait");
        $end = () => $change("commit");
        return $part;
      } finally {
        $isInTransaction = false;
        $end();
      }
    },
    changesSince: ($part) => ($run("changes_since", "", [], $part), $take()),
    merge: ($part) => $change("merge", "", [], $part),
    version: () => ($run("version"), $take()),
    subscribe($value) {
      $listeners.add($value);
      return () => $listeners.delete($value);
    },
  };
  for (const [$property, $fields, $gen = $property] of $schema) $app[$property] = $collection($gen, $fields);
  return $app;
}

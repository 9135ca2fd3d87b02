// Drives the generated app.js in the folder given as the argument. Exits non-zero on a failure.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(process.argv[2] + "/");
const { open, VudoError } = await import(new URL("app.js", folder));
const refused = (code, subject) => (error) =>
  error instanceof VudoError && error.code === code && error.message.includes(subject);

const alicePhone = await open({ replica: new Uint8Array(32).fill(1), now: () => 1_700_000_000_000 });
const laptop = await open();

// A document, its registers and its counter.
const user = alicePhone.User.create("alice");
assert.equal(user.key, "alice");
assert.equal(user.name, undefined);
user.name = "Alice 🦎";
user.addReputation(5n);
user.addReputation(-2n);
assert.equal(user.name, "Alice 🦎");
assert.equal(user.reputation, 3n);
user.id = "a-1";
assert.throws(() => (user.id = "a-2"), refused("immutable", "User.id.set alice"));
assert.throws(() => alicePhone.User.create("alice"), refused("already_exists", "User.create alice"));
assert.throws(() => (user.name = 7), refused("type_mismatch", "User.name"));
assert.throws(() => (user.name = "\ud800"), refused("type_mismatch", "User.name."));
assert.throws(() => user.addReputation(5), refused("type_mismatch", "User.reputation"));
assert.throws(() => user.addReputation(2n ** 63n), refused("type_mismatch", "User.reputation"));
assert.throws(() => (user.reputation = 5n), TypeError);

// Types that JavaScript has no type for.
const sample = alicePhone.Sample.create("one");
for (const [property, right, wrong] of [
  ["safe", 2 ** 53 - 1, 2 ** 53],
  ["safe", -(2 ** 53 - 1), 0.5],
  ["natural", 0, -1],
  ["byte", 255, 256],
  ["short", -32768, 32768],
  ["large", 2n ** 64n - 1n, 2n ** 64n],
  ["large", 0n, -1n],
  ["signed", -(2n ** 63n), 2n ** 63n],
  ["flag", true, 1],
  ["ratio", -0.1, "0.1"],
  ["coarse", 0.5, null],
]) {
  sample[property] = right;
  assert.equal(sample[property], right, property);
  assert.throws(() => (sample[property] = wrong), refused("type_mismatch", property));
  assert.equal(sample[property], right, property);
}
const photo = new Uint8Array([0, 255, 7]);
sample.photo = photo;
assert.deepEqual(sample.photo, photo);
assert.throws(() => (sample.photo = [1, 2]), refused("type_mismatch", "photo"));
sample.token = new Uint8Array(16).fill(9);
assert.equal(sample.token.length, 16);
assert.throws(() => (sample.token = photo), refused("type_mismatch", "token"));
sample.at = Date.UTC(2026, 0, 1);
assert.equal(new Date(sample.at).getUTCFullYear(), 2026);
sample.coarse = 0.1;
assert.equal(sample.coarse, Math.fround(0.1));
assert.equal(sample.greeting, "hello");
sample.addLevelCount(7);
assert.equal(sample.level_count, 7);
assert.throws(() => sample.addLevelCount(4), refused("out_of_bounds", "level_count"));

// Names that JavaScript or the app itself uses.
assert.equal(sample.delete_, undefined);
sample.delete_ = "field";
sample.constructor_ = "field";
sample.type = "field";
sample.__proto___ = "field";
assert.equal(sample.__proto___, "field");
assert.equal(alicePhone.merge_.keys().length, 0);
assert.equal(alicePhone.chat_message.create("m").key, "m");

// Two stores.
laptop.merge(alicePhone.changesSince());
const there = laptop.User.get("alice");
assert.equal(there.name, "Alice 🦎");
there.name = "Bob";
there.addReputation(10n);
user.addReputation(1n);
alicePhone.merge(laptop.changesSince(alicePhone.version()));
laptop.merge(alicePhone.changesSince(laptop.version()));
assert.deepEqual([user.name, user.reputation], ["Bob", 14n]);
assert.deepEqual([there.name, there.reputation], ["Bob", 14n]);
assert.deepEqual(laptop.version(), alicePhone.version());
assert.equal(laptop.User.get("nobody"), undefined);
assert.deepEqual(laptop.User.keys(), ["alice"]);
assert.deepEqual(laptop.User.all().map((found) => found.name), ["Bob"]);
const damaged = alicePhone.changesSince();
damaged[damaged.length >> 1] ^= 1;
assert.throws(() => laptop.merge(damaged), refused("malformed", "merge"));
assert.throws(() => laptop.changesSince(new Uint8Array([9])), refused("malformed", "changes_since"));

// Transactions and subscriptions.
let calls = 0;
const end = laptop.subscribe(() => calls++);
const returned = laptop.transaction(() => {
  there.name = "Carol";
  there.addReputation(1n);
  assert.equal(there.reputation, 15n);
  return "done";
});
assert.deepEqual([returned, calls, there.name], ["done", 1, "Carol"]);
const failing = () =>
  laptop.transaction(() => {
    there.name = "Dave";
    throw new Error("no");
  });
assert.throws(failing, /no/);
assert.deepEqual([there.name, calls], ["Carol", 1]);
assert.throws(() => laptop.transaction(async () => {}), TypeError);
assert.throws(
  () => laptop.transaction(() => laptop.transaction(() => {})),
  refused("transaction_open", "begin"),
);
there.name = "Erin";
assert.equal(calls, 2);
end();
there.delete();
assert.equal(calls, 2);
assert.equal(there.exists, false);
assert.throws(() => there.name, refused("not_found", "User.name."));

// Where the module comes from elsewhere: bytes, or a compiled module that workers share.
const bytes = await readFile(new URL("my%20app%20%231.wasm", folder));
const shared = await WebAssembly.compile(bytes);
for (const wasm of [bytes, shared]) {
  const store = await open({ wasm });
  assert.deepEqual(store.User.keys(), []);
}
console.log("all passed");

// Every strategy through the JavaScript that the compiler writes.
//
//     node strategies.mjs           or, in a page: the default export
import { open, VudoError } from "./app.js";

// Node's `assert` is not there in a page.
const same = (left, right) => {
  if (Object.is(left, right)) return true;
  if (typeof left != "object" || typeof right != "object" || !left || !right) return false;
  if (left.constructor != right.constructor) return false;
  const entries = (of) => (of instanceof Map ? [...of] : Object.entries(of));
  const [one, two] = [entries(left), entries(right)];
  return one.length == two.length && one.every(([key, value], at) => same(key, two[at][0]) && same(value, two[at][1]));
};
const fail = (what) => {
  throw new Error(what);
};
const assert = {
  ok: (holds) => holds || fail("it does not hold"),
  equal: (left, right) => same(left, right) || fail(`${String(left)} is not ${String(right)}`),
  deepEqual: (left, right) => same(left, right) || fail(`${String(left)} is not ${String(right)}`),
  throws(run, wanted) {
    let error;
    try {
      run();
    } catch (thrown) {
      error = thrown;
    }
    const fits = wanted.code ? error instanceof VudoError && error.code == wanted.code : wanted.test(error);
    fits || fail(`it threw ${error}, not ${JSON.stringify(wanted)}`);
  },
};

export default async function run() {
  const replica = (number) => new Uint8Array(32).fill(number);
  let time = 1_700_000_000_000;
  const now = () => time++;
  const [one, two] = await Promise.all(
    [1, 2].map((number) => open({ replica: replica(number), founder: replica(1), now })),
  );
  const meet = () => {
    const frames = [one, two].map((app) => app.changesSince());
    one.merge(frames[1]);
    two.merge(frames[0]);
  };

  const milk = one.Item.create("milk");
  assert.equal(milk.title.length, 0);
  assert.equal(milk.colour, "Red");
  assert.deepEqual(milk.sizes, [1.5, 2]);
  meet();
  const same = two.Item.get("milk");

  // Registers that keep all values.
  milk.title = "Milk";
  same.title = "Milch";
  milk.rating = 4;
  meet();
  assert.deepEqual([...milk.title].sort(), ["Milch", "Milk"]);
  assert.deepEqual(same.title, milk.title);
  milk.title = "Both";
  assert.deepEqual(milk.title, ["Both"]);

  // Counters.
  milk.addSeen(3n);
  same.addSeen(4n);
  assert.throws(() => milk.addSeen(-1n), { code: "out_of_bounds" });
  milk.addSmall(200);
  assert.throws(() => milk.addSmall(1), { code: "out_of_bounds" });
  assert.equal(milk.rightsOfSeats(true), 40n);
  assert.equal(same.rightsOfSeats(true), 0n);
  assert.throws(() => same.addSeats(1n), { code: "no_rights" });
  milk.giveSeats(replica(2), true, 15n);
  milk.addSeats(20n);
  meet();
  assert.equal(milk.seen, 7n);
  same.addSeats(15n);
  assert.throws(() => same.addSeats(1n), { code: "no_rights" });
  meet();
  assert.equal(milk.seats, 35n);

  // Sets: adding wins.
  milk.tags.add("a");
  milk.tags.add("b");
  meet();
  milk.tags.delete("b");
  same.tags.delete("a");
  milk.tags.add("a");
  same.tags.add("größe");
  meet();
  assert.deepEqual([...milk.tags], ["a", "größe"]);
  assert.deepEqual([...same.tags], [...milk.tags]);
  assert.equal(milk.tags.size, 2);
  assert.ok(milk.tags.has("a") && !milk.tags.has("b"));
  milk.numbers.add(-5n);
  milk.numbers.add(9007199254740993n);
  assert.ok(milk.numbers.has(9007199254740993n));
  assert.throws(() => milk.tags.add(1), { code: "type_mismatch" });

  // Maps by the strategy of their values.
  milk.notes.set("price", "1.20");
  same.notes.set("price", "1.30");
  milk.stock.add("Red", 3);
  same.stock.add("Green", 4);
  milk.opinions.set("ada", "Red");
  same.opinions.set("ada", "Blue");
  meet();
  assert.equal(milk.notes.get("price"), "1.30");
  assert.deepEqual([...milk.stock], [["Red", 3], ["Green", 4]]);
  assert.deepEqual([...milk.opinions.get("ada")].sort(), ["Blue", "Red"]);
  milk.stock.delete("Red");
  assert.equal(milk.stock.has("Red"), false);
  assert.equal(milk.stock.size, 1);
  assert.equal(milk.notes.get("none"), undefined);

  // Values with parts.
  milk.colour = "Green";
  milk.pair = [-3n, "x"];
  milk.due = null;
  assert.equal(milk.due, null);
  milk.due = 1_700_000_000_000;
  milk.home = { number: 7, street: "Main" };
  milk.parent = "tea";
  milk.levels = new Map([["top", 18446744073709551615n]]);
  milk.sizes = [-0, Number.NaN, 2.5];
  milk.other = new Uint8Array([8 << 2 | 3, 1, 65]);
  assert.deepEqual(milk.pair, [-3n, "x"]);
  assert.equal(milk.due, 1_700_000_000_000);
  assert.deepEqual(milk.home, { street: "Main", number: 7 });
  assert.deepEqual(milk.levels, new Map([["top", 18446744073709551615n]]));
  assert.deepEqual(milk.sizes, [0, Number.NaN, 2.5]);
  assert.deepEqual([...milk.other], [35, 1, 65]);
  assert.throws(() => (milk.colour = "Pink"), { code: "type_mismatch" });
  assert.throws(() => (milk.home = { number: 3e9 }), { code: "type_mismatch" });
  assert.throws(() => (milk.pair = [1n]), { code: "type_mismatch" });
  meet();
  assert.deepEqual(same.home, milk.home);

  // One change for several writes, and none for a transaction that fails.
  const before = one.version();
  assert.throws(() => one.transaction(() => {
    milk.tags.add("lost");
    throw new Error("no");
  }), /no/);
  assert.deepEqual(one.version(), before);
  assert.equal(milk.tags.has("lost"), false);
  return { frame: Array.from(one.changesSince()) };
}

if (globalThis.process?.argv) console.log(JSON.stringify(await run()));

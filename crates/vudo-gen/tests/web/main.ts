// A sample project over `item.dol`: what it says about types is checked by tsc, what it does by
// running it.
import { open, VudoError, type App, type ErrorCode, type Item, type Names } from "./app.js";

const fail = (what: string): never => {
  throw new Error(what);
};
const expect = (holds: boolean, what: string): true => holds || fail(what);

export default async function run(): Promise<{ shown: string }> {
  const founder = new Uint8Array(32).fill(1);
  const app: App = await open({ replica: founder, founder, now: () => 1_700_000_000_000 });
  const milk: Item = app.Item.create("milk");

  // Registers: of text, of enums with what later versions add, of parts.
  milk.id = "m-1";
  const id: string | undefined = milk.id;
  milk.colour = "Green";
  const colour: "Red" | "Green" | "Blue" | number = milk.colour;
  milk.pair = [7n, "seven"];
  const pair: readonly [bigint, string] | undefined = milk.pair;
  milk.due = null;
  const due: number | null | undefined = milk.due;
  milk.home = { street: "Main", number: 7 };
  const street: string | undefined = milk.home?.street;
  milk.levels = new Map([["top", 3n]]);
  const sizes: readonly number[] = milk.sizes;
  milk.title = "Milk";
  const titles: readonly string[] = milk.title;
  // @ts-expect-error: a number is no text.
  (() => (milk.id = 7));
  // @ts-expect-error: there is no such variant.
  (() => (milk.colour = "Pink"));
  // @ts-expect-error: i64 is a bigint.
  (() => (milk.pair = [7, "seven"]));

  // Counters.
  milk.addVotes(2n);
  const votes: bigint = milk.votes;
  milk.addSmall(200);
  const small: number = milk.small;
  milk.addSeats(3n);
  const rights: bigint = milk.rightsOfSeats(true);
  milk.giveSeats(new Uint8Array(32).fill(2), true, 5n);
  // @ts-expect-error: counters are added to.
  (() => (milk.votes = 5n));
  const code = ((): ErrorCode | undefined => {
    try {
      milk.addSmall(100);
    } catch (error) {
      return error instanceof VudoError ? error.code : undefined;
    }
    return undefined;
  })();

  // Sets and maps.
  milk.tags.add("fresh");
  const tags: string[] = [...milk.tags];
  milk.notes.set("price", "1.20");
  const price: string | undefined = milk.notes.get("price");
  milk.stock.add("Red", 3);
  const stock: [("Red" | "Green" | "Blue" | number), number][] = [...milk.stock];
  milk.opinions.set("ada", "Blue");
  const opinions = milk.opinions.get("ada") ?? [];
  // @ts-expect-error: the set has texts.
  (() => milk.tags.add(7));
  // @ts-expect-error: counters of a map are added to.
  (() => milk.stock.set("Red", 3));

  // Names that JavaScript uses get an underscore where it would be confused by them.
  const names: Names = app.Names.create("one");
  names.type = "t";
  names.gen = 7n;
  names.ref = "r";
  names.constructor_ = "c";
  names.__proto___ = "p";
  names.delete_.add(4);
  names.addKey(1n);

  expect(id === "m-1" && colour === "Green" && pair?.[1] === "seven" && due === null, "registers");
  expect(street === "Main" && milk.levels?.get("top") === 3n && sizes.length === 2, "parts");
  expect(titles[0] === "Milk" && votes === 2n && small === 200 && rights === 37n, "counters");
  expect(code === "out_of_bounds" && milk.rightsOfSeats(true) === 32n, "bounds");
  expect(tags[0] === "fresh" && price === "1.20" && stock[0]?.[1] === 3, "collections");
  expect(opinions[0] === "Blue" && milk.tags.size === 1, "opinions");
  const shown = [names.type, names.gen, names.ref, names.constructor_, names.__proto___].join(" ");
  expect(Object.getPrototypeOf(names) !== "p" && names.exists, "names");
  return { shown: `${shown} ${[...names.delete_]}` };
}

// Writes Yjs as a page would load it: in one file, minified, without what is not used.
//
//     node yjs_bundle.mjs FILE
import { build } from "esbuild-wasm";

// What it takes to do the work of our module: keep a document, and exchange it with others.
const contents = `
  export { Doc, applyUpdate, encodeStateAsUpdate, encodeStateVector } from "yjs";
`;

await build({
  stdin: { contents, resolveDir: import.meta.dirname },
  outfile: process.argv[2],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  define: { "process.env.NODE_ENV": '"production"' },
});

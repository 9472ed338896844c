// The kernel of runtime deno.

import process from "node:process";

import { serve } from "./javascript.mjs";

const { inspect } = Deno;
const { stdout, stderr } = Deno;
const writers = { 1: stdout.writeSync.bind(stdout), 2: stderr.writeSync.bind(stderr) };
const encoder = new TextEncoder();
const encode = encoder.encode.bind(encoder);
const queue = queueMicrotask;

function write(descriptor, text) {
  let data = encode(text);
  while (data.length > 0) data = data.subarray(writers[descriptor](data));
}

/** Serve calls. `importer` is a function of the main module, from whose place Deno resolves what is imported. */
export function start(importer) {
  serve({
    name: "deno",
    folder: Deno.cwd(),
    importer,
    write,
    inspect: (value) => inspect(value, { colors: false, depth: 4 }),
    // Terminated inside a callback of the event loop, Deno would end; inside a microtask it goes on.
    callTimer: (callback) => queue(callback),
    ignoreInterrupts: () => Deno.addSignalListener("SIGINT", () => {}),
    replaceExit(leave) {
      const exit = (code = Deno.exitCode) => {
        Deno.exitCode = 0;
        leave(Number(code ?? 0) & 0xff);
      };
      Deno.exit = exit;
      process.exit = (code) => exit(code ?? process.exitCode);
    },
    onUncaught(report) {
      addEventListener("error", (event) => {
        event.preventDefault();
        report(event.error, false);
      });
      addEventListener("unhandledrejection", (event) => {
        event.preventDefault();
        report(event.reason, true);
      });
    },
  });
}

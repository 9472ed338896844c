// The kernel of runtime deno.

import process from "node:process";

import { serve } from "./javascript.mjs";

const { inspect } = Deno;
const queue = queueMicrotask;
const READ_BYTES = 1024 * 1024;
const READ_FAILURES = 100;

// Deno itself reads and writes no descriptor that it has not opened, and has nothing of the kind but for its streams,
// which are made of much that user code may replace.
const library = Deno.dlopen("libc.so.6", {
  read: { parameters: ["i32", "buffer", "usize"], result: "isize", nonblocking: true },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
});
const { read: readSome, write: writeSome } = library.symbols;
const { exit } = Deno;
const subarray = Function.prototype.call.bind(Uint8Array.prototype.subarray);
const slice = Function.prototype.call.bind(Uint8Array.prototype.slice);
const Failure = Error;

async function read(descriptor, onData) {
  const landing = new Uint8Array(READ_BYTES);
  for (let failures = 0; failures < READ_FAILURES; ) {
    const size = Number(await readSome(descriptor, landing, READ_BYTES));
    if (size === 0) break;
    // A read that was under way in a checkpoint fails, as one that a signal interrupts.
    failures = size < 0 ? failures + 1 : 0;
    if (size > 0) onData(slice(landing, 0, size));
  }
  exit(0);
}

function write(descriptor, data) {
  for (let rest = data; rest.length > 0; ) {
    const size = Number(writeSome(descriptor, rest, rest.length));
    if (size <= 0) throw new Failure(`descriptor ${descriptor} cannot be written`);
    rest = subarray(rest, size);
  }
}

/** Serve calls. `importer` is a function of the main module, from whose place Deno resolves what is imported. */
export function start(importer) {
  serve({
    folder: Deno.cwd(),
    importer,
    read,
    write,
    inspect: (value) => inspect(value, { strAbbreviateSize: Infinity }),
    // Terminated inside a callback of the event loop, Deno would end; inside a microtask it goes on.
    callTimer: (callback) => queue(callback),
    ignoreInterrupts: () => Deno.addSignalListener("SIGINT", () => {}),
    replaceExit(leave) {
      Deno.exit = process.exit = (code) => {
        const exitCode = code ?? Deno.exitCode;
        Deno.exitCode = 0;
        leave(Number(exitCode) & 0xff);
      };
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

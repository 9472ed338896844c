// The kernel of runtime nodejs.

import { writeSync } from "node:fs";
import { Socket } from "node:net";
import { inspect } from "node:util";
import vm from "node:vm";

import { serve } from "./javascript.mjs";

const folder = process.cwd();
const exit = process.exit.bind(process);

/** Imports as a module in the working folder would; Node tells from the name of the script what folder that is. */
const importer = new vm.Script("(specifier, options) => import(specifier, options)", {
  filename: `${folder}/cell.mjs`,
  importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
}).runInThisContext();

/** Writes wait until they are done: what was printed is out before the answer is, and floods are held back. */
function blockOutput() {
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
}

function write(descriptor, data) {
  for (let written = 0; written < data.length; ) written += writeSync(descriptor, data, written);
}

function read(descriptor, onData) {
  const socket = new Socket({ fd: descriptor, readable: true, writable: false });
  // Its own, as node:net looks for them when data comes.
  for (const name of ["push", "emit", "read", "_read"]) socket[name] = socket[name];
  socket.on("data", onData);
  socket.on("end", () => exit(0));
}

blockOutput();
// As of a script: nothing of the kernel's in them.
process.argv = [process.execPath, `${folder}/cell.js`];
process.execArgv = [];

serve({
  folder,
  importer,
  read,
  write,
  inspect: (value) => inspect(value, { maxStringLength: Infinity }),
  callTimer: (callback) => callback(),
  ignoreInterrupts: () => process.on("SIGINT", () => {}),
  replaceExit(leave) {
    process.exit = (code) => {
      const exitCode = code ?? process.exitCode ?? 0;
      process.exitCode = undefined;
      leave(Number(exitCode) & 0xff);
    };
  },
  onUncaught(report) {
    process.on("uncaughtException", (error) => report(error, false));
    process.on("unhandledRejection", (error) => report(error, true));
  },
});

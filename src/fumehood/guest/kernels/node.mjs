// The kernel of runtime nodejs.

import { writeSync } from "node:fs";
import { inspect } from "node:util";
import vm from "node:vm";

import { serve } from "./javascript.mjs";

const folder = process.cwd();

/** Imports as a module in the working folder would; Node tells from the name of the script what folder that is. */
const importer = new vm.Script("(specifier, options) => import(specifier, options)", {
  filename: `${folder}/cell.mjs`,
  importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
}).runInThisContext();

/** Writes wait until they are done: what was printed is out before the answer is, and floods are held back. */
function blockOutput() {
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
}

const { from } = Buffer;

function write(descriptor, text) {
  const data = from(text);
  for (let written = 0; written < data.length; ) written += writeSync(descriptor, data, written);
}

blockOutput();
// As of a script: nothing of the kernel's in them.
process.argv = [process.execPath, `${folder}/cell.js`];
process.execArgv = [];

serve({
  name: "nodejs",
  folder,
  importer,
  write,
  inspect: (value) => inspect(value),
  callTimer: (callback) => callback(),
  ignoreInterrupts: () => process.on("SIGINT", () => {}),
  replaceExit(leave) {
    process.exit = (code = process.exitCode) => {
      process.exitCode = undefined;
      leave(Number(code ?? 0) & 0xff);
    };
  },
  onUncaught(report) {
    process.on("uncaughtException", (error) => report(error, false));
    process.on("unhandledRejection", (error) => report(error, true));
  },
});

// A JavaScript kernel: cells of JavaScript and TypeScript, run one after another in one V8 realm whose state stays.
//
// node.mjs and deno.mjs say what differs between the two runtimes; everything else is here. A cell is evaluated by V8's
// own inspector in its REPL mode: declarations can be made anew, `await` works at the top level, and the last
// expression has a value.
//
// User code shares the realm and may replace whatever it reaches. What is needed between cells is therefore bound
// here, before any of it runs.

import { Session, open, url } from "node:inspector";
import { Socket } from "node:net";
import { createRequire } from "node:module";
import { Buffer } from "node:buffer";
import { isPromise } from "node:util/types";

import { Cell, CellSyntaxError, describeFrame, forgetCell } from "./cell.mjs";
import { trackTimers } from "./timers.mjs";

const REQUESTS = 3;
const RESULTS = 4;
/** What a cell left in timers may keep its call waiting at most, once the cell itself is done. */
const TIMERS_WAIT_MILLISECONDS = 5_000;
/** Earlier cells whose lines stack traces still have right. */
const CELLS_KEPT = 500;
const GLOBAL_NAME = "__kernel__";

const { parse, stringify } = JSON;
const { concat, from } = Buffer;
const uncurry = (method) => Function.prototype.call.bind(method);
const readSize = uncurry(Buffer.prototype.readUInt32BE);
const writeSize = uncurry(Buffer.prototype.writeUInt32BE);
const slice = uncurry(Buffer.prototype.subarray);
const decode = uncurry(Buffer.prototype.toString);
const then = uncurry(Promise.prototype.then);
const errorText = uncurry(Error.prototype.toString);
const { setTimeout, setImmediate } = globalThis;
const { now } = Date;

/**
 * Serve calls until the agent closes the pipe.
 *
 * `runtime` has what differs: `name`; `importer`, which imports as a module in the working folder would; `folder`, that
 * folder; `inspect(value)`; `write(descriptor, text)`; `replaceExit(leave)`, which has `leave(code)` called where the
 * process would end; `onUncaught(report)`, which has `report(error, inPromise)` called where it would end of an error;
 * `callTimer(callback)`, which calls what a timer is for; and `ignoreInterrupts()`.
 */
export function serve(runtime) {
  const timers = trackTimers(runtime.callTimer);
  const requests = new Requests(onMessage);
  const results = openResults();
  const cells = [];
  let session = connect();
  let count = 0;
  /** The call that runs: `id`, `exitCode`, whether its code has `begun`, and how long it is `waiting` for timers. */
  let call;
  let kept;

  function connect() {
    const made = new Session();
    made.connect();
    const { post } = made;
    return { post: post.bind(made), disconnect: made.disconnect.bind(made) };
  }

  function onMessage(message) {
    if (message.op === "execute") {
      execute(message);
    } else {
      results.send({ id: message.id });
    }
  }

  function execute({ id, code, language }) {
    const mine = (call = { id, exitCode: 0, begun: false, waiting: undefined, interrupted: false });
    timers.startCall();
    let cell;
    try {
      cell = new Cell(code, language, ++count);
    } catch (error) {
      if (!(error instanceof CellSyntaxError)) throw error;
      fail(mine, error.message);
      return answer(mine);
    }
    cells.push(cell.name);
    if (cells.length > CELLS_KEPT) forgetCell(cells.shift());
    evaluate(mine, cell);
  }

  function evaluate(mine, cell) {
    const expression = cell.source;
    session.post("Runtime.evaluate", { expression, replMode: true, objectGroup: "cell" }, (error, response) => {
      // An error is of what was terminated: whoever did that has its own answer on the way.
      if (mine !== call || error) return;
      const { result, exceptionDetails } = response;
      if (exceptionDetails === undefined) return settle(mine, valueOf(result));
      if (mine.begun) return failWith(mine, valueOf(exceptionDetails.exception), "Uncaught ");
      const { message } = valueOf(exceptionDetails.exception);
      if (cell.reconsider(message)) return evaluate(mine, cell);
      fail(mine, cell.describeSyntaxError(exceptionDetails, message));
      answer(mine);
    });
  }

  /** The value that the inspector describes. */
  function valueOf(described) {
    if (described.objectId === undefined) {
      return described.unserializableValue === undefined ? described.value : new Literal(described.unserializableValue);
    }
    kept = undefined;
    session.post("Runtime.callFunctionOn", {
      objectId: described.objectId,
      functionDeclaration: `function () { "use strict"; ${GLOBAL_NAME}.keep(this); }`,
    });
    session.post("Runtime.releaseObjectGroup", { objectGroup: "cell" });
    const value = kept;
    kept = undefined;
    return value;
  }

  /** The cell is done; a promise that is its value is waited for, as what models write ends with `main()`. */
  function settle(mine, value) {
    if (!isPromise(value)) return echo(mine, value);
    then(
      value,
      (result) => mine === call && echo(mine, result),
      (error) => mine === call && failWith(mine, error, "Uncaught (in promise) "),
    );
  }

  function echo(mine, value) {
    if (value !== undefined && !timers.isPending(value)) {
      try {
        runtime.write(1, `${value instanceof Literal ? value.text : runtime.inspect(value)}\n`);
      } catch (error) {
        return failWith(mine, error, "The value cannot be shown: ");
      }
    }
    awaitTimers(mine);
  }

  function failWith(mine, error, heading) {
    fail(mine, heading + describe(error));
    awaitTimers(mine);
  }

  function fail(mine, text) {
    mine.exitCode = 1;
    try {
      runtime.write(2, `${text}\n`);
    } catch {
      // Its stderr is closed or full: the exit code says it.
    }
  }

  function describe(error) {
    try {
      return error instanceof Literal ? error.text : runtime.inspect(error);
    } catch {
      return "an error that cannot be shown";
    }
  }

  function awaitTimers(mine) {
    mine.waiting ??= now() + TIMERS_WAIT_MILLISECONDS;
    const left = timers.millisecondsLeft(mine.waiting);
    if (left === undefined) {
      // One turn of the event loop, in which rejections nobody handled are reported.
      setImmediate(() => answer(mine));
    } else {
      setTimeout(() => mine === call && awaitTimers(mine), left);
    }
  }

  function answer(mine) {
    if (mine !== call) return;
    call = undefined;
    results.send({ id: mine.id, exit_code: mine.exitCode });
  }

  /** The call's end by `exit`: nothing of the cell runs on, not even its `finally`. */
  function leave(code) {
    const mine = call;
    if (mine === undefined) return;
    mine.exitCode = code;
    setImmediate(() => end(mine));
    session.post("Runtime.terminateExecution");
    // V8 looks whether it is to terminate when a loop starts again.
    for (;;);
  }

  function end(mine) {
    if (mine !== call) return;
    // What was terminated never settles. Its promise would tell the session when it is collected as garbage, when no
    // code may run.
    session.disconnect();
    session = connect();
    answer(mine);
  }

  /** Asked by the agent over the inspector's socket. True once that call is over; until then, it may terminate it. */
  function interrupt(id) {
    const mine = call;
    if (mine?.id !== id) return true;
    if (!mine.interrupted) {
      mine.interrupted = true;
      mine.exitCode = 1;
      setImmediate(() => end(mine));
    }
    return false;
  }

  const hooks = {
    import: runtime.importer,
    importNames: (specifier, names, options) => importNames(runtime.importer, specifier, names, options),
    meta: metaOf(runtime),
    keep: (value) => (kept = value),
    interrupt,
    get begun() {
      if (call !== undefined) call.begun = true;
      return undefined;
    },
  };
  Object.defineProperty(globalThis, GLOBAL_NAME, { value: Object.freeze(hooks) });
  defineModuleGlobals(runtime.folder);
  Error.prepareStackTrace = prepareStackTrace;
  runtime.replaceExit(leave);
  runtime.ignoreInterrupts();
  runtime.onUncaught((error, inPromise) => {
    const mine = call ?? { exitCode: 0 };
    fail(mine, (inPromise ? "Uncaught (in promise) " : "Uncaught ") + describe(error));
  });
  open(0, "127.0.0.1");
  results.send({ inspector: url() });
}

/** The text of a value that JSON has no form for: -0, NaN, 10n. */
class Literal {
  constructor(text) {
    this.text = text;
  }
}

/** Messages from the agent, 4 bytes of length and that much JSON each. */
class Requests {
  #received = from("");

  constructor(onMessage) {
    const socket = new Socket({ fd: REQUESTS, readable: true, writable: false });
    socket.on("data", (data) => {
      this.#received = this.#received.length === 0 ? data : concat([this.#received, data]);
      for (let message = this.#next(); message !== undefined; message = this.#next()) onMessage(message);
    });
  }

  #next() {
    if (this.#received.length < 4) return undefined;
    const end = 4 + readSize(this.#received, 0);
    if (this.#received.length < end) return undefined;
    const message = parse(decode(this.#received, "utf8", 4, end));
    this.#received = slice(this.#received, end);
    return message;
  }
}

function openResults() {
  const socket = new Socket({ fd: RESULTS, readable: false, writable: true });
  const write = socket.write.bind(socket);
  return {
    send(message) {
      const text = from(stringify(message));
      const size = from("....");
      writeSize(size, text.length, 0);
      write(concat([size, text]));
    },
  };
}

/** What a script has beside the globals of modules: `require` and the rest of CommonJS. */
function defineModuleGlobals(folder) {
  const filename = `${folder}/cell.js`;
  const module = { exports: {}, id: ".", filename, path: folder, loaded: false, children: [], paths: [] };
  const require = createRequire(filename);
  require.main = module;
  module.require = require;
  const globals = { require, module, exports: module.exports, __filename: filename, __dirname: folder };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
}

function metaOf({ folder }) {
  const filename = `${folder}/cell.mjs`;
  const url = `file://${filename}`;
  const { resolve } = createRequire(filename);
  return { url, filename, dirname: folder, main: true, resolve: (specifier) => new URL(resolve(specifier), url).href };
}

/** `import {a, b} from …`: the module's exports by these names, or those of the CommonJS module that it stands for. */
async function importNames(importer, specifier, names, options) {
  const module = await importer(specifier, options);
  const found = {};
  for (const name of names) {
    if (name in module) found[name] = module[name];
    else if (module.default != null && name in Object(module.default)) found[name] = module.default[name];
    else throw new SyntaxError(`The requested module '${specifier}' does not provide an export named '${name}'`);
  }
  return found;
}

function prepareStackTrace(error, frames) {
  let heading;
  try {
    heading = errorText(error);
  } catch {
    heading = "Error";
  }
  const lines = [];
  for (const frame of frames) {
    const line = describeFrame(frame);
    if (line !== undefined) lines.push(`\n    at ${line}`);
  }
  return heading + lines.join("");
}

// A JavaScript kernel: cells of JavaScript and TypeScript, run one after another in one V8 realm whose state stays.
//
// node.mjs and deno.mjs say what differs between the two runtimes; everything else is here. A cell is evaluated by V8's
// own inspector in its REPL mode: declarations can be made anew, `await` works at the top level, and the last
// expression has a value.
//
// User code shares the realm and may replace whatever it reaches. What is needed between cells is therefore bound
// here, before any of it runs.

import { Session, open, url } from "node:inspector";
import { createRequire } from "node:module";
import process from "node:process";
import { getCallSites as callSites } from "node:util";
import { isPromise } from "node:util/types";
import v8 from "node:v8";

import { Cell, CellSyntaxError, describeFrame } from "./cell.mjs";
import { trackTimers } from "./timers.mjs";

// The first is loaded (runtimes.py), and is not for the programs that code starts.
const [, ...preloaded] = process.env.LD_PRELOAD.split(":").filter(Boolean);
if (preloaded.length) process.env.LD_PRELOAD = preloaded.join(":");
else delete process.env.LD_PRELOAD;

const REQUESTS = 3;
const RESULTS = 4;
/** What a cell left in timers may keep its call waiting at most, once the cell itself is done. */
const TIMERS_WAIT_MILLISECONDS = 5_000;
/** Of `interrupt`, and of what the inspector evaluates to call it. */
const OWN_FRAMES = 2;
const GLOBAL_NAME = "__kernel__";

const { parse, stringify } = JSON;
const uncurry = (method) => Function.prototype.call.bind(method);
const encode = ((encoder) => encoder.encode.bind(encoder))(new TextEncoder());
const decode = ((decoder) => decoder.decode.bind(decoder))(new TextDecoder());
const Bytes = Uint8Array;
const subarray = uncurry(Bytes.prototype.subarray);
const copyInto = uncurry(Bytes.prototype.set);
const onPromise = v8.promiseHooks.onInit;
const then = uncurry(Promise.prototype.then);
const errorText = uncurry(Error.prototype.toString);
const { setTimeout, setImmediate } = globalThis;
const { now } = Date;

/**
 * Serve calls until the agent closes the pipe. `runtime` has what differs:
 *
 * - `folder`: the working folder; `importer(specifier, options)`: imports as a module in it would
 * - `inspect(value)`: the value as text
 * - `read(descriptor, onData)`: calls `onData(bytes)` with what comes, and ends the process when nothing more will
 * - `write(descriptor, bytes)`: writes all of it before it returns
 * - `replaceExit(leave)`: has `leave(code)` called where user code ends the process
 * - `onUncaught(report)`: has `report(error, inPromise)` called where an error would end it
 * - `ignoreInterrupts()`: has SIGINT, which is for the programs that user code runs, not end it
 * - `callTimer(callback)`: calls what a timer is for
 */
export function serve(runtime) {
  const timers = trackTimers(runtime.callTimer);
  const send = sender(runtime);
  let session = connect();
  let count = 0;
  /** The call that runs: `id`, `exitCode`, its `evaluation`, until when it is `waiting` for timers, and `interrupted`. */
  let call;

  function connect() {
    const made = new Session();
    made.connect();
    const { post } = made;
    return { post: post.bind(made), disconnect: made.disconnect.bind(made) };
  }

  function onMessage(message) {
    if (message.op !== "execute") return send({ id: message.id });
    const mine = (call = {
      id: message.id,
      exitCode: 0,
      evaluation: undefined,
      waiting: undefined,
      interrupted: false,
    });
    guard(mine, () => {
      timers.startCall();
      evaluate(mine, new Cell(message.code, message.language, ++count));
    });
  }

  /** Do a part of a call's work; what goes wrong in it, as where user code replaced what all code uses, ends the call. */
  function guard(mine, work) {
    if (mine !== call) return;
    try {
      work();
    } catch (error) {
      fail(mine, error instanceof CellSyntaxError ? error.message : describe(error));
      answer(mine);
    }
  }

  function evaluate(mine, cell) {
    // The first promise that V8 makes is the evaluation itself, the second its first `await`. What the inspector would tell of it is left aside: that is
    // a description, and a promise that is collected as garbage would be told at a time when no code may run.
    const expression = cell.source;
    let evaluation;
    let begun = false;
    let failure;
    let posted = false;
    function considerFailure() {
      if (!begun && failure !== undefined) guard(mine, () => reconsider(mine, cell, failure));
    }
    const stop = onPromise((promise) => {
      if (evaluation === undefined) evaluation = promise;
      else begun = true;
    });
    session.post("Runtime.evaluate", { expression, replMode: true, objectGroup: "cell" }, (_, response) => {
      failure = response?.exceptionDetails;
      // Node calls this before `post` returns, Deno afterwards.
      if (posted) considerFailure();
    });
    stop();
    posted = true;
    considerFailure();
    if (!begun) return;
    mine.evaluation = evaluation;
    then(
      evaluation,
      (completion) => guard(mine, () => settle(mine, completion[".repl_result"])),
      (error) => guard(mine, () => failWith(mine, error, "Uncaught ")),
    );
  }

  /** It did not compile as it was read first. */
  function reconsider(mine, cell, details) {
    const { description } = details.exception;
    let told;
    try {
      if (cell.reconsider(description)) return evaluate(mine, cell);
      told = cell.describeSyntaxError(details, description);
    } catch {
      told = description;
    }
    fail(mine, told);
    answer(mine);
  }

  /** The cell is done; a promise that is its value is waited for, as what models write ends with `main()`. */
  function settle(mine, value) {
    if (!isPromise(value)) return echo(mine, value);
    then(
      value,
      (result) => guard(mine, () => echo(mine, result)),
      (error) => guard(mine, () => failWith(mine, error, "Uncaught (in promise) ")),
    );
  }

  function echo(mine, value) {
    if (value !== undefined && !timers.isPending(value)) {
      try {
        runtime.write(1, encode(`${runtime.inspect(value)}\n`));
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
      runtime.write(2, encode(`${text}\n`));
    } catch {
      // Its stderr is closed or full: the exit code says it.
    }
  }

  function describe(error) {
    try {
      return runtime.inspect(error);
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
      setTimeout(() => guard(mine, () => awaitTimers(mine)), left);
    }
  }

  function answer(mine) {
    if (mine !== call) return;
    call = undefined;
    send({ id: mine.id, exit_code: mine.exitCode });
    session.post("Runtime.releaseObjectGroup", { objectGroup: "cell" });
  }

  /** The call's end by `exit`: nothing of the cell runs on, not even its `finally`. */
  function leave(code) {
    const mine = call;
    if (mine === undefined) return;
    mine.exitCode = code;
    // Not in a microtask: those that wait are lost with what is terminated.
    setImmediate(() => end(mine));
    session.post("Runtime.terminateExecution");
    // V8 looks whether it is to terminate when a loop starts again.
    for (;;);
  }

  function end(mine) {
    if (mine !== call) return;
    // What was terminated never settles, and its promise will be collected as garbage: this session must not hear of it.
    session.disconnect();
    session = connect();
    answer(mine);
  }

  /**
   * Asked by the agent over the inspector's socket, perhaps in the middle of other code. "over" once that call is; else
   * it is given up when the event loop comes to it, and "busy" says that code holds the loop up, which only V8 can end.
   */
  function interrupt(id) {
    const mine = call;
    if (mine?.id !== id) return "over";
    if (!mine.interrupted) {
      mine.interrupted = true;
      mine.exitCode = 1;
      setImmediate(() => end(mine));
    }
    return callSites(OWN_FRAMES + 1).length > OWN_FRAMES ? "busy" : "idle";
  }

  const hooks = {
    import: runtime.importer,
    importNames: (specifier, names, options) => importNames(runtime.importer, specifier, names, options),
    meta: metaOf(runtime),
    interrupt,
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
  openRequests(runtime, onMessage);
  open(0, "127.0.0.1");
  send({ inspector: url() });
}

/** Have `onMessage` called with each message from the agent, which is 4 bytes of length and that much JSON. */
function openRequests(runtime, onMessage) {
  let received = new Bytes(0);
  runtime.read(REQUESTS, (data) => {
    received = received.length === 0 ? data : joined(received, data);
    while (received.length >= 4) {
      const end = 4 + received[0] * 2 ** 24 + received[1] * 2 ** 16 + received[2] * 2 ** 8 + received[3];
      if (received.length < end) return;
      const message = parse(decode(subarray(received, 4, end)));
      received = subarray(received, end);
      onMessage(message);
    }
  });
}

/** A function that sends a message to the agent. */
function sender(runtime) {
  return (message) => {
    const data = encode(`....${stringify(message)}`);
    const size = data.length - 4;
    for (let place = 0; place < 4; place++) data[place] = size >>> (24 - 8 * place);
    runtime.write(RESULTS, data);
  };
}

function joined(first, second) {
  const both = new Bytes(first.length + second.length);
  copyInto(both, first, 0);
  copyInto(both, second, first.length);
  return both;
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
  let text = heading;
  for (let index = 0; index < frames.length; index++) {
    const line = describeFrame(frames[index]);
    if (line !== undefined) text += `\n    at ${line}`;
  }
  return text;
}

// A cell: what is sent to V8 for the code of one call, and where its lines are in what the user wrote.

import { SourceMap, stripTypeScriptTypes } from "node:module";

import { rewrite } from "./syntax.mjs";

// The cell then starts in a microtask of its own: no frame of the kernel's is below it, and V8 can terminate it, which
// it could not inside the inspector's call. The value is undefined, as that of a cell of declarations should be.
const PREFIX = "await void 0;";
const ALREADY_DECLARED = /^SyntaxError: Identifier '(.+)' has already been declared/;
const NOT_OF_THE_USER = /^(?:ext:|node:internal\/)/;

const KERNEL_FOLDER = new URL(".", import.meta.url).href;
/** Earlier cells whose lines stack traces have right. */
const CELLS_KEPT = 500;
const cells = new Map();
const [getCell, keepCell, forgetCell] = [cells.get, cells.set, cells.delete].map((method) => method.bind(cells));

/** The code is not of its language; the message says where and why. */
export class CellSyntaxError extends Error {}

export class Cell {
  #code;
  #script;
  #map;
  #prefix = PREFIX;
  #taken = new Set();
  #asObject;

  /** The `number`th cell. CellSyntaxError if its types cannot be removed. */
  constructor(code, language, number) {
    this.name = `cell-${number}.${language === "typescript" ? "ts" : "js"}`;
    this.#code = code;
    this.#script = language === "typescript" ? this.#removeTypes(code) : code;
    // As at a prompt, braces around the whole are an object where they can be one.
    this.#asObject = hasBracesAround(this.#script);
    keepCell(this.name, this);
    forgetCell(`cell-${number - CELLS_KEPT}.js`);
    forgetCell(`cell-${number - CELLS_KEPT}.ts`);
  }

  /** What V8 is to evaluate. */
  get source() {
    const source = this.#asObject ? `(${this.#script}\n)` : this.#script;
    this.#prefix = this.#asObject ? `${PREFIX}(` : PREFIX;
    return `${PREFIX}${rewrite(source, this.#taken)}\n//# sourceURL=${this.name}`;
  }

  /** Whether there is another way to read it, now that V8 says that it does not compile: then `source` is another. */
  reconsider(description) {
    if (this.#asObject) {
      this.#asObject = false;
      return true;
    }
    const name = ALREADY_DECLARED.exec(description)?.[1];
    if (name === undefined || this.#taken.has(name)) return false;
    this.#taken.add(name);
    return true;
  }

  #removeTypes(code) {
    try {
      return stripTypeScriptTypes(code);
    } catch (error) {
      if (error.code !== "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX") throw this.#typeScriptError(error);
    }
    // enum, namespace and parameter properties are no types: they become code, and lines move.
    let transformed;
    try {
      transformed = stripTypeScriptTypes(code, { mode: "transform", sourceMap: true, sourceUrl: this.name });
    } catch (error) {
      throw this.#typeScriptError(error);
    }
    const [source, map] = transformed.split("\n//# sourceMappingURL=data:application/json;base64,");
    if (map !== undefined) this.#map = new SourceMap(JSON.parse(Buffer.from(map, "base64").toString()));
    return source;
  }

  #typeScriptError(error) {
    const place = /stripTypeScriptTypes\.ts:(\d+):(\d+)/.exec(error.message);
    if (place) {
      // Deno's message has the place after a picture of the line.
      const message = error.message.replace(/^SyntaxError: /, "").split("\n")[0];
      return new CellSyntaxError(this.#describe(Number(place[1]), Number(place[2]), `SyntaxError: ${message}`));
    }
    // Node's stack begins with the place, the line and a marker below it.
    const [, line, marker] = /^[^\n]*:(\d+)\n[^]*?\n( *)\^+\n/.exec(error.stack) ?? [];
    const message = `SyntaxError: ${error.message}`;
    if (line === undefined) return new CellSyntaxError(`${this.name}: ${message}`);
    return new CellSyntaxError(this.#describe(Number(line), marker.length + 1, message));
  }

  /** What is wrong with it, and where, from what the inspector says of the exception. */
  describeSyntaxError(details, description) {
    const [message] = description.split("\n");
    const [line, column] = this.place(details.lineNumber + 1, details.columnNumber + 1);
    const hint = this.#code.split("\n")[line - 1]?.[column - 1] === "@" ? " (decorators are not supported)" : "";
    return this.#describe(line, column, `${message}${hint}`);
  }

  #describe(line, column, message) {
    const lines = this.#code.split("\n");
    // An end that came too soon is told of the line after the last one.
    const shown = Math.min(line, lines.length);
    const text = lines[shown - 1];
    const marker = shown === line ? column - 1 : text.length;
    return `${this.name}:${shown}\n${text}\n${" ".repeat(Math.max(marker, 0))}^\n${message}`;
  }

  /** Where in the user's code a place in the evaluated code is; lines and columns count from 1. */
  place(line, column) {
    if (line === 1 && column > this.#prefix.length) column -= this.#prefix.length;
    const entry = this.#map?.findEntry(line - 1, column - 1);
    return entry?.originalLine === undefined ? [line, column] : [entry.originalLine + 1, entry.originalColumn + 1];
  }
}

function hasBracesAround(text) {
  let start = 0;
  let end = text.length - 1;
  while (isSpace(text[start])) start++;
  while (isSpace(text[end])) end--;
  return start < end && text[start] === "{" && text[end] === "}";
}

function isSpace(character) {
  return character === " " || character === "\n" || character === "\t" || character === "\r";
}

/** One line of a stack trace, or undefined for what is not the user's. */
export function describeFrame(frame) {
  try {
    return describe(frame);
  } catch {
    // User code replaced what this is made of.
    return `${frame}`;
  }
}

function describe(frame) {
  const source = frame.getScriptNameOrSourceURL() ?? "";
  if (source.startsWith(KERNEL_FOLDER) || NOT_OF_THE_USER.test(source)) return undefined;
  const cell = getCell(source);
  if (cell === undefined) return frame.toString();
  const [line, column] = [frame.getLineNumber(), frame.getColumnNumber()];
  return frame.toString().replace(`${source}:${line}:${column}`, [source, ...cell.place(line, column)].join(":"));
}

// What a cell's source becomes, so that V8 takes it as a notebook would.
//
// V8 evaluates scripts, which know no `import` and `export`, and declares a name again only as what it was before: a
// `let` can follow a `let`, but no `const` can. So modules are imported by calls, and names that the cell itself never
// assigns are declared by `let`.

import { createRequire } from "node:module";

const GATE = /\b(?:import|export|const|let|var|function|class)\b/;
const OTHER_KIND = { const: "var", let: "var", var: "let" };
const OPTIONS = { ecmaVersion: "latest", allowAwaitOutsideFunction: true, allowHashBang: true };

const require = createRequire(import.meta.url);
let Parser;

/**
 * The cell's source as V8 is to have it; lines stay where they are. `taken` are names of which V8 said that they are
 * declared already as something else. What is no JavaScript is given back as it is: V8 will say what is wrong with it.
 */
export function rewrite(source, taken) {
  try {
    if (!GATE.test(source)) return source;
    return rewritten(source, parse(source, "module") ?? parse(source, "script"), taken);
  } catch {
    return source;
  }
}

function rewritten(source, program, taken) {
  const edits = [];
  const assigned = new Set();
  walk(program, (node) => {
    rewriteExpression(node, edits);
    noteAssigned(node, assigned);
  });
  for (const node of program.body) {
    rewriteModuleSyntax(node, source, edits);
    rewriteDeclaration(node.declaration ?? node, assigned, taken, edits);
  }
  return applied(source, edits);
}

function parse(source, sourceType) {
  try {
    return parser().parse(source, { ...OPTIONS, sourceType });
  } catch (error) {
    if (sourceType === "script") throw error;
    return undefined;
  }
}

/** Loaded when first needed, which a cell of plain expressions does not. */
function parser() {
  Parser ??= require("./acorn/acorn.mjs").Parser.extend(
    (Base) =>
      class extends Base {
        raiseRecoverable(position, message) {
          // What is exported may be of an earlier cell.
          if (!message.startsWith("Export ")) super.raiseRecoverable(position, message);
        }
      },
  );
  return Parser;
}

function rewriteDeclaration(node, assigned, taken, edits) {
  if (node.type === "VariableDeclaration" && node.kind in OTHER_KIND) {
    rewriteVariables(node, assigned, taken, edits);
  } else if (node.id && taken.has(node.id.name)) {
    const kind = { ClassDeclaration: "var", FunctionDeclaration: "let" }[node.type];
    if (kind === undefined) return;
    edits.push([node.start, node.start, `${kind} ${node.id.name} = `], [node.end, node.end, ";"]);
  }
}

function rewriteVariables(node, assigned, taken, edits) {
  const names = node.declarations.flatMap((one) => namesIn(one.id));
  const others = names.filter((name) => !taken.has(name));
  let { kind } = node;
  if (kind === "const" && (others.length < names.length || !names.some((name) => assigned.has(name)))) kind = "let";
  if (others.length === 0 || others.length === names.length) {
    if (others.length === 0) kind = OTHER_KIND[kind];
    edits.push([node.start, node.start + node.kind.length, kind.padEnd(node.kind.length)]);
    return;
  }
  // Some of one kind and some of the other: declared first, and then assigned in one expression.
  const those = names.filter((name) => taken.has(name));
  const declared = `${kind} ${others.join(", ")}; ${OTHER_KIND[kind]} ${those.join(", ")}; (`;
  edits.push([node.start, node.start + node.kind.length, declared]);
  const end = node.declarations.at(-1).end;
  edits.push([end, end, "); void 0"]);
}

function rewriteModuleSyntax(node, source, edits) {
  switch (node.type) {
    case "ImportDeclaration":
      edits.push([node.start, node.end, importOf(node, source)]);
      break;
    case "ExportNamedDeclaration":
      if (node.declaration) edits.push([node.start, node.declaration.start, ""]);
      else edits.push([node.start, node.end, node.source ? `void ${load(node, source)};` : ";"]);
      break;
    case "ExportDefaultDeclaration":
      edits.push([node.start, node.declaration.start, ""]);
      break;
    case "ExportAllDeclaration":
      edits.push([node.start, node.end, `void ${load(node, source)};`]);
      break;
  }
}

function rewriteExpression(node, edits) {
  if (node.type === "ImportExpression") {
    edits.push([node.start, node.start + "import".length, "__kernel__.import"]);
  } else if (node.type === "MetaProperty" && node.meta.name === "import") {
    edits.push([node.start, node.end, "__kernel__.meta"]);
  }
}

function importOf(node, source) {
  const namespace = node.specifiers.find((one) => one.type === "ImportNamespaceSpecifier");
  const wanted = node.specifiers.filter((one) => one !== namespace);
  const statements = [];
  if (namespace) statements.push(`let ${namespace.local.name} = ${load(node, source)};`);
  if (wanted.length > 0) {
    const names = wanted.map((one) => JSON.stringify(importedName(one)));
    const bindings = wanted.map((one, index) => `${names[index]}: ${one.local.name}`);
    const imported = `await __kernel__.importNames(${node.source.raw}, [${names}]${options(node, source)})`;
    statements.push(`let {${bindings.join(", ")}} = ${imported};`);
  }
  if (statements.length === 0) statements.push(`void ${load(node, source)};`);
  // As many lines as before, so that those below keep their numbers.
  const lines = source.slice(node.start, node.end).split("\n").length - 1;
  return statements.join(" ") + "\n".repeat(lines);
}

function importedName(specifier) {
  if (specifier.type === "ImportDefaultSpecifier") return "default";
  return specifier.imported.name ?? specifier.imported.value;
}

function load(node, source) {
  return `await __kernel__.import(${node.source.raw}${options(node, source)})`;
}

function options(node, source) {
  if (!node.attributes?.length) return "";
  const pairs = node.attributes.map((one) => source.slice(one.start, one.end));
  return `, {with: {${pairs.join(", ")}}}`;
}

function noteAssigned(node, names) {
  let target;
  if (node.type === "AssignmentExpression") target = node.left;
  else if (node.type === "UpdateExpression") target = node.argument;
  else if (node.type === "ForInStatement" || node.type === "ForOfStatement") target = node.left;
  if (target) for (const name of namesIn(target)) names.add(name);
}

/** The names that a pattern binds or assigns. */
function namesIn(pattern) {
  switch (pattern?.type) {
    case "Identifier":
      return [pattern.name];
    case "ObjectPattern":
      return pattern.properties.flatMap((one) => namesIn(one.type === "RestElement" ? one.argument : one.value));
    case "ArrayPattern":
      return pattern.elements.flatMap(namesIn);
    case "AssignmentPattern":
      return namesIn(pattern.left);
    case "RestElement":
      return namesIn(pattern.argument);
    default:
      return [];
  }
}

function walk(node, visit) {
  visit(node);
  for (const value of Object.values(node)) {
    if (Array.isArray(value)) {
      for (const item of value) if (typeof item?.type === "string") walk(item, visit);
    } else if (typeof value?.type === "string") {
      walk(value, visit);
    }
  }
}

function applied(source, edits) {
  edits.sort((one, other) => one[0] - other[0]);
  let text = "";
  let end = 0;
  for (const [start, until, replacement] of edits) {
    text += source.slice(end, start) + replacement;
    end = until;
  }
  return text + source.slice(end);
}

// @ts-check
// Filter expressions over runs: `mIoU > 0.7 and model = unet and not tags ~ draft`.

/**
 * @typedef {{kind: "and", left: Node, right: Node} | {kind: "or", left: Node, right: Node} | {kind: "not", of: Node}
 *   | {kind: "test", name: string, op: string, value: string} | {kind: "word", value: string}} Node
 */

const TOKEN = /\s*(?:([()])|(!=|>=|<=|=|>|<|~)|"([^"]*)"|'([^']*)'|`([^`]*)`|([^\s()=<>~!"'`]+))/y;

/** @param {string} text */
function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  while (text.slice(TOKEN.lastIndex).trim()) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) throw new Error(`cannot read the filter from “${text.slice(at).trim()}” on`);
    const [, bracket, op, double, single, back, word] = match;
    const value = double ?? single ?? back ?? word;
    found.push(bracket ? { type: bracket, value: "" } : op ? { type: "op", value: op } : { type: word === undefined ? "text" : "word", value });
  }
  return found;
}

/**
 * @param {string} text @returns {Node | null} null for an empty filter
 * @throws {Error} with what is wrong, in words
 */
export function parse(text) {
  const list = tokens(text);
  if (!list.length) return null;
  let at = 0;
  const isWord = (/** @type {string} */ word) => list[at]?.type === "word" && list[at].value.toLowerCase() === word;
  /** @returns {Node} */
  function or() {
    let left = and();
    while (isWord("or")) at++, (left = { kind: "or", left, right: and() });
    return left;
  }
  /** @returns {Node} */
  function and() {
    let left = not();
    while (at < list.length && !isWord("or") && list[at].type !== ")") {
      if (isWord("and")) at++;
      left = { kind: "and", left, right: not() };
    }
    return left;
  }
  /** @returns {Node} */
  function not() {
    if (isWord("not")) return at++, { kind: "not", of: not() };
    const token = list[at++];
    if (!token) throw new Error("the filter ends too early");
    if (token.type === "(") {
      const inner = or();
      if (list[at++]?.type !== ")") throw new Error("the filter lacks a closing bracket");
      return inner;
    }
    if (token.type === "op" || token.type === ")") throw new Error(`“${token.value || token.type}” has no name before it`);
    if (list[at]?.type !== "op") return { kind: "word", value: token.value };
    const op = list[at++].value;
    const value = list[at++];
    if (!value || (value.type !== "word" && value.type !== "text")) throw new Error(`“${token.value} ${op}” has no value after it`);
    return { kind: "test", name: token.value, op, value: value.value };
  }
  const tree = or();
  if (at < list.length) throw new Error(`cannot read the filter from “${list[at].value || list[at].type}” on`);
  return tree;
}

/**
 * The path that a short name means: the path itself, or the shortest one that ends with it, case aside.
 * @param {string} name @param {string[]} paths
 */
export function resolve(name, paths) {
  const wanted = name.toLowerCase();
  const ending = paths.filter((path) => path.toLowerCase() === wanted || path.toLowerCase().endsWith("/" + wanted));
  if (!ending.length) {
    const group = paths.filter((path) => path.toLowerCase().includes(`/${wanted}/`));
    if (group.length === 1) return group[0];
    return paths.find((path) => path.toLowerCase().endsWith(`/${wanted}/_target_`)) ?? null;
  }
  return ending.sort((a, b) => a.length - b.length || (a < b ? -1 : 1))[0];
}

/**
 * Whether a row passes.
 * @param {Node | null} node @param {(name: string) => any} value of a name in the row
 * @param {string} words what bare words are looked for in
 * @returns {boolean}
 */
export function passes(node, value, words) {
  if (!node) return true;
  if (node.kind === "and") return passes(node.left, value, words) && passes(node.right, value, words);
  if (node.kind === "or") return passes(node.left, value, words) || passes(node.right, value, words);
  if (node.kind === "not") return !passes(node.of, value, words);
  if (node.kind === "word") return words.toLowerCase().includes(node.value.toLowerCase());
  return test(value(node.name), node.op, node.value);
}

/** @param {any} actual @param {string} op @param {string} wanted @returns {boolean} */
function test(actual, op, wanted) {
  if (op === "!=") return !test(actual, "=", wanted);
  if (actual === null || actual === undefined) return false;
  if (Array.isArray(actual)) return op === "=" ? actual.includes(wanted) : op === "~" && actual.some((item) => test(item, "~", wanted));
  const number = Number(wanted);
  if (typeof actual === "number" && wanted !== "" && !Number.isNaN(number)) {
    if (op === "=") return actual === number;
    if (op === ">") return actual > number;
    if (op === "<") return actual < number;
    if (op === ">=") return actual >= number;
    if (op === "<=") return actual <= number;
  }
  const text = String(actual).toLowerCase();
  const other = wanted.toLowerCase();
  if (op === "~") return text.includes(other);
  // A class path equals its last part too: `model = unet` finds segtrail.models.unet.UNet.
  if (op === "=") return text === other || text.split(".").includes(other);
  return op === ">" ? text > other : op === "<" ? text < other : op === ">=" ? text >= other : text <= other;
}

/** Every name that the filter reads. @param {Node | null} node @returns {string[]} */
export function namesIn(node) {
  if (!node || node.kind === "word") return [];
  if (node.kind === "test") return [node.name];
  if (node.kind === "not") return namesIn(node.of);
  return [...namesIn(node.left), ...namesIn(node.right)];
}

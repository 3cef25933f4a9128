// @ts-check
// Requests to the server and its binary replies.

/** @param {Response} reply */
async function check(reply) {
  if (reply.ok) return reply;
  let reason = `${reply.status} ${reply.statusText}`;
  try {
    reason = (await reply.json()).detail || reason;
  } catch {
    // The body is no JSON: the status line says what there is to say.
  }
  throw new Error(typeof reason === "string" ? reason : JSON.stringify(reason));
}

/** @param {string} path @param {Record<string, any>} [query] @returns {Promise<any>} */
export async function getJSON(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value === undefined || value === null || value === "") continue;
    for (const item of Array.isArray(value) ? value : [value]) parameters.append(key, String(item));
  }
  return (await check(await fetch(`/ui/api/${path}?${parameters}`))).json();
}

/** @param {string} path @param {any} body @param {AbortSignal} [signal] */
const post = async (path, body, signal) =>
  check(await fetch(`/ui/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  }));

/** @param {string} path @param {any} body @returns {Promise<any>} */
export const postJSON = async (path, body) => (await post(path, body)).json();

/**
 * A reply of a JSON header and arrays: u32 length of the header, header, padding to 8, the arrays.
 * The header's `arrays` names each with its type ("f4", "f8", "u1") and length; they are put on the result.
 * @param {string} path @param {any} body @param {AbortSignal} [signal] @returns {Promise<any>}
 */
export async function postBinary(path, body, signal) {
  return decode(await (await post(path, body, signal)).arrayBuffer());
}

/** @param {ArrayBuffer} buffer @returns {any} */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  /** @type {Record<string, any>} */
  const kinds = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, i4: Int32Array };
  let offset = 8 * Math.ceil((4 + length) / 8);
  for (const [name, type, count] of header.arrays) {
    const Kind = kinds[type];
    header[name] = new Kind(buffer, offset, count);
    offset += 8 * Math.ceil((count * Kind.BYTES_PER_ELEMENT) / 8);
  }
  return header;
}

/** The address of a file attribute. @param {string} run @param {string} path @param {Record<string, any>} [more] */
export const fileURL = (run, path, more = {}) =>
  `/ui/file?${new URLSearchParams({ run, path, ...more })}`;

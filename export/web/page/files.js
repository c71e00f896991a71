// The page's own files, in the folder beside it or inside of the page itself.
import { PageError } from "./errors.js";

/**
 * A reader of files by name.
 * @param {string} base address of the folder
 * @param {?Object<string, string>} embedded compressed files in base64, for a page that is one file
 */
export function fileReader(base, embedded) {
  return async name => {
    if (embedded) {
      const answer = await fetch("data:application/octet-stream;base64," + embedded[name]);
      delete embedded[name];
      return new Uint8Array(await new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
    }
    const answer = await fetch(new URL(name, base)).catch(() => null);
    if (!answer?.ok) throw new PageError(`The page's file ${name} is missing on its server.`);
    return new Uint8Array(await answer.arrayBuffer());
  };
}

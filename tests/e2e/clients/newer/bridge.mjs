// Drives autumn-js 1.3.13 for the tests: one call a line on stdin, {"method", "args"}, one answer a line
// on stdout, {"data"}, {"error": {"code", "message"}, "status"} or {"thrown"}. Arguments: where it is
// installed, the sidecar's address, the key. Without `failOpen: false` a dead sidecar would look well.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [installed, serverURL, secretKey] = process.argv.slice(2);
const folder = `${installed}/node_modules/autumn-js`;
const { exports: entry } = JSON.parse(readFileSync(`${folder}/package.json`));
const { Autumn } = await import(pathToFileURL(`${folder}/${entry["."].import}`).href);
const autumn = new Autumn({ secretKey, serverURL, failOpen: false });

console.log = console.info = console.error; // the client's own messages; stdout is for answers

for await (const line of createInterface({ input: process.stdin })) {
  const { method, args } = JSON.parse(line);
  let answer;
  try {
    const [name, part] = method.split(".").reverse();
    const owner = part ? autumn[part] : autumn;
    answer = { data: await owner[name](...args) };
  } catch (thrown) {
    const refused = thrown?.statusCode >= 400 && typeof thrown.body === "string";
    answer = refused ? { error: JSON.parse(thrown.body), status: thrown.statusCode } : { thrown: String(thrown?.stack ?? thrown) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}

// Drives autumn-js for the tests: one call a line on stdin, {"method", "args"}, one answer a line on
// stdout, {"data", "error", "status"}, or {"thrown"}. Arguments: where autumn-js is installed, the
// sidecar's address, the key.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [installed, url, secretKey] = process.argv.slice(2);
// As an `import` in the installed folder would: its CommonJS form does not load in Node 18.
const folder = `${installed}/node_modules/autumn-js`;
const { exports: entry } = JSON.parse(readFileSync(`${folder}/package.json`));
const { Autumn } = await import(pathToFileURL(`${folder}/${entry["."].import}`).href);
const autumn = new Autumn({ secretKey, url: `${url}/v1` });

console.log = console.info = console.error; // the client's own messages; stdout is for answers

for await (const line of createInterface({ input: process.stdin })) {
  const { method, args } = JSON.parse(line);
  let answer;
  try {
    const path = method.split(".");
    const name = path.pop();
    const owner = path.reduce((part, next) => part[next], autumn);
    const { data, error, statusCode } = await owner[name](...args);
    answer = { data, error, status: statusCode };
  } catch (thrown) {
    answer = { thrown: String(thrown?.stack ?? thrown) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}

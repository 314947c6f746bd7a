// Runs scenarios as it is told on standard input, one JSON object a line, and answers on standard output in the same way:
//   {"scenario": "rooms", "url": "http://127.0.0.1:8000", "version": "4.8", "transport": "polling"}
//   {"step": "connected"}            a scenario that needs its test's help says how far it is
//   {"ok": true}                     or {"ok": false, "error": "AssertionError: ..."}
"use strict";
const readline = require("node:readline");
const { Stage } = require("./client");
const scenarios = require("./scenarios");

const tell = (message) => process.stdout.write(JSON.stringify(message) + "\n");

async function run({ scenario, url, version, transport }) {
  const stage = new Stage(url, version, transport);
  try {
    await scenarios[scenario](stage, (step) => tell({ step }));
    tell({ ok: true });
  } catch (error) {
    tell({ ok: false, error: error.stack || String(error) });
  } finally {
    stage.close();
  }
}

process.on("unhandledRejection", (error) => tell({ ok: false, error: `unhandled: ${error.stack}` }));

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) await run(JSON.parse(line));
  process.exit(0);
})();

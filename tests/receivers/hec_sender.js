// Sends each line of standard input by Splunk's own Node library: hec_sender.js URL TOKEN BATCH.
// Prints what the collector answered, a line each.
"use strict";

const fs = require("node:fs");
const { Logger } = require("splunk-logging");

const [url, token, batch] = process.argv.slice(2);
const logger = new Logger({ url, token, maxBatchCount: Number(batch), maxRetries: 3 });
logger.error = (error) => {
  console.error(error);
  process.exitCode = 1;
};
for (const line of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const metadata = { sourcetype: "from:node", source: "node", host: "node.example" };
  logger.send({ message: JSON.parse(line), metadata, severity: "info" }, (error, _, body) => {
    console.log(JSON.stringify(body));
  });
}

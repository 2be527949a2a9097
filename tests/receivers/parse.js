// Reads syslog lines from standard input; prints what nsyslog-parser makes of each, as JSON lines.
const parse = require("nsyslog-parser");
const lines = require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean);
for (const line of lines) console.log(JSON.stringify(parse(line)));

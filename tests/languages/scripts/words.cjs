#!/usr/bin/env node
// Counts words of a text that comes on stdin. Written for a terminal.
const fs = require('node:fs');

const least = Number(process.argv[2] ?? 1);
if (Number.isNaN(least)) {
  console.error('usage: words.cjs [LEAST] < text');
  process.exit(64);
}
const counts = new Map();
for (const word of fs.readFileSync(0, 'utf8').toLowerCase().match(/\p{L}+/gu) ?? []) {
  counts.set(word, (counts.get(word) ?? 0) + 1);
}
const words = [...counts].filter(([, count]) => count >= least).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
for (const [word, count] of words) console.log(`${String(count).padStart(5)} ${word}`);
process.stderr.write(`${words.length} of ${counts.size} words\n`);

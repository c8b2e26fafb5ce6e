// What differs between two JSON documents, as a list of changes (the operations of JSON Patch).
//
// params: {"from": {"a": 1, "b": [1, 2]}, "to": {"a": 2, "b": [1]}}
// result: [{"op": "replace", "path": "/a", "value": 2}, {"op": "remove", "path": "/b/1"}]
import { Permanent, log, progress, task } from './taskmaster.js';

export const run = task(({ from, to }) => {
  if (from === undefined || to === undefined) throw new Permanent('params: `from` and `to` are wanted');
  const changes = [];
  compare(from, to, '', changes);
  progress(1, `${changes.length} changes`);
  log('compared', changes.length, 'changes');
  return changes;
});

const isTree = (value) => value !== null && typeof value === 'object';
const step = (name) => '/' + String(name).replaceAll('~', '~0').replaceAll('/', '~1');

function compare(from, to, path, changes) {
  if (!isTree(from) || !isTree(to) || Array.isArray(from) !== Array.isArray(to)) {
    if (from !== to) changes.push({ op: 'replace', path, value: to });
    return;
  }
  for (const name of Object.keys(to)) {
    if (Object.hasOwn(from, name)) compare(from[name], to[name], path + step(name), changes);
    else changes.push({ op: 'add', path: path + step(name), value: to[name] });
  }
  // The last first, so that the places of those that are left in an array do not move.
  for (const name of Object.keys(from).reverse())
    if (!Object.hasOwn(to, name)) changes.push({ op: 'remove', path: path + step(name) });
}

// In which order things are built so that each comes after what it needs; the first by name where several can be next.
//
// params: {"needs": {"app": ["lib"], "lib": []}}
// result: {"order": ["lib", "app"]}
import { Permanent, progress, task } from './taskmaster.js';

interface Params {
  needs: Record<string, string[]>;
}

interface Result {
  order: string[];
}

export const run = task<Params, Result>(({ needs }) => {
  if (needs === null || typeof needs !== 'object') throw new Permanent('params.needs: an object of lists is wanted');
  const open = new Map<string, Set<string>>();
  for (const [name, list] of Object.entries(needs)) {
    if (!Array.isArray(list)) throw new Permanent(`params.needs.${name}: a list of names is wanted`);
    for (const need of list)
      if (!Object.hasOwn(needs, need)) throw new Permanent(`params.needs.${name}: \`${need}\` is not among the names`);
    open.set(name, new Set(list));
  }
  const order: string[] = [];
  while (open.size > 0) {
    const next = [...open.keys()].filter((name) => open.get(name)!.size === 0).sort()[0];
    if (next === undefined) throw new Permanent(`params.needs: a cycle among ${[...open.keys()].sort().join(', ')}`);
    order.push(next);
    open.delete(next);
    for (const needed of open.values()) needed.delete(next);
    progress(order.length / (order.length + open.size), next);
  }
  return { order };
});

// Turns a function, or a whole script, into a task. The component is made by componentize-qjs (QuickJS): JavaScript of
// 2023 without Node's modules, without network, and without anything that is awaited.
import * as host from 'taskmaster:task/host@1.0.0';

/** An error for which trying again is of no use. Every other one is tried again as often as the task's `retries` say. */
export class Permanent extends Error {}

/** How far the task is, from 0 to 1. */
export const progress = (fraction, note = '') => host.progress(fraction, String(note));
/** A first part of the result. */
export const partial = (value) => host.partial(JSON.stringify(value));
/** A line for the task's log. */
export const log = (...values) => host.log(values.map(shown).join(' '));
/** Adds a task, a task document, when this one is done. Its id. */
export const add = (task) => host.add(JSON.stringify(task));
/** When this one is done, it goes on as that task. */
export const then = (task) => host.then(JSON.stringify(task));
/** Whether somebody has cancelled the task. */
export const isCancelled = () => host.isCancelled();

globalThis.console ??= {};
Object.assign(globalThis.console, { log, info: log, debug: log, warn: log, error: log });

/** `run` of a function that takes the params and gives the result: `export const run = task(resize)`. */
export function task(f) {
  return (params) => attempt(() => {
    const result = f(JSON.parse(params));
    if (typeof result?.then === 'function') throw new Permanent('the function is async: nothing can be awaited here');
    return JSON.stringify(result === undefined ? null : result);
  });
}

/**
 * `run` of a script that was written for Node, as a program: it reads its input with `fs.readFileSync(0)` or
 * `process.stdin.on('data')`, its arguments from `process.argv`, and prints. `source` is its text, CommonJS. Params are
 * its input, or `{"args": [...], "stdin": ...}`; what it prints is the result, what it writes to stderr its log.
 */
export function script(source, name = 'script.js') {
  return (params) => attempt(() => {
    const program = new Program(name, JSON.parse(params), params);
    program.run(source);
    return program.printed;
  });
}

class Exit extends Error {
  constructor(code) {
    super(`exit code ${code}`);
    this.code = code;
  }
}

/** What a script finds around itself. */
class Program {
  constructor(name, params, text) {
    const whole = params !== null && typeof params === 'object' && 'args' in params;
    const stdin = whole ? params.stdin : params;
    this.input = stdin === undefined || stdin === null ? '' : whole || typeof stdin === 'string' ? asText(stdin) : text;
    this.printed = '';
    this.said = '';
    this.readers = {};
    const on = (event, f) => ((this.readers[event] ??= []).push(f), this.process.stdin);
    this.process = {
      argv: ['node', name, ...(whole ? params.args.map(String) : [])],
      env: {},
      platform: 'wasm',
      cwd: () => '/',
      exit: (code = 0) => { throw new Exit(code); },
      stdin: { on, once: on, setEncoding: () => this.process.stdin, resume: () => this.process.stdin, isTTY: false },
      stdout: { write: (text) => ((this.printed += text), true) },
      stderr: { write: (text) => (host.log(String(text).replace(/\n$/, '')), (this.said = String(text)), true) },
    };
    const err = (...values) => this.process.stderr.write(values.map(shown).join(' ') + '\n');
    const out = (...values) => this.process.stdout.write(values.map(shown).join(' ') + '\n');
    this.console = { log: out, info: out, debug: out, error: err, warn: err };
  }

  require(module) {
    if (module.replace('node:', '') === 'fs') return { readFileSync: (file) => this.read(file) };
    if (module.replace('node:', '') === 'process') return this.process;
    throw new Permanent(`require('${module}'): a script has fs.readFileSync of its stdin, and process`);
  }

  read(file) {
    if (file === 0 || file === '/dev/stdin') return this.input;
    throw new Permanent(`readFileSync(${JSON.stringify(file)}): only stdin (0) can be read`);
  }

  run(source) {
    const module = { exports: {} };
    const f = new Function('require', 'module', 'exports', 'process', 'console', source.replace(/^#!.*/, ''));
    try {
      f((name) => this.require(name), module, module.exports, this.process, this.console);
      for (const reader of this.readers.data ?? []) reader(this.input);
      for (const event of ['end', 'close']) for (const reader of this.readers[event] ?? []) reader();
    } catch (error) {
      if (!(error instanceof Exit)) throw error;
      if (error.code === 0) return;
      const why = `exit code ${error.code}${this.said ? ': ' + this.said.trim() : ''}`;
      throw error.code === 64 || error.code === 65 ? new Permanent(why) : new Error(why);
    }
  }
}

const asText = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

const shown = (value) => (typeof value === 'string' ? value : value instanceof Error ? traceback(value) : JSON.stringify(value) ?? String(value));

function traceback(error) {
  return error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ''}` : `thrown: ${shown(error)}`;
}

/** An exception becomes the task's error, with its own traceback. */
function attempt(f) {
  try {
    return f();
  } catch (error) {
    throw { tag: error instanceof Permanent ? 'permanent' : 'retryable', val: traceback(error) };
  }
}

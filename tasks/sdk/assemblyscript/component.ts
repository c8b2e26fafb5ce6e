// The entry point of a component: the canonical ABI by hand, without WASI.
import { task } from "./task";
import { speakWith } from "./taskmaster";

@external("taskmaster:task/host@1.0.0", "progress")
declare function hostProgress(fraction: f32, note: usize, length: i32): void;
@external("taskmaster:task/host@1.0.0", "log")
declare function hostLog(text: usize, length: i32): void;

/** result<string, error>, where error is a variant of two strings. */
const answer = memory.data(16);
let told: ArrayBuffer = new ArrayBuffer(0);

function log(text: string): void {
  const bytes = String.UTF8.encode(text);
  hostLog(changetype<usize>(bytes), bytes.byteLength);
}

/** Named by `--use abort=`: what a failed assertion or an array index out of bounds calls. */
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  log(`${message ? message : "aborted"} (${file ? file : "?"}:${line}:${column})`);
  unreachable();
}

// Outside of what the garbage collector looks at: the caller puts its arguments here.
export function cabi_realloc(old: usize, was: usize, align: usize, size: usize): usize {
  return size ? (old ? heap.realloc(old, size) : heap.alloc(size)) : align;
}

export function run(at: usize, length: i32): usize {
  speakWith((fraction: f32, note: string): void => {
    const bytes = String.UTF8.encode(note);
    hostProgress(fraction, changetype<usize>(bytes), bytes.byteLength);
  }, log);
  const params = String.UTF8.decodeUnsafe(at, length);
  const ended = task(params);
  told = String.UTF8.encode(ended.text);
  const place = answer + (ended.failed ? 8 : 4);
  store<u8>(answer, ended.failed ? 1 : 0);
  if (ended.failed) store<u8>(answer + 4, ended.permanent ? 1 : 0);
  store<u32>(place, <u32>changetype<usize>(told));
  store<u32>(place + 4, <u32>told.byteLength);
  return answer;
}

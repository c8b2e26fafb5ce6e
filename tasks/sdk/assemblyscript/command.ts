// The entry point of a command: params on stdin, the result on stdout.
import { task } from "./task";
import { speakWith } from "./taskmaster";

@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(file: i32, parts: usize, count: i32, read: usize): i32;
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(file: i32, parts: usize, count: i32, written: usize): i32;
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(code: i32): void;

const part = memory.data(8);
const moved = memory.data(4);

function read(): string {
  let all = new Uint8Array(0);
  const chunk = new ArrayBuffer(65536);
  for (;;) {
    store<u32>(part, <u32>changetype<usize>(chunk));
    store<u32>(part + 4, chunk.byteLength);
    if (fd_read(0, part, 1, moved) != 0 || load<u32>(moved) == 0) break;
    const more = new Uint8Array(all.length + load<u32>(moved));
    more.set(all);
    memory.copy(more.dataStart + all.length, changetype<usize>(chunk), load<u32>(moved));
    all = more;
  }
  return String.UTF8.decode(all.buffer);
}

function write(file: i32, text: string): void {
  const bytes = String.UTF8.encode(text);
  let at = 0;
  while (at < bytes.byteLength) {
    store<u32>(part, <u32>(changetype<usize>(bytes) + at));
    store<u32>(part + 4, bytes.byteLength - at);
    if (fd_write(file, part, 1, moved) != 0) proc_exit(75);
    at += load<u32>(moved);
  }
}

/** Named by `--use abort=`: what a failed assertion or an array index out of bounds calls. */
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  write(2, `${message ? message : "aborted"} (${file ? file : "?"}:${line}:${column})\n`);
  unreachable();
}

speakWith(
  (fraction: f32, note: string): void => write(2, `::progress ${fraction} ${note}\n`),
  (text: string): void => write(2, text + "\n"),
);
const params = read();
const ended = task(params.length ? params : "null");
if (ended.failed) {
  write(2, ended.text + "\n");
  proc_exit(ended.permanent ? 65 : 75);
}
write(1, ended.text);

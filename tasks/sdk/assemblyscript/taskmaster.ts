// What a task in AssemblyScript may say, and how it fails. `command.ts` and `component.ts` beside this file are the two
// entry points: both call `task` of task.ts.

/** How far the task is, from 0 to 1. Set by the entry point. */
export let progress: (fraction: f32, note: string) => void = (fraction: f32, note: string): void => {};
/** A line for the task's log. Set by the entry point. */
export let log: (text: string) => void = (text: string): void => {};

export function speakWith(toProgress: (fraction: f32, note: string) => void, toLog: (text: string) => void): void {
  progress = toProgress;
  log = toLog;
}

/** How a task ended: with a result (JSON), or with a reason. */
export class Ended {
  constructor(public text: string, public failed: bool = false, public permanent: bool = false) {}
}

/** Done, with this result. */
export function done(json: string): Ended {
  return new Ended(json);
}

/** Failed; trying again is of no use. */
export function permanent(reason: string): Ended {
  return new Ended(reason, true, true);
}

/** Failed; trying again may help. */
export function retryable(reason: string): Ended {
  return new Ended(reason, true);
}

/** Reads JSON, from the left to the right. Where it is not what was asked for, `wrong` is set and stays. */
export class Reader {
  private at: i32 = 0;
  wrong: string = "";
  constructor(private text: string) {}

  private space(): void {
    while (this.at < this.text.length && this.text.charCodeAt(this.at) <= 32) this.at++;
  }

  /** Takes one character, if it is the next. */
  take(character: string): bool {
    this.space();
    const is = this.at < this.text.length && this.text.charAt(this.at) == character;
    if (is) this.at++;
    return is;
  }

  expect(character: string): void {
    if (!this.take(character) && this.wrong == "") this.wrong = `\`${character}\` is wanted at character ${this.at + 1}`;
  }

  /** A name or a text without escapes. */
  word(): string {
    this.expect('"');
    const end = this.text.indexOf('"', this.at);
    if (end < 0 || this.wrong != "") return "";
    const word = this.text.substring(this.at, end);
    this.at = end + 1;
    return word;
  }

  number(): f64 {
    this.space();
    const from = this.at;
    while (this.at < this.text.length && "+-.eE0123456789".includes(this.text.charAt(this.at))) this.at++;
    const number = parseFloat(this.text.substring(from, this.at));
    if (isNaN(number) && this.wrong == "") this.wrong = `a number is wanted at character ${from + 1}`;
    return number;
  }

  numbers(): f64[] {
    const all: f64[] = [];
    this.expect("[");
    if (this.take("]")) return all;
    do all.push(this.number());
    while (this.wrong == "" && this.take(","));
    this.expect("]");
    return all;
  }

  rows(): f64[][] {
    const all: f64[][] = [];
    this.expect("[");
    if (this.take("]")) return all;
    do all.push(this.numbers());
    while (this.wrong == "" && this.take(","));
    this.expect("]");
    return all;
  }
}

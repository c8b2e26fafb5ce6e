/** An error for which trying again is of no use. */
export class Permanent extends Error {}
/** How far the task is, from 0 to 1. */
export function progress(fraction: number, note?: string): void;
/** A first part of the result. */
export function partial(value: unknown): void;
/** A line for the task's log. */
export function log(...values: unknown[]): void;
/** Adds a task, a task document, when this one is done. Its id. */
export function add(task: { module: string; [field: string]: unknown }): string;
/** When this one is done, it goes on as that task. */
export function then(task: { module: string; [field: string]: unknown }): void;
/** Whether somebody has cancelled the task. */
export function isCancelled(): boolean;
/** `run` of a function that takes the params and gives the result. */
export function task<Params, Result>(f: (params: Params) => Result): (params: string) => string;
/** `run` of a script that was written for Node, CommonJS, from its text. */
export function script(source: string, name?: string): (params: string) => string;

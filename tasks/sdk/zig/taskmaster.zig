//! A task in Zig, from one source as a command and as a component: for wasm32-wasi it is a command (params on stdin,
//! result on stdout), for wasm32-freestanding it exports `run`, and `taskmaster modules wrap` makes a component of it.
//!
//! In the root file:
//!
//!     const taskmaster = @import("taskmaster.zig");
//!     pub const main = taskmaster.command(task);
//!     comptime { taskmaster.component(task); }
//!
//! where `task` is `fn (std.mem.Allocator, Params) !Result`. Params are read as JSON into its second parameter, what it
//! gives back is written as JSON. Memory that it takes from the allocator need not be freed.

const std = @import("std");
const builtin = @import("builtin");
const is_component = builtin.os.tag == .freestanding;

/// Exit codes that decide about trying again.
const permanent = 65;
const retry = 75;

/// How far the task is, from 0 to 1.
pub fn progress(fraction: f32, note: []const u8) void {
    if (is_component) return host.progress(fraction, note.ptr, note.len);
    std.debug.print("::progress {d} {s}\n", .{ fraction, note });
}

/// A first part of the result, JSON.
pub fn partial(json: []const u8) void {
    if (is_component) return host.partial(json.ptr, json.len);
    std.debug.print("::partial {s}\n", .{json});
}

/// A line for the task's log.
pub fn log(text: []const u8) void {
    if (is_component) return host.log(text.ptr, text.len);
    std.debug.print("{s}\n", .{text});
}

/// Adds a task, a document in JSON, when this one is done.
pub fn add(document: []const u8) error{Refused}!void {
    if (!is_component) return std.debug.print("::add {s}\n", .{document});
    var answer: host.Answer = undefined;
    host.add(document.ptr, document.len, &answer);
    if (answer.failed != 0) return error.Refused;
}

const host = struct {
    const Answer = extern struct { failed: u8, text: [*]const u8, length: usize };
    extern "taskmaster:task/host@1.0.0" fn progress(fraction: f32, note: [*]const u8, length: usize) void;
    extern "taskmaster:task/host@1.0.0" fn partial(value: [*]const u8, length: usize) void;
    extern "taskmaster:task/host@1.0.0" fn log(text: [*]const u8, length: usize) void;
    extern "taskmaster:task/host@1.0.0" fn add(task: [*]const u8, length: usize, answer: *Answer) void;
};

const Failure = struct { code: u8, text: []const u8 };
const Ended = union(enum) { done: []const u8, failed: Failure };

fn call(comptime task: anytype, gpa: std.mem.Allocator, json: []const u8) Ended {
    const Params = @typeInfo(@TypeOf(task)).@"fn".params[1].type.?;
    var scanner = std.json.Scanner.initCompleteInput(gpa, json);
    var at: std.json.Diagnostics = .{};
    scanner.enableDiagnostics(&at);
    const params = std.json.parseFromTokenSourceLeaky(Params, gpa, &scanner, .{}) catch |wrong| {
        const words = "params: {s} at line {d} column {d}, wanted {s}";
        const what = .{ @errorName(wrong), at.getLine(), at.getColumn(), @typeName(Params) };
        return .{ .failed = .{ .code = permanent, .text = std.fmt.allocPrint(gpa, words, what) catch "params" } };
    };
    const result = task(gpa, params) catch |wrong|
        return .{ .failed = .{ .code = retry, .text = @errorName(wrong) } };
    const text = std.json.Stringify.valueAlloc(gpa, result, .{}) catch
        return .{ .failed = .{ .code = retry, .text = "no memory for the result" } };
    return .{ .done = text };
}

/// The `main` of a command; of a component one that does nothing.
pub fn command(comptime task: anytype) if (is_component) fn () void else fn (std.process.Init) anyerror!void {
    if (is_component) return struct {
        fn nothing() void {}
    }.nothing;
    return struct {
        fn main(init: std.process.Init) anyerror!void {
            const gpa = init.arena.allocator();
            var buffer: [4096]u8 = undefined;
            var stdin = std.Io.File.stdin().reader(init.io, &buffer);
            const read = try stdin.interface.allocRemaining(gpa, .unlimited);
            switch (call(task, gpa, if (read.len == 0) "null" else read)) {
                .done => |text| try std.Io.File.stdout().writeStreamingAll(init.io, text),
                .failed => |why| {
                    std.debug.print("{s}\n", .{why.text});
                    std.process.exit(why.code);
                },
            }
        }
    }.main;
}

/// Exports what a component is made of.
pub fn component(comptime task: anytype) void {
    if (!is_component) return;
    const exported = struct {
        /// result<string, error>, where error is a variant of two strings.
        const Is = extern union {
            ok: extern struct { text: [*]const u8, length: usize },
            failed: extern struct { permanent: u8, text: [*]const u8, length: usize },
        };
        var answer: extern struct { failed: u8, is: Is } = undefined;
        var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);

        fn realloc(old: ?[*]u8, was: usize, alignment: usize, size: usize) callconv(.c) ?[*]u8 {
            _ = alignment;
            if (size == 0) return null;
            const gpa = std.heap.wasm_allocator;
            if (old) |bytes| return (gpa.realloc(bytes[0..was], size) catch @trap()).ptr;
            return (gpa.alignedAlloc(u8, .@"16", size) catch @trap()).ptr;
        }

        fn run(params: [*]const u8, length: usize) callconv(.c) *anyopaque {
            switch (call(task, arena.allocator(), params[0..length])) {
                .done => |text| answer = .{ .failed = 0, .is = .{ .ok = .{ .text = text.ptr, .length = text.len } } },
                .failed => |why| answer = .{ .failed = 1, .is = .{ .failed = .{
                    .permanent = @intFromBool(why.code == permanent),
                    .text = why.text.ptr,
                    .length = why.text.len,
                } } },
            }
            return &answer;
        }
    };
    @export(&exported.realloc, .{ .name = "cabi_realloc" });
    @export(&exported.run, .{ .name = "run" });
}

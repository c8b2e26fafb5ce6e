//! The root of a hash tree: a text is cut into chunks, each is hashed, and pairs of hashes are hashed until one is left.
//! An odd one goes up as it is.
//!
//! params: {"text": "…", "chunk": 16}
//! result: {"chunks": 5, "root": "9f86…"}

const std = @import("std");
const taskmaster = @import("taskmaster.zig");
const Sha256 = std.crypto.hash.sha2.Sha256;
const Hash = [Sha256.digest_length]u8;

pub const main = taskmaster.command(task);
comptime {
    taskmaster.component(task);
}

const Params = struct { text: []const u8, chunk: u32 = 1024 };
const Tree = struct { chunks: usize, root: []const u8 };

fn task(gpa: std.mem.Allocator, params: Params) !Tree {
    if (params.chunk == 0 or params.text.len == 0) return error.TextAndChunkMayNotBeEmpty;
    var level: std.ArrayList(Hash) = .empty;
    var chunks = std.mem.window(u8, params.text, params.chunk, params.chunk);
    while (chunks.next()) |chunk| {
        var hash: Hash = undefined;
        Sha256.hash(chunk, &hash, .{});
        try level.append(gpa, hash);
    }
    const count = level.items.len;
    while (level.items.len > 1) {
        taskmaster.progress(1 - @as(f32, @floatFromInt(level.items.len)) / @as(f32, @floatFromInt(count)), "levels");
        const half = (level.items.len + 1) / 2;
        for (0..half) |i| {
            const pair = level.items[2 * i .. @min(2 * i + 2, level.items.len)];
            level.items[i] = if (pair.len == 1) pair[0] else both(pair);
        }
        level.shrinkRetainingCapacity(half);
    }
    const hex = std.fmt.bytesToHex(level.items[0], .lower);
    return .{ .chunks = count, .root = try gpa.dupe(u8, &hex) };
}

fn both(pair: []const Hash) Hash {
    var sha = Sha256.init(.{});
    for (pair) |hash| sha.update(&hash);
    return sha.finalResult();
}

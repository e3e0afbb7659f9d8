//! my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
//!
//! A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
//! writes at the same time still has it.

const std = @import("std");
const sibyl = @import("sibyl.zig");

/// A panic's message goes to the node's log.
pub const panic = std.debug.FullPanic(sibyl.panic);

comptime {
    sibyl.exportResolver(@This());
}

const not_text = "a zero byte: these are not lines of text";

pub fn resolve(_: sibyl.Context, siblings: []const sibyl.Sibling) !sibyl.Answer {
    const first = siblings[0].value.get();
    var values: usize = 0;
    var alike = true;
    for (siblings) |sibling| {
        const value = sibling.value.get() orelse continue;
        values += 1;
        alike = alike and first != null and std.mem.eql(u8, value, first.?);
    }
    if (values == 0) return .delete;
    // A merge of equal values is that value, byte for byte.
    if (alike and values == siblings.len) return .{ .pick = siblings.len - 1 };

    var lines: std.ArrayList([]const u8) = .empty;
    for (siblings, 0..) |sibling, index| {
        const value = sibling.value.get() orelse continue;
        if (!isText(value)) return .{ .malformed = .{ .index = index, .message = not_text } };
        var parts = std.mem.tokenizeScalar(u8, value, '\n');
        while (parts.next()) |line| try lines.append(sibyl.allocator, line);
    }
    std.mem.sort([]const u8, lines.items, {}, isBefore);
    var text: std.ArrayList(u8) = .empty;
    var last: []const u8 = "";
    for (lines.items) |line| {
        if (std.mem.eql(u8, line, last)) continue;
        try text.appendSlice(sibyl.allocator, line);
        try text.append(sibyl.allocator, '\n');
        last = line;
    }
    return .{ .merged = text.items };
}

/// Why the value may not be written; null if it may.
pub fn checkValue(_: sibyl.Context, value: []const u8) ?[]const u8 {
    return if (isText(value)) null else not_text;
}

pub fn describe() sibyl.Description {
    return .{
        .name = "my-resolver",
        .version = "0.1.0",
        .summary = "Text as a set of lines: keeps every line of every sibling, once, sorted.",
        .media_types = &.{"text/plain"},
    };
}

fn isText(value: []const u8) bool {
    return std.mem.indexOfScalar(u8, value, 0) == null;
}

fn isBefore(_: void, one: []const u8, other: []const u8) bool {
    return std.mem.lessThan(u8, one, other);
}

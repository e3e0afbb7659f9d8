//! What the node calls and what it is answered, for Zig: layouts and export names of sibyl:resolver@0.1.0.
//!
//! Call `exportResolver` in a `comptime` block and make `panic` the panic handler of your root file. Every call has a
//! fresh instance: memory comes from `allocator` and need not be freed. The node makes a component of the module;
//! plain export names are enough for it.

const std = @import("std");

pub const allocator = std.heap.wasm_allocator;

/// A list, or a string, as the node has it.
fn List(comptime T: type) type {
    return extern struct {
        at: [*]const T,
        length: usize,

        const Self = @This();

        pub fn of(items: []const T) Self {
            return .{ .at = items.ptr, .length = items.len };
        }

        pub fn slice(self: Self) []const T {
            return self.at[0..self.length];
        }
    };
}

pub const Bytes = List(u8);

pub const OptionalBytes = extern struct {
    is_some: u32,
    value: Bytes,

    pub fn get(self: OptionalBytes) ?[]const u8 {
        // Only the first byte says it, the other three are padding.
        return if (@as(u8, @truncate(self.is_some)) == 0) null else self.value.slice();
    }
};

pub const Attribute = extern struct { name: Bytes, value: Bytes };

/// One of the concurrent versions of a key; without a value the client deleted it.
pub const Sibling = extern struct {
    value: OptionalBytes,
    /// Milliseconds since 1970, equal on every replica.
    modified_at: u64,
    attributes: List(Attribute),
};

/// Where the conflict is, and the bucket's `resolver.config` as JSON text.
pub const Context = struct {
    bucket: []const u8,
    key: []const u8,
    config: ?[]const u8,
    attributes: []const Attribute,
};

/// What shall become of the siblings; or why there is no resolution, and then they stay as they are.
pub const Answer = union(enum) {
    merged: []const u8,
    pick: u32,
    keep: []const u32,
    delete,
    malformed: struct { index: u32, message: []const u8 },
    bad_config: []const u8,
    declined: []const u8,
    other: []const u8,
};

pub const Description = struct {
    name: []const u8,
    version: []const u8,
    summary: []const u8,
    media_types: []const []const u8,
    config_schema: ?[]const u8 = null,
};

pub const Level = enum(u32) { debug, info, warn, err };

const host = struct {
    extern "sibyl:resolver/logging@0.1.0" fn log(level: u32, at: [*]const u8, length: usize) void;
};

pub fn log(level: Level, message: []const u8) void {
    host.log(@intFromEnum(level), message.ptr, message.len);
}

/// Logs a panic's message and stops the merge: it fails, and the siblings stay.
pub fn panic(message: []const u8, _: ?usize) noreturn {
    log(.err, message);
    @trap();
}

/// Exports `Resolver.resolve`, `Resolver.checkValue` and `Resolver.describe`.
pub fn exportResolver(comptime Resolver: type) void {
    const exported = struct {
        fn resolve(
            bucket: [*]const u8,
            bucket_length: usize,
            key: [*]const u8,
            key_length: usize,
            has_config: u32,
            config: [*]const u8,
            config_length: usize,
            attributes: [*]const Attribute,
            attribute_count: usize,
            siblings: [*]const Sibling,
            sibling_count: usize,
        ) callconv(.c) *const [5]u32 {
            const answer: Answer = Resolver.resolve(.{
                .bucket = bucket[0..bucket_length],
                .key = key[0..key_length],
                .config = if (has_config == 0) null else config[0..config_length],
                .attributes = attributes[0..attribute_count],
            }, siblings[0..sibling_count]) catch |err| .{ .other = @errorName(err) };
            return lowerAnswer(answer);
        }

        fn checkValue(
            bucket: [*]const u8,
            bucket_length: usize,
            key: [*]const u8,
            key_length: usize,
            has_config: u32,
            config: [*]const u8,
            config_length: usize,
            attributes: [*]const Attribute,
            attribute_count: usize,
            value: [*]const u8,
            value_length: usize,
        ) callconv(.c) *const [3]u32 {
            const refused: ?[]const u8 = Resolver.checkValue(.{
                .bucket = bucket[0..bucket_length],
                .key = key[0..key_length],
                .config = if (has_config == 0) null else config[0..config_length],
                .attributes = attributes[0..attribute_count],
            }, value[0..value_length]);
            return lower(3, if (refused) |why| .{ 1, address(why), why.len } else .{ 0, 0, 0 });
        }

        fn describe() callconv(.c) *const [11]u32 {
            const said: Description = Resolver.describe();
            const types = allocator.alloc(Bytes, said.media_types.len) catch @panic("out of memory");
            for (types, said.media_types) |*to, from| to.* = Bytes.of(from);
            const schema = said.config_schema orelse "";
            return lower(11, .{
                address(said.name),    said.name.len,
                address(said.version), said.version.len,
                address(said.summary), said.summary.len,
                @intFromPtr(types.ptr), types.len,
                @intFromBool(said.config_schema != null), address(schema), schema.len,
            });
        }
    };
    @export(&exported.resolve, .{ .name = "resolve" });
    @export(&exported.checkValue, .{ .name = "check-value" });
    @export(&exported.describe, .{ .name = "describe" });
    @export(&reallocate, .{ .name = "cabi_realloc" });
}

fn address(bytes: []const u8) u32 {
    return @intFromPtr(bytes.ptr);
}

fn lower(comptime count: usize, words: [count]u32) *const [count]u32 {
    const place = allocator.create([count]u32) catch @panic("out of memory");
    place.* = words;
    return place;
}

fn lowerAnswer(answer: Answer) *const [5]u32 {
    return lower(5, switch (answer) {
        .merged => |value| .{ 0, 0, address(value), value.len, 0 },
        .pick => |index| .{ 0, 1, index, 0, 0 },
        .keep => |indexes| .{ 0, 2, @intFromPtr(indexes.ptr), indexes.len, 0 },
        .delete => .{ 0, 3, 0, 0, 0 },
        .malformed => |bad| .{ 1, 0, bad.index, address(bad.message), bad.message.len },
        .bad_config => |message| .{ 1, 1, address(message), message.len, 0 },
        .declined => |message| .{ 1, 2, address(message), message.len, 0 },
        .other => |message| .{ 1, 3, address(message), message.len, 0 },
    });
}

fn reallocate(old: ?[*]u8, old_size: usize, alignment: usize, size: usize) callconv(.c) [*]u8 {
    if (size == 0) return @ptrFromInt(alignment);
    // The contract's largest alignment, whatever is asked for.
    const new = allocator.alignedAlloc(u8, .@"8", size) catch @panic("out of memory");
    if (old) |bytes| @memcpy(new[0..@min(old_size, size)], bytes[0..@min(old_size, size)]);
    return new.ptr;
}

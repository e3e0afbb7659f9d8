//! Small guests in WAT. A guest is a core module with plain export names unless its name says otherwise.
//!
//! `resolve` takes eleven i32: bucket, key (pointer and length each), config (present, pointer, length),
//! attributes, siblings. A sibling has 32 bytes: value (present, pointer, length), modified-at at 16,
//! attributes at 24. The answer stands at 16: result, variant at 20, payload from 24 on.

/// A guest whose `resolve` has this body; `$siblings` and `$count` are its last parameters.
pub(crate) fn guest(body: &str) -> String {
    module("resolve", body, "")
}

/// A guest with further module fields.
pub(crate) fn module(resolve: &str, body: &str, more: &str) -> String {
    format!(
        r#"(module
  (import "sibyl:resolver/logging@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (data (i32.const 256) "a sentence of some length that is used as text")
  (global $next (mut i32) (i32.const 4096))
  (func $reserve (param $end i32)
    (local $missing i32)
    (local.set $missing (i32.sub
      (i32.shr_u (i32.add (local.get $end) (i32.const 65535)) (i32.const 16))
      (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (drop (memory.grow (local.get $missing))))))
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (call $reserve (global.get $next))
    (local.get $at))
  (func $answer (param $result i32) (param $variant i32) (param $a i32) (param $b i32) (result i32)
    (i32.store8 (i32.const 16) (local.get $result))
    (i32.store8 (i32.const 20) (local.get $variant))
    (i32.store (i32.const 24) (local.get $a))
    (i32.store (i32.const 28) (local.get $b))
    (i32.const 16))
  (func (export "{resolve}")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $siblings i32) (param $count i32) (result i32)
    {body})
  {more})"#
    )
}

/// Picks the sibling with this index.
pub(crate) fn pick(index: u32) -> String {
    format!("(call $answer (i32.const 0) (i32.const 1) (i32.const {index}) (i32.const 0))")
}

/// Answers with `length` bytes from address 0 as the merged value.
pub(crate) fn merged(length: u32) -> String {
    format!(
        "(call $reserve (i32.const {length}))
         (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {length}))"
    )
}

/// Keeps the siblings with these indices.
pub(crate) fn keep(indices: &[u32]) -> String {
    let stores: String = indices
        .iter()
        .enumerate()
        .map(|(place, index)| {
            format!(
                "(i32.store (i32.const {}) (i32.const {index}))",
                512 + 4 * place
            )
        })
        .collect();
    format!(
        "{stores} (call $answer (i32.const 0) (i32.const 2) (i32.const 512) (i32.const {}))",
        indices.len()
    )
}

/// Deletes the key.
pub(crate) fn remove() -> String {
    "(call $answer (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 0))".to_owned()
}

/// Fails with a text of ten bytes: 1 bad-config, 2 declined, 3 other.
pub(crate) fn fail(variant: u32) -> String {
    format!("(call $answer (i32.const 1) (i32.const {variant}) (i32.const 256) (i32.const 10))")
}

/// Logs `length` bytes from address 256 at a level.
pub(crate) fn log(level: u32, length: u32) -> String {
    format!("(call $log (i32.const {level}) (i32.const 256) (i32.const {length}))")
}

/// The smallest resolver that can be: picks the first sibling and takes lists anywhere.
pub(crate) const SMALLEST: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
  (func (export "resolve") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 20) (i32.const 1))
    i32.const 16))"#;

/// A component that exports this interface of ours with a function of another type.
pub(crate) fn odd_component(export: &str) -> String {
    format!(
        r#"(component
  (core module $m (func (export "r") (result i32) i32.const 1))
  (core instance $i (instantiate $m))
  (func $f (result u32) (canon lift (core func $i "r")))
  (instance $inst (export "resolve" (func $f)))
  (export "{export}" (instance $inst)))"#
    )
}

/// What a toolchain with bindings makes: the module of a guest with full names, and its world in a custom section.
pub(crate) fn embedded(wat: &str, world: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve
        .push_str("resolver.wit", sibyl::resolver::WIT)
        .expect("the contract parses");
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the world");
    let mut module = wat::parse_str(wat).expect("the fixture parses");
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding)
        .expect("embeds");
    module
}

/// A component made outside the node. It imports `types`, as every component of a toolchain does.
pub(crate) fn component(wat: &str) -> Vec<u8> {
    let encoder = wit_component::ComponentEncoder::default().module(&embedded(wat, "resolver"));
    encoder
        .expect("the fixture fits the world")
        .encode()
        .expect("encodes")
}

/// The same bytes as WAT text.
pub(crate) fn as_text(component: &[u8]) -> String {
    let bytes: String = component
        .iter()
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    format!("(component binary \"{bytes}\")")
}

/// The full export name of `resolve`.
pub(crate) const RESOLVE: &str = "sibyl:resolver/merge@0.1.0#resolve";

/// A binary with one text in it replaced by another of the same length.
pub(crate) fn replaced(binary: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "the lengths before names stay");
    let mut binary = binary.to_vec();
    let mut places = 0;
    for start in 0..=binary.len() - old.len() {
        if &binary[start..start + old.len()] == old.as_bytes() {
            binary[start..start + old.len()].copy_from_slice(new.as_bytes());
            places += 1;
        }
    }
    assert!(places > 0, "{old} is in the binary");
    binary
}

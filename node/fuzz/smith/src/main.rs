//! `sibyl-smith FIRST COUNT`: modules on standard output, each behind its length in four bytes, the lowest first.
//!
//! Three of four have a resolver's exports with bodies of chance; the others import and export what they like. A third
//! is damaged: cut off, or with one bit turned. A number always gives the same module. `../uploads` sends them to a node.

use std::io::Write;

use arbitrary::Unstructured;
use sha2::{Digest, Sha256};
use wasm_smith::{Config, Module};

/// Bytes that a module is made of.
const ENTROPY: usize = 4096;

/// What a resolver exports.
const EXPORTS: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "resolve") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#;

fn entropy(number: u64) -> Vec<u8> {
    let block = |block: u64| Sha256::digest([number.to_le_bytes(), block.to_le_bytes()].concat());
    (0..).flat_map(block).take(ENTROPY).collect()
}

fn module(number: u64) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let bytes = entropy(number);
    let mut source = Unstructured::new(&bytes);
    let every = |one_in: u64| number.is_multiple_of(one_in);
    let config = Config {
        exports: if every(4) {
            None
        } else {
            Some(wat::parse_str(EXPORTS)?)
        },
        max_imports: if every(4) { 5 } else { 0 },
        min_funcs: 1,
        threads_enabled: every(17),
        gc_enabled: every(13),
        exceptions_enabled: every(11),
        memory64_enabled: every(19),
        relaxed_simd_enabled: every(23),
        reference_types_enabled: every(7),
        max_memory32_bytes: 1 << 26,
        ..Config::default()
    };
    let mut module = Module::new(config, &mut source)?.to_bytes();
    let at = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % module.len();
    match number % 6 {
        0 => module.truncate(at),
        1 => module[at] ^= 1 << (bytes[2] % 8),
        _ => {}
    }
    Ok(module)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || -> Result<u64, Box<dyn std::error::Error>> {
        let argument = arguments.next().ok_or("say FIRST and COUNT")?;
        Ok(argument.parse()?)
    };
    let (first, count) = (number()?, number()?);
    let mut out = std::io::stdout().lock();
    for number in first..first + count {
        let module = module(number).map_err(|error| format!("module {number}: {error}"))?;
        out.write_all(&u32::try_from(module.len())?.to_be_bytes())?;
        out.write_all(&module)?;
    }
    Ok(())
}

//! The two engines: one that runs guests, one that only compiles them, with equal compiler settings.
//!
//! The executing engine has the pooling allocator, whose memories reserve 4 GiB of address space each; the
//! compile child must live under a tight address-space limit, so its engine has none. Allocation does not
//! change compiled code, and a test holds the two compatibility hashes equal. Everything that could make two
//! nodes answer differently is off or pinned here (see `wasm-platform`: NaN, SIMD, threads, growth).

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    Strategy, WasmBacktraceDetails,
};

use super::call::Limits;

/// Counts changes of the settings below that a compatibility hash cannot see; part of the cache key.
pub(super) const SETTINGS_VERSION: u32 = 1;

/// Changes when the same guest may use another amount of fuel: with wasmtime's operator costs, or ours for logging.
pub const FUEL_SCHEDULE: u32 = 1;

/// The call stack of a guest. A thread's own stack is 2 MiB or more, so the host keeps the rest.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// Elements of all tables of a guest; the largest seen has 7,688 (StarlingMonkey).
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Core instances of one component; Python guests have 38.
pub(super) const CORE_INSTANCES_MAX: u32 = 64;

/// Memories of one component; every toolchain seen has one.
pub(super) const MEMORIES_MAX: u32 = 4;

/// Tables of one component.
pub(super) const TABLES_MAX: u32 = 16;

/// Bytes of a memory that stay resident between calls and are reset by copying, not by the kernel.
const MEMORY_KEEP_RESIDENT: usize = 2 << 20;

/// The same for a table.
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// The engine that runs guests, with room for `permits` of them at a time.
///
/// Where the address space does not hold the pool, instances are allocated one by one: slower, said loudly.
pub(super) fn executing(permits: u32) -> wasmtime::Result<Engine> {
    let mut config = compiler_settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(permits)));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, permits, "no address space for the resolver pool, resolvers will start slower");
            compiling()
        }
    }
}

/// The engine of the compile child.
pub(super) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&compiler_settings())
}

/// A digest of everything that makes compiled code of one engine unfit for another.
pub(super) fn fingerprint(engine: &Engine) -> [u8; 32] {
    let mut hasher = Fingerprint(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    SETTINGS_VERSION.hash(&mut hasher);
    hasher.0.finalize().into()
}

/// A `Hasher` that keeps all bits.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        let (head, _) = digest.split_first_chunk().expect("32 bytes have 8");
        u64::from_le_bytes(*head)
    }
}

fn pool(permits: u32) -> PoolingAllocationConfig {
    let memory_bytes = usize::try_from(Limits::MEMORY_MAX).expect("256 MiB fit a pointer");
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(permits)
        .total_core_instances(CORE_INSTANCES_MAX * permits)
        .total_memories(MEMORIES_MAX * permits)
        .total_tables(TABLES_MAX * permits)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(2)
        .max_memories_per_module(1)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(memory_bytes)
        .max_unused_warm_slots(permits)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    pool
}

fn compiler_settings() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .memory_init_cow(true)
        .memory_may_move(false)
        .consume_fuel(true)
        .native_unwind_info(false)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_stack_switching(false)
        .wasm_branch_hinting(false)
        // Toolchains need these: inner components have several memories, QuickJS stubs use tail calls.
        .wasm_multi_memory(true)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_component_model(true);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compile_child_makes_code_for_the_executing_engine() {
        let executing = executing(1).expect("a pool of one");
        let compiling = compiling().expect("no pool");
        assert_eq!(fingerprint(&executing), fingerprint(&compiling));
    }
}

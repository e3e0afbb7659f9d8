//! One guest at a time: a fresh store with its limits, its log and the one import.
//!
//! Every call gets a new store and a new instance, so no state survives a call. The limiter, not the
//! engine's text, tells which limit was hit. Fuel also pays for what the guest makes the host do: each log
//! line costs its bytes, so a guest cannot buy host time for less than its own.

use std::time::{Duration, Instant};

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{Engine, PoolConcurrencyLimitError, ResourceLimiter, Store, StoreContextMut, Trap};

use super::bindings::sibyl::resolver::logging;
use super::call::{Failure, Level, Limits, LogLine, bounded};
use super::engine::{
    CORE_INSTANCES_MAX, MEMORIES_MAX, STACK_BYTES, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// What one log line costs besides its bytes.
const FUEL_PER_LOG_LINE: u64 = 1_000;

/// Bytes a guest may hand to the host at once beyond its output: messages, records, indices.
const HANDOVER_SLACK: u64 = 64 << 10;

/// Error lines that a crash is told with; Rust's panics have three where they go to standard error.
const ERRORS_SHOWN: usize = 3;

/// Handles a component may hold; the contract has no resources.
const HANDLES_MAX: usize = 16;

/// The host's side of one guest.
pub(super) struct Guest {
    limiter: Limiter,
    log: Log,
}

/// What one guest may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) fuel: u64,
    pub(super) memory_bytes: u64,
    pub(super) output_bytes: u64,
}

impl Budget {
    /// The budget of a call that carries `input_bytes`.
    pub(super) fn of(limits: &Limits, input_bytes: u64) -> Self {
        Self {
            fuel: limits.fuel_for(input_bytes),
            memory_bytes: limits.memory_bytes.min(Limits::MEMORY_MAX),
            output_bytes: limits.output_bytes,
        }
    }
}

/// What a guest did and what it cost.
pub(super) struct Run<T> {
    pub(super) result: Result<T, Failure>,
    pub(super) fuel: u64,
    pub(super) memory_bytes: u64,
    pub(super) duration: Duration,
    pub(super) log: Vec<LogLine>,
}

/// Runs `work` in a fresh store under `budget`.
pub(super) fn run<T>(
    engine: &Engine,
    budget: Budget,
    work: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Run<T> {
    let started = Instant::now();
    let mut store = match store(engine, budget) {
        Ok(store) => store,
        Err(_) => return Run::overloaded(started),
    };
    let result = work(&mut store).map_err(|error| failure(&error, budget, store.data()));
    let left = store.get_fuel().unwrap_or(0);
    let guest = store.into_data();
    Run {
        result,
        fuel: budget.fuel.saturating_sub(left),
        memory_bytes: guest.limiter.memory_peak as u64,
        duration: started.elapsed(),
        log: guest.log.lines,
    }
}

impl<T> Run<T> {
    fn overloaded(started: Instant) -> Self {
        Self {
            result: Err(Failure::Overload),
            fuel: 0,
            memory_bytes: 0,
            duration: started.elapsed(),
            log: Vec::new(),
        }
    }
}

/// The linker of every resolver: logging and nothing else.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    linker.instance("sibyl:resolver/types@0.1.0")?;
    linker
        .instance("sibyl:resolver/logging@0.1.0")?
        .func_wrap("log", log)?;
    Ok(linker)
}

fn store(engine: &Engine, budget: Budget) -> wasmtime::Result<Store<Guest>> {
    let guest = Guest {
        limiter: Limiter::new(budget),
        log: Log::default(),
    };
    let mut store = Store::try_new(engine, guest)?;
    store.limiter(|guest| &mut guest.limiter);
    store.set_fuel(budget.fuel)?;
    let handover = budget.output_bytes.saturating_add(HANDOVER_SLACK);
    store.set_hostcall_fuel(usize::try_from(handover).unwrap_or(usize::MAX));
    store.set_max_component_handles(HANDLES_MAX);
    Ok(store)
}

fn log(
    mut store: StoreContextMut<'_, Guest>,
    (level, text): (logging::Level, WasmStr),
) -> wasmtime::Result<()> {
    let (bytes, message) = {
        let text = text.to_str(&store)?;
        let message = store.data().log.has_room().then(|| bounded(&text));
        (text.len() as u64, message)
    };
    let cost = FUEL_PER_LOG_LINE + bytes;
    let fuel = store.get_fuel()?;
    store.set_fuel(fuel.saturating_sub(cost))?;
    store.data_mut().log.push(level, message);
    if cost > fuel {
        Err(Trap::OutOfFuel.into())
    } else {
        Ok(())
    }
}

/// The lines of one call; the one after the last says that more followed.
#[derive(Default)]
struct Log {
    lines: Vec<LogLine>,
}

impl Log {
    fn has_room(&self) -> bool {
        self.lines.len() < LogLine::LINES_MAX
    }

    fn push(&mut self, level: logging::Level, message: Option<String>) {
        if let Some(message) = message {
            self.lines.push(LogLine {
                level: level.into(),
                message,
            });
        } else if self.lines.len() == LogLine::LINES_MAX {
            self.lines.push(LogLine {
                level: Level::Warn,
                message: LogLine::DROPPED.to_owned(),
            });
        }
    }
}

impl From<logging::Level> for Level {
    fn from(level: logging::Level) -> Self {
        match level {
            logging::Level::Debug => Self::Debug,
            logging::Level::Info => Self::Info,
            logging::Level::Warn => Self::Warn,
            logging::Level::Error => Self::Error,
        }
    }
}

/// Counts memory of all memories together, and remembers which limit it refused.
///
/// A refused growth is a trap: a guest must not see an answer that depends on the bucket or the node. Only
/// the maximum a module declares for itself is answered with -1, which is the same everywhere.
struct Limiter {
    memory_now: usize,
    memory_peak: usize,
    memory_max: usize,
    table_now: usize,
    own_maximum: bool,
    refused: Option<Failure>,
}

impl Limiter {
    fn new(budget: Budget) -> Self {
        Self {
            memory_now: 0,
            memory_peak: 0,
            memory_max: usize::try_from(budget.memory_bytes).unwrap_or(usize::MAX),
            table_now: 0,
            own_maximum: false,
            refused: None,
        }
    }

    fn refuse(&mut self, failure: Failure) -> wasmtime::Error {
        let text = failure.to_string();
        self.refused = Some(failure);
        wasmtime::Error::msg(text)
    }

    /// What a growth that the limiter permitted failed for, when the guest may not see it fail.
    fn grow_failed(&mut self) -> wasmtime::Result<()> {
        if std::mem::take(&mut self.own_maximum) {
            return Ok(());
        }
        Err(self.refuse(Failure::Overload))
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self
            .memory_now
            .saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_max {
            let failure = Failure::Memory {
                wanted_bytes: wanted as u64,
                limit_bytes: self.memory_max as u64,
            };
            return Err(self.refuse(failure));
        }
        self.own_maximum = maximum.is_some_and(|maximum| desired > maximum);
        if !self.own_maximum {
            self.memory_now = wanted;
            self.memory_peak = self.memory_peak.max(wanted);
        }
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.grow_failed()
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self
            .table_now
            .saturating_add(desired.saturating_sub(current));
        if wanted > TABLE_ELEMENTS_MAX {
            let failure = Failure::Table {
                wanted: wanted as u64,
                limit: TABLE_ELEMENTS_MAX as u64,
            };
            return Err(self.refuse(failure));
        }
        self.own_maximum = maximum.is_some_and(|maximum| desired > maximum);
        if !self.own_maximum {
            self.table_now = wanted;
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.grow_failed()
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

/// Which kind of failure an error of the engine is.
fn failure(error: &wasmtime::Error, budget: Budget, guest: &Guest) -> Failure {
    if let Some(refused) = &guest.limiter.refused {
        return refused.clone();
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::Overload;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::Fuel { limit: budget.fuel },
        Some(Trap::StackOverflow) => Failure::StackOverflow {
            limit_bytes: STACK_BYTES as u64,
        },
        // The engine has no type for this one; a test holds its words.
        None if error
            .root_cause()
            .to_string()
            .contains("fuel allocated for hostcalls") =>
        {
            Failure::Output {
                limit_bytes: budget.output_bytes,
            }
        }
        _ => Failure::Trap(bounded(&crash(&error.root_cause().to_string(), &guest.log))),
    }
}

/// The engine's words for a crash, and the guest's own: what it logged as errors, mostly a panic's message.
fn crash(cause: &str, log: &Log) -> String {
    let errors = log.lines.iter().filter(|line| line.level == Level::Error);
    let errors: Vec<_> = errors
        .take(ERRORS_SHOWN)
        .map(|line| line.message.as_str())
        .collect();
    if errors.is_empty() {
        return cause.to_owned();
    }
    format!("{}: {cause}", errors.join("; "))
}

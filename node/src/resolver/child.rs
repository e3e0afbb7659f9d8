//! The compile child: one process per module, limited by itself before it reads a byte.
//!
//! `sibyl __compile ADDRESS_SPACE_BYTES CPU_SECONDS` reads a module from standard input and writes one frame
//! to standard output: compiled code, or a refusal. It is the only place where hostile bytes meet validator,
//! encoder and compiler. A panic becomes a refusal; an abort is seen by the parent as a missing frame.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use super::admission::{self, Kind};
use super::call::bounded;
use super::engine;
use super::refusal::Refusal;

/// The hidden subcommand that [`compile_child`] serves.
pub const COMPILE_COMMAND: &str = "__compile";

/// Begins a frame; a child of another build does not answer with it.
const MAGIC: &[u8; 8] = b"SIBYLC01";

/// The compiler recurses over what the module nests; reserved, not used.
const STACK_BYTES: usize = 64 << 20;

/// Added to the niceness inherited from the node: requests go first.
const NICENESS: i32 = 10;

/// Compiled code and the form it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub(super) kind: Kind,
    /// Only ever code of this build's compile child.
    pub(super) code: Vec<u8>,
}

/// The head of a frame; the code follows it.
#[derive(Serialize, Deserialize)]
struct Head {
    made: Result<Kind, Refusal>,
    code_bytes: u64,
}

/// The whole life of the compile child. Called by `main` before anything else when the first argument is
/// [`COMPILE_COMMAND`]; never called inside a node.
pub fn compile_child() -> ExitCode {
    let mut numbers = std::env::args().skip(2).map(|text| text.parse::<u64>());
    let (Some(Ok(address_space)), Some(Ok(cpu_seconds))) = (numbers.next(), numbers.next()) else {
        eprintln!("{COMPILE_COMMAND} is for the node's own use: ADDRESS_SPACE_BYTES CPU_SECONDS");
        return ExitCode::from(2);
    };
    let done = limit(address_space, cpu_seconds).and_then(|()| answer(caught()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn limit(address_space: u64, cpu_seconds: u64) -> std::io::Result<()> {
    let exactly = |limit: u64| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Core, exactly(0))?;
    setrlimit(Resource::Fsize, exactly(0))?;
    setrlimit(Resource::As, exactly(address_space))?;
    // The soft limit sends SIGXCPU, which the parent can tell from other deaths.
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(cpu_seconds),
            maximum: Some(cpu_seconds + 1),
        },
    )?;
    nice(NICENESS)?;
    Ok(())
}

/// Reads and compiles on a thread of its own, for its stack, and turns a panic into a refusal. The stack is there
/// before the module takes its share, so that what is too much later is the module's doing.
fn caught() -> Result<Artifact, Refusal> {
    std::panic::set_hook(Box::new(|_| {}));
    let unavailable = |error: std::io::Error| Refusal::Unavailable(error.to_string());
    let read_and_compile = move || {
        let mut module = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut module)
            .map_err(unavailable)?;
        compile(&module)
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(read_and_compile)
        .map_err(unavailable)?;
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Refusal::CompilerCrashed(bounded(
            text.unwrap_or("it panicked"),
        )))
    })
}

fn compile(module: &[u8]) -> Result<Artifact, Refusal> {
    let engine = engine::compiling().map_err(|error| Refusal::Unavailable(format!("{error:#}")))?;
    let (kind, component) = admission::component(module, engine.get_wasm_features())?;
    let code = engine
        .precompile_component(&component)
        .map_err(|error| Refusal::Compile(bounded(&format!("{error:#}"))))?;
    Ok(Artifact { kind, code })
}

fn answer(made: Result<Artifact, Refusal>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&to_frame(made))?;
    out.flush()
}

/// `MAGIC | u32 length of head | head | code`.
fn to_frame(made: Result<Artifact, Refusal>) -> Vec<u8> {
    let (made, code) = match made {
        Ok(artifact) => (Ok(artifact.kind), artifact.code),
        Err(refusal) => (Err(refusal), Vec::new()),
    };
    let head = Head {
        made,
        code_bytes: code.len() as u64,
    };
    let head = postcard::to_stdvec(&head).expect("a small value of our own serializes into memory");
    let length = u32::try_from(head.len()).expect("texts in a refusal are bounded");
    [&MAGIC[..], &length.to_le_bytes(), &head, &code].concat()
}

/// Reads a frame; none if it is cut off or not one.
pub(super) fn from_frame(frame: &[u8]) -> Option<Result<Artifact, Refusal>> {
    let (length, rest) = frame.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let (head, code) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let head: Head = postcard::from_bytes(head).ok()?;
    if head.code_bytes != code.len() as u64 {
        return None;
    }
    Some(head.made.map(|kind| Artifact {
        kind,
        code: code.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_no_part_of_it_does() {
        let made = [
            Ok(Artifact {
                kind: Kind::Wat,
                code: vec![1, 2, 3],
            }),
            Err(Refusal::CompilerCrashed("so".to_owned())),
        ];
        for made in made {
            let frame = to_frame(made.clone());
            assert_eq!(from_frame(&frame), Some(made));
            for length in 0..frame.len() {
                assert_eq!(
                    from_frame(&frame[..length]),
                    None,
                    "{length} of {} bytes",
                    frame.len()
                );
            }
        }
    }
}

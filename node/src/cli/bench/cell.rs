//! One measurement after another: preload, warm up, count, divide by what it cost.
//!
//! It drives [`super::load`] and looks at [`super::usage`] at both ends of the counted time, so that latency,
//! throughput and CPU belong to the same seconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use super::load::{Load, Op, Running, Seen, Work};
use super::report::{Cell, Report};
use super::usage::Servers;
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::output;

/// Connections of a preload: enough for group commit to work, too few to overload a debug build.
const PRELOAD_CONNECTIONS: usize = 32;

/// How often a preload is looked at.
const WATCH: Duration = Duration::from_millis(100);

/// Who is measured.
pub(super) struct Subject {
    /// Its name in the report.
    pub(super) what: String,
    /// `HOST:PORT` of each node.
    pub(super) targets: Vec<String>,
    /// Path that keys are appended to.
    pub(super) path: String,
    /// Whose CPU counts.
    pub(super) servers: Servers,
}

/// How everything in one run is measured.
pub(super) struct Bench<'a> {
    args: &'a super::Args,
    interrupt: &'a Interrupt,
    /// Differs between runs, so that writes of a later one go to new keys.
    run: u64,
    cells: u64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(args: &'a super::Args, interrupt: &'a Interrupt) -> Bench<'a> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Bench {
            args,
            interrupt,
            run: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            cells: 0,
        }
    }

    /// Measures every operation at every number of connections. Preloads first if anything reads.
    pub(super) fn measure(
        &mut self,
        subject: &Subject,
        report: &mut Report,
    ) -> Result<(), Failure> {
        if self.args.op.iter().any(|op| *op != Op::Put) {
            self.preload(subject)?;
        }
        self.measure_loaded(subject, report)
    }

    /// As [`Bench::measure`], after a preload.
    pub(super) fn measure_loaded(
        &mut self,
        subject: &Subject,
        report: &mut Report,
    ) -> Result<(), Failure> {
        for op in &self.args.op {
            for connections in &self.args.connections {
                let connections = usize::try_from(*connections).unwrap_or(usize::MAX);
                report.cells.push(self.cell(subject, *op, connections)?);
            }
        }
        Ok(())
    }

    /// Writes every key that reads will ask for.
    pub(super) fn preload(&self, subject: &Subject) -> Result<(), Failure> {
        let keys = self.args.keys;
        let bar = output::progress(keys, format!("{}: preload", subject.what));
        let running = self.start(subject, Work::Preload { keys }, PRELOAD_CONNECTIONS)?;
        while !running.is_finished() {
            bar.set_position(running.taken().min(keys));
            if self.interrupt.wait(WATCH) {
                running.stop();
                return Err(Failure::Interrupted);
            }
        }
        bar.finish_and_clear();
        let seen = running.wait();
        match seen.errors.iter().next() {
            None => Ok(()),
            Some((what, _)) => Err(Failure::Failed(format!(
                "{} of {keys} preloading writes failed, first with {what}: the reads would measure something else",
                seen.failed()
            ))),
        }
    }

    fn cell(&mut self, subject: &Subject, op: Op, connections: usize) -> Result<Cell, Failure> {
        self.cells += 1;
        let name = op
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        let waiting = output::spinner(format!(
            "{}: {name} at {connections} connections",
            subject.what
        ));
        // Shifted, so that the cells of one run and the runs of one day do not meet.
        let work = Work::Steady {
            op,
            keys: self.args.keys,
            run: (self.run << 8) + self.cells,
        };
        let running = self.start(subject, work, connections)?;
        let measured = self.count(subject, running);
        waiting.finish_and_clear();
        let (seconds, seen, used) = measured?;
        let value_bytes = usize::try_from(self.args.value_bytes).unwrap_or(usize::MAX);
        Ok(Cell::new(
            &subject.what,
            &name,
            connections,
            value_bytes,
            seconds,
            &seen,
            &used,
        ))
    }

    fn count(
        &self,
        subject: &Subject,
        running: Running,
    ) -> Result<(f64, Seen, super::usage::Usage), Failure> {
        let mut interrupted = self.interrupt.wait(self.args.warm_up);
        let before = subject.servers.usage();
        let started = Instant::now();
        running.measure();
        interrupted = interrupted || self.interrupt.wait(Duration::from_secs(self.args.seconds));
        let used = subject.servers.usage().since(&before);
        let seconds = started.elapsed().as_secs_f64();
        let seen = running.stop();
        if interrupted {
            Err(Failure::Interrupted)
        } else {
            Ok((seconds, seen, used))
        }
    }

    fn start(&self, subject: &Subject, work: Work, connections: usize) -> Result<Running, Failure> {
        let load = Load {
            targets: subject.targets.clone(),
            path: subject.path.clone(),
            connections,
            value_bytes: usize::try_from(self.args.value_bytes).unwrap_or(usize::MAX),
            work,
        };
        load.start().map_err(|source| Failure::File {
            doing: "start",
            path: "the load".into(),
            source,
        })
    }
}

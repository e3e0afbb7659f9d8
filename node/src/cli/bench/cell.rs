//! One measurement after another: preload, warm up, count, divide by what it cost.
//!
//! It drives [`super::load`] and looks at [`super::usage`] at both ends of the counted time, so that latency,
//! throughput and CPU belong to the same seconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use super::load::{Load, Op, Patience, Running, Seen, Values, Work};
use super::report::{Cell, Report};
use super::usage::{Servers, Usage};
use crate::cli::failure::Failure;
use crate::cli::interrupt::Interrupt;
use crate::cli::output;

/// Connections of a preload: enough for group commit to work, too few to overload a debug build.
const PRELOAD_CONNECTIONS: usize = 32;

/// How often a preload is looked at.
const WATCH: Duration = Duration::from_millis(100);

/// How often a measurement looks whether the work is done.
const STEP: Duration = Duration::from_millis(20);

/// A short measurement.
const GLANCE: Duration = Duration::from_secs(1);

/// Who is measured.
pub(super) struct Subject {
    /// Its name in the report.
    pub(super) what: String,
    /// `HOST:PORT` of each node.
    pub(super) targets: Vec<String>,
    /// Path that keys are appended to.
    pub(super) path: String,
    /// What is written.
    pub(super) values: Values,
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
    /// What connections do after a 503.
    patience: Patience,
    /// Whether the next measurement is a short one.
    glances: bool,
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
            patience: Patience::None,
            glances: false,
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
        // Shifted, so that the cells of one run and the runs of one day do not meet.
        let work = Work::Steady {
            op,
            keys: self.args.keys,
            run: (self.run << 8) + self.cells,
        };
        self.work(subject, &name, work, connections)
    }

    /// A measurement of a scenario, by its name there.
    pub(super) fn named(
        &mut self,
        subject: &Subject,
        what: &str,
        op: Op,
        connections: usize,
        patience: Patience,
    ) -> Result<Cell, Failure> {
        self.patience = patience;
        let cell = self.cell(subject, op, connections);
        self.patience = Patience::None;
        cell.map(|mut cell| {
            cell.what = what.to_owned();
            cell
        })
    }

    /// A measurement of one second, without a warm-up.
    pub(super) fn glance(
        &mut self,
        subject: &Subject,
        what: &str,
        op: Op,
        connections: usize,
    ) -> Result<Cell, Failure> {
        self.glances = true;
        let cell = self.named(subject, what, op, connections, Patience::None);
        self.glances = false;
        cell
    }

    /// Measures work of any kind. Work that ends by itself gets no warm-up, or nothing would be left.
    pub(super) fn work(
        &self,
        subject: &Subject,
        name: &str,
        work: Work,
        connections: usize,
    ) -> Result<Cell, Failure> {
        let warm_up = if matches!(work, Work::Steady { .. }) && !self.glances {
            self.args.warm_up
        } else {
            Duration::ZERO
        };
        let waiting = output::spinner(format!(
            "{}: {name} at {connections} connections",
            subject.what
        ));
        let measured = self.count(subject, work, connections, warm_up);
        waiting.finish_and_clear();
        let (seconds, seen, used) = measured?;
        let value_bytes = usize::try_from(self.args.value_bytes).unwrap_or(usize::MAX);
        Ok(Cell::new(
            &subject.what,
            name,
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
        work: Work,
        connections: usize,
        warm_up: Duration,
    ) -> Result<(f64, Seen, Usage), Failure> {
        let before_start = subject.servers.usage();
        let running = self.start(subject, work, connections)?;
        let mut interrupted = self.interrupt.wait(warm_up);
        let before = if warm_up.is_zero() {
            before_start
        } else {
            subject.servers.usage()
        };
        let started = Instant::now();
        running.measure();
        let time = match self.glances {
            true => GLANCE,
            false => Duration::from_secs(self.args.seconds),
        };
        while !interrupted && !running.is_finished() && started.elapsed() < time {
            interrupted = self
                .interrupt
                .wait(STEP.min(time.saturating_sub(started.elapsed())));
        }
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
            values: subject.values,
            patience: self.patience,
            work,
        };
        load.start().map_err(|source| Failure::File {
            doing: "start",
            path: "the load".into(),
            source,
        })
    }
}

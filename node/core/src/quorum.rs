//! Counting answers.

/// (placeholder until the registry branch lands)
#[derive(Clone, Debug)]
pub struct Tally {
    n: usize,
    need: usize,
    acks: usize,
    failures: usize,
}
/// Three values, one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Pending,
    /// Yes.
    Met,
    /// No more.
    Lost,
}
impl Tally {
    /// new
    pub fn new(n: usize, need: usize) -> Self {
        Self {
            n,
            need,
            acks: 0,
            failures: 0,
        }
    }
    /// ack
    pub fn ack(&mut self) {
        self.acks += 1;
    }
    /// fail
    pub fn fail(&mut self) {
        self.failures += 1;
    }
    /// acks
    pub fn acks(&self) -> usize {
        self.acks
    }
    /// failures
    pub fn failures(&self) -> usize {
        self.failures
    }
    /// verdict
    pub fn verdict(&self) -> Verdict {
        if self.acks >= self.need {
            Verdict::Met
        } else if self.n - self.failures.min(self.n) < self.need {
            Verdict::Lost
        } else {
            Verdict::Pending
        }
    }
}

/// placeholder
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /** one */
    One,
}

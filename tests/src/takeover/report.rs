//! What was measured, as a table and as JSON.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::gaps::millis;
use super::load::Field;
use super::{Change, Figures, Pause, Plan, Seen};

/// Longest that a shard of a server that died may be without service.
const ASKED_OF_A_DEATH: Duration = Duration::from_secs(3);

/// Longest pause of a shard that is handed over, of 99 in a hundred.
const ASKED_OF_A_HANDOVER: Duration = Duration::from_millis(100);

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    pub plan: Plan,
    pub seen: Vec<Seen>,
    pub started: u64,
    pub refused: u64,
    pub broken: u64,
}

/// One line of it.
struct Line {
    change: Change,
    what: &'static str,
    figures: Figures,
    /// Whether it is as asked, where something is asked.
    is_met: Option<bool>,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Came => "came",
        }
    }

    /// Whether figures of a pause are as asked.
    fn is_met(self, figures: &Figures) -> Option<bool> {
        match self {
            Self::Nothing => None,
            Self::Killed => Some(figures.max <= ASKED_OF_A_DEATH),
            Self::Stopped | Self::Came => Some(figures.p99 <= ASKED_OF_A_HANDOVER),
        }
    }
}

impl Report {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            seen: Vec::new(),
            started: 0,
            refused: 0,
            broken: 0,
        }
    }

    pub(super) fn count(&mut self, field: &Field) {
        self.started = field.started.load(Ordering::Relaxed);
        self.refused = field.refused.load(Ordering::Relaxed);
        self.broken = field.broken.load(Ordering::Relaxed);
    }

    /// The pauses of all changes of a kind.
    pub fn pauses(&self, change: Change) -> impl Iterator<Item = &Pause> {
        let seen = self.seen.iter().filter(move |seen| seen.change == change);
        seen.flat_map(|seen| &seen.pauses)
    }

    /// Whether everything is as asked.
    pub fn is_met(&self) -> bool {
        self.lines().iter().all(|line| line.is_met != Some(false))
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for change in Change::ALL {
            let mut line = |what, times: Vec<Duration>, is_asked| {
                let figures = Figures::of(times);
                lines.extend(figures.map(|figures| Line {
                    change,
                    what,
                    figures,
                    is_met: change.is_met(&figures).filter(|_| is_asked),
                }));
            };
            let of = |time: fn(&Pause) -> Option<Duration>| {
                self.pauses(change).filter_map(time).collect()
            };
            // Of a hand-over it has the pauses of the clients in it.
            let is_death = change == Change::Killed;
            line("silence", of(|pause| Some(pause.silence)), is_death);
            line("slowest_start", of(|pause| Some(pause.slowest_start)), true);
            line("latest_step", of(|pause| Some(pause.latest_step)), true);
            line("shown", of(|pause| pause.shown), false);
            let exits = self.seen.iter().filter(|seen| seen.change == change);
            line("exit", exits.filter_map(|seen| seen.exit).collect(), false);
        }
        lines
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        let lines = self.lines();
        let lines = lines.iter().map(|line| {
            json!({
                "change": line.change.name(),
                "what": line.what,
                "ms": line.figures.json(),
                "met": line.is_met,
            })
        });
        let rounds = self.seen.iter().map(|seen| {
            let pauses = seen.pauses.iter().map(|pause| {
                json!({
                    "shard": pause.shard,
                    "silence_ms": millis(pause.silence),
                    "slowest_start_ms": millis(pause.slowest_start),
                    "latest_step_ms": millis(pause.latest_step),
                    "shown_ms": pause.shown.map(millis),
                })
            });
            json!({ "change": seen.change.name(), "shards": pauses.collect::<Vec<_>>() })
        });
        json!({
            "nodes": self.plan.nodes,
            "rounds": self.plan.rounds,
            "clients_per_shard": self.plan.clients,
            "every_ms": millis(self.plan.every),
            "started": self.started,
            "refused": self.refused,
            "broken": self.broken,
            "met": self.is_met(),
            "figures": lines.collect::<Vec<_>>(),
            "changes": rounds.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<9} {:<14} {:>5} {:>9} {:>9} {:>9}",
            "change", "ms", "count", "p50", "p99", "max"
        )?;
        for line in self.lines() {
            let Figures {
                count,
                p50,
                p99,
                max,
            } = line.figures;
            let verdict = match line.is_met {
                None => "",
                Some(true) => "  as asked",
                Some(false) => "  TOO LONG",
            };
            writeln!(
                f,
                "{:<9} {:<14} {count:>5} {:>9.1} {:>9.1} {:>9.1}{verdict}",
                line.change.name(),
                line.what,
                millis(p50),
                millis(p99),
                millis(max)
            )?;
        }
        write!(
            f,
            "{} starts acknowledged, {} sent again after a refusal, {} after a broken connection",
            self.started, self.refused, self.broken
        )
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = |time: fn(&Pause) -> Duration| {
            let longest = self.pauses.iter().map(time).max().unwrap_or_default();
            millis(longest)
        };
        write!(
            f,
            "{:<8} {:>2} shards: silent for at most {:>7.1} ms, slowest start {:>7.1} ms, latest step {:>7.1} ms",
            self.change.name(),
            self.pauses.len(),
            longest(|pause| pause.silence),
            longest(|pause| pause.slowest_start),
            longest(|pause| pause.latest_step)
        )
    }
}

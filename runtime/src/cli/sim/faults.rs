//! What goes wrong in a run, and where.
//!
//! Nothing is drawn from a stream: every choice is a hash of the seed and of the
//! point that it is made at. So a run with some of its faults left out is the same run
//! but for those, which is what makes shrinking work.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use clap::ValueEnum;
use fnv::FnvHasher;
use serde::Serialize;

/// Faults of one run, at most. Each costs the execution an attempt or a restart, so
/// that without a bound a run might never end, and a story of more is no story.
pub(super) const MAX_FAULTS: usize = 8;

/// How likely an attempt is to meet a fault, in thousandths; a run draws one of them.
/// Runs without faults are among them, and runs in which hardly anything works.
const INTENSITIES: [u64; 4] = [0, 100, 250, 500];

/// How likely each kind of fault is to occur in a run at all, in thousandths: a run with
/// one kind only gets further than one with a little of everything.
const KIND_IN_RUN: u64 = 600;

/// How much later an outcome comes that comes twice, in milliseconds.
const DUPLICATE_MS: [u64; 4] = [0, 10, 500, 5_000];

/// How much later an outcome comes where no limit says what is late, in milliseconds.
const SLOW_MS: [u64; 3] = [1_000, 10_000, 30_000];

/// A kind of fault, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Activities fail
    Errors,
    /// Attempts never answer
    Timeouts,
    /// The server crashes between commits, and starts again
    Crashes,
    /// Outcomes come late, some after their time-out
    Slow,
    /// Outcomes come twice
    Duplicates,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Errors,
        Self::Timeouts,
        Self::Crashes,
        Self::Slow,
        Self::Duplicates,
    ];

    /// Its name on the command line and in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Timeouts => "timeouts",
            Self::Crashes => "crashes",
            Self::Slow => "slow",
            Self::Duplicates => "duplicates",
        }
    }
}

/// Where something may go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Point {
    /// An attempt that is sent to a worker.
    Attempt {
        state: Arc<str>,
        /// Which entry of the state, from 1.
        entry: u32,
        /// Which try, from 1.
        attempt: u32,
        /// Which time that this very attempt is sent, from 1: it is sent again after a crash.
        dispatch: u32,
    },
    /// A commit of the engine.
    Commit {
        /// Which, from 1; those that were lost count.
        number: u32,
    },
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fault {
    /// The attempt fails.
    Error {
        error: String,
        retryable: Option<bool>,
        /// Whether the activity has run, with its effect, and only its answer is lost.
        after_effect: bool,
    },
    /// The attempt never answers.
    Timeout {
        /// Whether the activity has run, with its effect.
        after_effect: bool,
    },
    /// The activity runs in time, but its outcome comes late.
    Slow { by_ms: u64 },
    /// The outcome comes twice.
    Duplicate { after_ms: u64 },
    /// The server crashes, and starts again.
    Crash {
        /// Whether the commit at which it crashes is durable.
        durable: bool,
    },
}

impl Fault {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Error { .. } => Kind::Errors,
            Self::Timeout { .. } => Kind::Timeouts,
            Self::Slow { .. } => Kind::Slow,
            Self::Duplicate { .. } => Kind::Duplicates,
            Self::Crash { .. } => Kind::Crashes,
        }
    }

    /// Plainer faults in place of this one, the plainest first.
    pub(super) fn plainer(&self) -> Vec<Self> {
        match self {
            Self::Error {
                error,
                retryable,
                after_effect,
            } => {
                let mut plainer = Vec::new();
                if error != UNAVAILABLE || retryable.is_some() {
                    plainer.push(Self::Error {
                        error: UNAVAILABLE.to_owned(),
                        retryable: None,
                        after_effect: false,
                    });
                }
                if *after_effect {
                    plainer.push(Self::Error {
                        error: error.clone(),
                        retryable: *retryable,
                        after_effect: false,
                    });
                }
                plainer
            }
            Self::Timeout { after_effect: true } => vec![Self::Timeout {
                after_effect: false,
            }],
            Self::Crash { durable: false } => vec![Self::Crash { durable: true }],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = |after: bool| {
            if after {
                "its effect takes place"
            } else {
                "it does not run"
            }
        };
        match self {
            Self::Error {
                error,
                retryable,
                after_effect,
            } => {
                let again = match retryable {
                    Some(false) => ", not to be tried again",
                    _ => "",
                };
                write!(f, "{error}{again}; {}", effect(*after_effect))
            }
            Self::Timeout { after_effect } => {
                write!(f, "no answer ever comes; {}", effect(*after_effect))
            }
            Self::Slow { by_ms } => {
                write!(f, "the answer comes {} late", super::story::seconds(*by_ms))
            }
            Self::Duplicate { after_ms } => write!(
                f,
                "the answer comes twice, {} apart",
                super::story::seconds(*after_ms)
            ),
            Self::Crash { durable: true } => f.write_str("the server crashes after it"),
            Self::Crash { durable: false } => f.write_str("the server crashes, and it is lost"),
        }
    }
}

/// A fault where it took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Injected {
    pub(super) at: Point,
    pub(super) fault: Fault,
}

/// What is tried again, as every remote service gives it now and then.
const UNAVAILABLE: &str = "ServiceUnavailable";

/// The name of an error that no workflow expects.
pub(super) const UNEXPECTED: &str = "SimulatedError";

/// What is known of an attempt when its fault is drawn.
pub(super) struct Prospect<'a> {
    /// Names of errors that the workflow catches there.
    pub(super) caught: &'a [String],
    pub(super) timeout_ms: Option<u64>,
}

/// Choices of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice {
    pub(super) seed: u64,
}

impl Dice {
    /// A number for a purpose at a point; always the same.
    fn number(self, purpose: &str, point: Option<&Point>) -> u64 {
        let mut hash = FnvHasher::default();
        hash.write(&self.seed.to_le_bytes());
        hash.write(purpose.as_bytes());
        match point {
            None => hash.write(&[0]),
            Some(Point::Attempt {
                state,
                entry,
                attempt,
                dispatch,
            }) => {
                hash.write(&[1]);
                for number in [entry, attempt, dispatch] {
                    hash.write(&number.to_le_bytes());
                }
                hash.write(state.as_bytes());
            }
            Some(Point::Commit { number }) => {
                hash.write(&[2]);
                hash.write(&number.to_le_bytes());
            }
        }
        // FNV spreads badly to the upper bits; this is the finish of SplitMix64.
        let mut mixed = hash.finish();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(self, thousandths: u64, purpose: &str, point: Option<&Point>) -> bool {
        self.number(purpose, point) % 1_000 < thousandths
    }

    /// One of several.
    pub(super) fn pick<T: Clone>(self, of: &[T], purpose: &str, point: Option<&Point>) -> T {
        let count = of.len() as u64;
        let index = self.number(purpose, point) % count.max(1);
        of[usize::try_from(index).expect("an index of a slice")].clone()
    }
}

/// Where the faults of a run come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Faults<'a> {
    /// Drawn, of these kinds.
    Drawn(&'a [Kind]),
    /// These and no others.
    Given(&'a [Injected]),
}

/// The faults of one run.
pub(super) struct Injector<'a> {
    dice: Dice,
    faults: Faults<'a>,
    intensity: u64,
    kinds: Vec<Kind>,
    /// Those that took place, in their order.
    pub(super) injected: Vec<Injected>,
}

impl<'a> Injector<'a> {
    pub(super) fn new(dice: Dice, faults: Faults<'a>) -> Self {
        let (intensity, kinds) = match faults {
            Faults::Given(_) => (0, Vec::new()),
            Faults::Drawn(all) => {
                let occurs = |kind: &Kind| dice.chance(KIND_IN_RUN, kind.name(), None);
                let mut kinds: Vec<_> = all.iter().copied().filter(occurs).collect();
                if kinds.is_empty() {
                    kinds = all.to_vec();
                }
                (dice.pick(&INTENSITIES, "intensity", None), kinds)
            }
        };
        Self {
            dice,
            faults,
            intensity,
            kinds,
            injected: Vec::new(),
        }
    }

    /// What befalls an attempt.
    pub(super) fn attempt(&mut self, point: &Point, prospect: &Prospect<'_>) -> Option<Fault> {
        self.decide(point, |this| this.draw_attempt(point, prospect))
    }

    /// What befalls a commit.
    pub(super) fn commit(&mut self, point: &Point) -> Option<Fault> {
        self.decide(point, |this| {
            let crashes = this.kinds.contains(&Kind::Crashes)
                // There are about twice as many commits as attempts.
                && this.dice.chance(this.intensity / 2, "crash", Some(point));
            crashes.then(|| Fault::Crash {
                durable: this.dice.chance(500, "durable", Some(point)),
            })
        })
    }

    fn decide(
        &mut self,
        point: &Point,
        draw: impl FnOnce(&Self) -> Option<Fault>,
    ) -> Option<Fault> {
        let fault = match self.faults {
            Faults::Given(given) => {
                let found = given.iter().find(|injected| injected.at == *point);
                found.map(|injected| injected.fault.clone())
            }
            Faults::Drawn(_) if self.injected.len() >= MAX_FAULTS => None,
            Faults::Drawn(_) => draw(self),
        }?;
        self.injected.push(Injected {
            at: point.clone(),
            fault: fault.clone(),
        });
        Some(fault)
    }

    fn draw_attempt(&self, point: &Point, prospect: &Prospect<'_>) -> Option<Fault> {
        let (dice, at) = (self.dice, Some(point));
        let kinds = self.kinds.iter().copied();
        let kinds: Vec<_> = kinds.filter(|kind| *kind != Kind::Crashes).collect();
        if kinds.is_empty() || !dice.chance(self.intensity, "fault", at) {
            return None;
        }
        let after_effect = dice.chance(500, "after effect", at);
        Some(match dice.pick(&kinds, "kind", at) {
            Kind::Errors => {
                let mut errors = vec![(UNAVAILABLE.to_owned(), None); 2];
                errors.push((UNEXPECTED.to_owned(), Some(false)));
                let caught = prospect.caught.iter();
                errors.extend(caught.map(|name| (name.clone(), Some(false))));
                let (error, retryable) = dice.pick(&errors, "error", at);
                Fault::Error {
                    // What says no has done nothing; what is not there may have.
                    after_effect: after_effect && retryable.is_none(),
                    error,
                    retryable,
                }
            }
            Kind::Timeouts => Fault::Timeout { after_effect },
            Kind::Duplicates => Fault::Duplicate {
                after_ms: dice.pick(&DUPLICATE_MS, "duplicate", at),
            },
            Kind::Slow | Kind::Crashes => Fault::Slow {
                by_ms: match prospect.timeout_ms {
                    // Just in time, just too late, much too late.
                    Some(limit) => dice.pick(&[limit / 2, limit + 1, 2 * limit], "slow", at),
                    None => dice.pick(&SLOW_MS, "slow", at),
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(entry: u32) -> Point {
        Point::Attempt {
            state: "Pay".into(),
            entry,
            attempt: 1,
            dispatch: 1,
        }
    }

    const NOTHING: Prospect<'_> = Prospect {
        caught: &[],
        timeout_ms: None,
    };

    #[test]
    fn a_fault_depends_on_its_seed_and_point_alone() {
        for seed in 0..200 {
            let all = |skip: u32| {
                let mut injector = Injector::new(Dice { seed }, Faults::Drawn(&Kind::ALL));
                let points = (0..4).filter(|n| *n != skip).map(attempt);
                let drawn: Vec<_> = points
                    .map(|point| (injector.attempt(&point, &NOTHING), point))
                    .collect();
                drawn
            };
            // Whether another point was asked before changes nothing.
            for (fault, point) in all(0) {
                assert!(all(9).contains(&(fault, point)), "seed {seed}");
            }
        }
    }

    #[test]
    fn given_faults_take_place_where_they_belong_and_nowhere_else() {
        let given = [Injected {
            at: attempt(2),
            fault: Fault::Timeout { after_effect: true },
        }];
        let mut injector = Injector::new(Dice { seed: 7 }, Faults::Given(&given));
        assert_eq!(injector.attempt(&attempt(1), &NOTHING), None);
        assert_eq!(
            injector.attempt(&attempt(2), &NOTHING),
            Some(given[0].fault.clone())
        );
        assert_eq!(injector.commit(&Point::Commit { number: 1 }), None);
        assert_eq!(injector.injected, given);
    }

    #[test]
    fn every_kind_of_fault_occurs_and_no_run_has_too_many() {
        let mut seen: Vec<Kind> = Vec::new();
        let mut quiet = 0;
        for seed in 0..500 {
            let mut injector = Injector::new(Dice { seed }, Faults::Drawn(&Kind::ALL));
            for number in 1..100 {
                injector.attempt(&attempt(number), &NOTHING);
                injector.commit(&Point::Commit { number });
            }
            assert!(injector.injected.len() <= MAX_FAULTS);
            quiet += u32::from(injector.injected.is_empty());
            seen.extend(injector.injected.iter().map(|it| it.fault.kind()));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, Kind::ALL);
        assert!(quiet > 0, "some runs go well");
    }

    #[test]
    fn a_fault_gets_plainer_until_it_is_plain() {
        let mut fault = Fault::Error {
            error: "PaymentDeclined".into(),
            retryable: Some(false),
            after_effect: true,
        };
        let mut steps = 0;
        while let Some(plainer) = fault.plainer().into_iter().next_back() {
            assert_eq!(plainer.kind(), fault.kind());
            fault = plainer;
            steps += 1;
            assert!(steps < 5, "it ends");
        }
    }
}

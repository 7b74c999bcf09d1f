//! `Retry` and `Catch`.

use super::{Builder, Language, Place, known};
use crate::asl::fault::names;
use crate::asl::program::{Catcher, ResultPath, Retrier};
use crate::diagnostic::Code;
use crate::front::fields::Fields;
use crate::front::report::{Finding, quote};
use crate::front::yaml::Node;
use crate::program::Jitter;

const RETRIER: &[&str] = &[
    "ErrorEquals",
    "IntervalSeconds",
    "MaxAttempts",
    "BackoffRate",
    "MaxDelaySeconds",
    "JitterStrategy",
];
const CATCHER_PATH: &[&str] = &["ErrorEquals", "Next", "ResultPath", "Assign"];
const CATCHER_QUERY: &[&str] = &["ErrorEquals", "Next", "Output", "Assign"];

/// AWS's limits.
const MAX_ATTEMPTS: u32 = 99_999_999;
const MAX_DELAY_SECONDS: u32 = 31_622_400;

impl Builder<'_, '_, '_> {
    pub(super) fn retries(&mut self, fields: &Fields<'_>) -> Option<Vec<Retrier>> {
        let Some(node) = fields.get("Retry") else {
            return Some(Vec::new());
        };
        let items = self.context.sequence(node, "`Retry`")?;
        let last = items.len().saturating_sub(1);
        let retriers: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(at, item)| self.retrier(item, at == last))
            .collect();
        retriers.into_iter().collect()
    }

    fn retrier(&mut self, node: &Node, is_last: bool) -> Option<Retrier> {
        let fields = known(self.context, node, "a retrier", RETRIER)?;
        let errors = self.error_equals(&fields, is_last);
        let mut seconds = |key: &str, min, max| {
            let node = fields.get(key)?;
            self.context.integer(node, &format!("`{key}`"), min, max)
        };
        let interval = seconds("IntervalSeconds", 1, MAX_ATTEMPTS).unwrap_or(1);
        let max_attempts = seconds("MaxAttempts", 0, MAX_ATTEMPTS).unwrap_or(3);
        let max_delay = seconds("MaxDelaySeconds", 1, MAX_DELAY_SECONDS);
        if let (Some(limit), Some(node)) = (max_delay, fields.get("MaxDelaySeconds"))
            && limit <= interval
        {
            let message =
                format!("`MaxDelaySeconds` has to be greater than the interval, {interval}");
            self.report(Finding::new(Code::InvalidValue, node.span, message));
        }
        let backoff = fields.get("BackoffRate");
        let backoff =
            backoff.and_then(|node| self.context.number(node, "`BackoffRate`", 1.0, f64::MAX));
        let jitter = match fields.get("JitterStrategy") {
            Some(node) => self
                .context
                .word(node, "`JitterStrategy`", &["FULL", "NONE"])?,
            None => "NONE",
        };
        Some(Retrier {
            errors: errors?,
            interval_ms: u64::from(interval) * 1_000,
            max_attempts,
            backoff: backoff.unwrap_or(2.0),
            max_delay_ms: max_delay.map_or(u64::MAX, |limit| u64::from(limit) * 1_000),
            jitter: if jitter == "FULL" {
                Jitter::Full
            } else {
                Jitter::None
            },
        })
    }

    pub(super) fn catches(
        &mut self,
        place: &Place<'_>,
        fields: &Fields<'_>,
        language: Language,
    ) -> Option<Vec<Catcher>> {
        let Some(node) = fields.get("Catch") else {
            return Some(Vec::new());
        };
        let items = self.context.sequence(node, "`Catch`")?;
        let last = items.len().saturating_sub(1);
        let catchers: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(at, item)| self.catcher(place, item, at == last, language))
            .collect();
        catchers.into_iter().collect()
    }

    fn catcher(
        &mut self,
        place: &Place<'_>,
        node: &Node,
        is_last: bool,
        language: Language,
    ) -> Option<Catcher> {
        let (own, other) = match language {
            Language::Path => (CATCHER_PATH, CATCHER_QUERY),
            Language::Query => (CATCHER_QUERY, CATCHER_PATH),
        };
        let fields = self.language_fields(node, "a catcher", own, other, language)?;
        let errors = self.error_equals(&fields, is_last);
        let assign = self.assign(&fields, language);
        let output = fields.get("Output").map(|node| self.query(node, "Output"));
        let result = match language {
            Language::Path => self.result_path(&fields),
            Language::Query => Some(ResultPath::Replace),
        };
        let next = self.context.required(&fields, "Next")?;
        let next = self.target(place.scope, next, "Next");
        Some(Catcher {
            errors: errors?,
            result: result?,
            output: output.flatten(),
            assign,
            next: next?,
        })
    }

    /// `ErrorEquals`: `States.ALL` stands alone and in the last entry.
    fn error_equals(&mut self, fields: &Fields<'_>, is_last: bool) -> Option<Vec<String>> {
        let node = self.context.required(fields, "ErrorEquals")?;
        let items = self.context.sequence(node, "`ErrorEquals`")?;
        if items.is_empty() {
            self.report(Finding::new(
                Code::InvalidValue,
                node.span,
                "`ErrorEquals` names at least one error",
            ));
        }
        let mut errors = Vec::new();
        for item in items {
            let Some(name) = self.context.text(item, "the name of an error") else {
                continue;
            };
            if name == names::ALL && (items.len() > 1 || !is_last) {
                let message = format!("{} has to stand alone, in the last entry", quote(name));
                self.report(
                    Finding::new(Code::InvalidValue, item.span, message)
                        .help("what comes after it would never be looked at"),
                );
            }
            errors.push(name.to_owned());
        }
        (errors.len() == items.len()).then_some(errors)
    }
}

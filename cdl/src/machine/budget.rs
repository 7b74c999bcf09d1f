//! What one event may cost.
//!
//! A shard handles one event at a time, so whatever an event makes it do keeps
//! everybody else waiting. Everything is counted in bytes, as if it were
//! copied: entering a state is [`STEP_BYTES`], a step of an expression a
//! [`EXPRESSION_STEPS`]th of that, and data as much as is moved of it.
//!
//! A single operation may be counted after it was done: each works on one
//! value of the context or of the program, and so is bounded by itself.

use std::borrow::Cow;
use std::{io, mem};

use serde::Serialize;
use serde_json::Value;

use super::limits::{EXPRESSION_STEPS, MAX_STEPS, STEP_BYTES};
use crate::{Failure, Json, errors};

/// The first machine that counts data. Before it only states were counted,
/// and of an expression whole multiples of [`EXPRESSION_STEPS`].
const COUNTS_DATA: u32 = 2;

/// Bytes of a step of an expression.
const EXPRESSION_STEP_BYTES: u64 = STEP_BYTES / EXPRESSION_STEPS;

/// Times that a text is copied when it is written: as it grows, and once more
/// to where it is kept.
const WRITTEN: usize = 2;

/// Texts that are put together are moved in one go, several times as fast as
/// values are made or written. All that frames may hold can be joined once.
const JOINED_SHARE: u64 = 3;

/// What an evaluation without a value counts: its message may suggest one of
/// 64 keys, and each comparison with one takes microseconds.
const FAULT_BYTES: u64 = 64 * STEP_BYTES;

/// What opening and dropping a frame counts.
const FRAME_BYTES: u64 = 128;

/// What looking at a frame on the way to others counts.
const SCAN_BYTES: u64 = 8;

/// What comparing an error's name with one of a `catch` counts.
const NAME_BYTES: u64 = 8;

/// What a value counts besides its text: a number, or the place of an entry.
const SCALAR: u64 = 16;

/// The same of a list or a string.
const LIST: u64 = 32;

/// The same of an object: its node has room for eleven entries, used or not.
const OBJECT: u64 = 96;

/// What is counted of one event.
pub(super) struct Budget {
    counts_data: bool,
    spent: u64,
    /// Whether a value was read from a text already.
    read: bool,
}

impl Budget {
    /// The budget of an event of an execution that keeps to this machine.
    pub(super) fn of(machine: u32) -> Self {
        Self {
            counts_data: machine >= COUNTS_DATA,
            spent: 0,
            read: false,
        }
    }

    /// Counts a state that is entered.
    pub(super) fn state(&mut self) -> Result<(), Failure> {
        self.charge(STEP_BYTES)
    }

    /// Most steps that an evaluation may take now: one more than there are,
    /// so that [`Self::evaluation`] sees that it wanted more. None if it is
    /// not to end early.
    pub(super) fn steps_left(&self) -> Option<usize> {
        let left = (MAX_STEPS * STEP_BYTES).saturating_sub(self.spent) / EXPRESSION_STEP_BYTES;
        self.counts_data
            .then(|| usize::try_from(left + 1).unwrap_or(usize::MAX))
    }

    /// Counts an evaluation.
    pub(super) fn evaluation(&mut self, steps: usize) -> Result<(), Failure> {
        let steps = steps as u64;
        self.charge(if self.counts_data {
            steps * EXPRESSION_STEP_BYTES
        } else {
            steps / EXPRESSION_STEPS * STEP_BYTES
        })
    }

    /// Counts an evaluation's error.
    pub(super) fn fault(&mut self) -> Result<(), Failure> {
        self.data(FAULT_BYTES)
    }

    /// Counts frames that are opened together.
    pub(super) fn frames(&mut self, count: usize) -> Result<(), Failure> {
        self.data(count as u64 * FRAME_BYTES)
    }

    /// Counts frames that are looked through.
    pub(super) fn scan(&mut self, count: usize) -> Result<(), Failure> {
        self.data(count as u64 * SCAN_BYTES)
    }

    /// Counts the names that an error's is compared with.
    pub(super) fn names(&mut self, count: usize) -> Result<(), Failure> {
        self.data(count as u64 * NAME_BYTES)
    }

    /// Counts `bytes` of text that are copied, written or measured.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Failure> {
        self.data(bytes as u64)
    }

    /// Counts texts of `bytes` that are about to be put together.
    pub(super) fn join(&mut self, bytes: usize) -> Result<(), Failure> {
        self.data(bytes as u64 / JOINED_SHARE)
    }

    /// Counts a text that is about to be read.
    ///
    /// The first one is most often what the event brought. It counts as text
    /// only, though making values takes longer, so that whatever the context
    /// has room for gets into it. Any other counts as what it becomes.
    pub(super) fn read(&mut self, text: &Json) -> Result<(), Failure> {
        let first = !mem::replace(&mut self.read, true);
        self.text(text.len())?;
        if first || !self.counts_data {
            return Ok(());
        }
        self.data(weight_of_text(text.as_str()))
    }

    /// `value` as one that can be kept. Counts the copy before making it.
    pub(super) fn own(&mut self, value: Cow<'_, Value>) -> Result<Value, Failure> {
        match value {
            // Counted by the evaluation that made it.
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                if self.counts_data {
                    self.data(weight(value))?;
                }
                Ok(value.clone())
            }
        }
    }

    /// The text of `value`, counted.
    pub(super) fn write(&mut self, value: &(impl Serialize + ?Sized)) -> Result<Json, Failure> {
        let text = Json::from_entries(value);
        self.text(text.len() * WRITTEN)?;
        Ok(text)
    }

    /// Length of `value` as text, in bytes, counted.
    pub(super) fn measure(&mut self, value: &Value) -> Result<u64, Failure> {
        let bytes = text_len(value);
        self.data(bytes)?;
        Ok(bytes)
    }

    fn data(&mut self, bytes: u64) -> Result<(), Failure> {
        if self.counts_data {
            self.charge(bytes)
        } else {
            Ok(())
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), Failure> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent <= MAX_STEPS * STEP_BYTES {
            return Ok(());
        }
        // Old histories end by the words that they ended by.
        let message = if self.counts_data {
            format!(
                "one event took more than {MAX_STEPS} steps without waiting, a step being a state or \
                 {STEP_BYTES} bytes of data: an endless loop, or too much data at a time?"
            )
        } else {
            format!(
                "one event led through more than {MAX_STEPS} steps without waiting: an endless loop?"
            )
        };
        Err(Failure::new(errors::STEP_LIMIT, message))
    }
}

/// Bytes that a copy of `value` counts: its texts, and for each value about
/// what making and dropping it takes, were it text.
fn weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
        Value::String(text) => LIST + text.len() as u64,
        Value::Array(items) => LIST + items.iter().map(weight).sum::<u64>(),
        Value::Object(map) => {
            let entries = map.iter();
            OBJECT
                + entries
                    .map(|(key, item)| SCALAR + key.len() as u64 + weight(item))
                    .sum::<u64>()
        }
    }
}

/// What the value that `text` stands for would count, or more: a comma or bracket
/// in a string is taken for one of a list, each quote for half a string.
fn weight_of_text(text: &str) -> u64 {
    let count = |byte| match byte {
        b',' | b':' => SCALAR,
        b'"' => LIST / 2,
        b'[' => LIST,
        b'{' => OBJECT,
        _ => 0,
    };
    text.len() as u64 + text.bytes().map(count).sum::<u64>()
}

/// Length of `value` as text, in bytes.
pub(super) fn text_len(value: &Value) -> u64 {
    struct Count(u64);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    serde_json::to_writer(&mut count, value)
        .expect("a JSON value is text, and counting cannot fail");
    count.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `count` counts, for an execution of this machine.
    fn spent(machine: u32, count: impl FnOnce(&mut Budget) -> Result<(), Failure>) -> u64 {
        let mut budget = Budget::of(machine);
        count(&mut budget).expect("there is room");
        budget.spent
    }

    /// What histories were counted by: other values ask for a new `SEMANTICS`.
    #[test]
    fn the_rules_are_what_histories_were_counted_by() {
        assert_eq!((EXPRESSION_STEP_BYTES, FAULT_BYTES), (64, 262_144));
    }

    /// Expected values: the rules at the constants, for so many of each.
    #[test]
    fn each_thing_counts_by_its_rule() {
        assert_eq!(spent(2, Budget::state), STEP_BYTES);
        assert_eq!(spent(2, Budget::fault), FAULT_BYTES);
        assert_eq!(spent(2, |b| b.frames(3)), 3 * FRAME_BYTES);
        assert_eq!(spent(2, |b| b.scan(5)), 5 * SCAN_BYTES);
        assert_eq!(spent(2, |b| b.names(7)), 7 * NAME_BYTES);
        assert_eq!(spent(2, |b| b.text(11)), 11);
        assert_eq!(spent(2, |b| b.join(30)), 10);
        assert_eq!(spent(2, |b| b.evaluation(64)), STEP_BYTES);
        assert_eq!(spent(2, |b| b.evaluation(1)), STEP_BYTES / 64);
        // `[1,"a"]` has seven bytes, and is written twice.
        let value = json!([1, "a"]);
        assert_eq!(spent(2, |b| b.write(&value).map(drop)), 14);
        assert_eq!(spent(2, |b| b.measure(&value).map(drop)), 7);
    }

    #[test]
    fn an_old_machine_counts_states_and_whole_steps_of_expressions_only() {
        let value = json!([1, "a"]);
        for count in [
            spent(1, Budget::fault),
            spent(1, |b| b.frames(3)),
            spent(1, |b| b.text(11)),
            spent(1, |b| b.join(30)),
            spent(1, |b| b.write(&value).map(drop)),
            spent(1, |b| b.read(&Json::from_value(&value))),
            spent(1, |b| b.own(Cow::Borrowed(&value)).map(drop)),
            spent(1, |b| b.evaluation(63)),
        ] {
            assert_eq!(count, 0);
        }
        assert_eq!(spent(1, Budget::state), STEP_BYTES);
        assert_eq!(spent(1, |b| b.evaluation(130)), 2 * STEP_BYTES);
        assert_eq!(Budget::of(1).steps_left(), None);
    }

    #[test]
    fn the_first_text_counts_as_text_and_any_other_as_what_it_becomes() {
        let text = Json::from_value(&json!([0, 0]));
        assert_eq!(spent(2, |b| b.read(&text)), 5);
        let twice = spent(2, |b| b.read(&text).and_then(|()| b.read(&text)));
        // A list and a comma on top of the text itself, which is copied and read.
        assert_eq!(twice, 5 + 5 + (5 + LIST + SCALAR));
    }

    #[test]
    fn a_copy_counts_by_its_values_and_what_is_owned_was_counted_before() {
        let value = json!({"key": ["text", 1, null]});
        let weighed = OBJECT + SCALAR + 3 + LIST + (LIST + 4) + SCALAR + SCALAR;
        assert_eq!(
            spent(2, |b| b.own(Cow::Borrowed(&value)).map(drop)),
            weighed
        );
        assert_eq!(spent(2, |b| b.own(Cow::Owned(value)).map(drop)), 0);
        // `{"a":"b"}`: its nine bytes, an object, a colon, and four quotes, each half a string.
        assert_eq!(
            weight_of_text(r#"{"a":"b"}"#),
            9 + OBJECT + SCALAR + 2 * LIST
        );
    }

    #[test]
    fn all_may_be_spent_and_no_more() {
        let all = usize::try_from(MAX_STEPS * STEP_BYTES).expect("it fits");
        for machine in [1, 2] {
            let mut budget = Budget::of(machine);
            for _ in 0..MAX_STEPS {
                budget.state().expect("there is room");
            }
            let failure = budget.state().expect_err("one too many");
            assert_eq!(failure.error, errors::STEP_LIMIT);
        }
        let mut budget = Budget::of(2);
        // One more than there are, to see that somebody wants more.
        assert_eq!(budget.steps_left(), Some(all / 64 + 1));
        budget.text(all - 64).expect("there is room");
        assert_eq!(budget.steps_left(), Some(2));
        budget.text(64).expect("there is room");
        assert_eq!(budget.steps_left(), Some(1));
        budget.text(1).expect_err("one too many");
        assert_eq!(budget.steps_left(), Some(1));
    }
}

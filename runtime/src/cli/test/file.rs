//! What stands in a `*.test.yaml`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cascade_cdl::Timestamp;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::units::optional_duration;

/// A file of tests of one workflow.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// `FILE`, `FILE#WORKFLOW` or `#WORKFLOW`; without a file it is the one beside that has the same
    /// name.
    pub workflow: Option<String>,
    /// What the ARNs of a definition in the States Language are bound to.
    pub bindings: Option<String>,
    /// Folder of the activities that are not mocked.
    pub activities: Option<String>,
    /// Replies by activity or state.
    pub mocks: BTreeMap<String, Replies>,
    pub tests: Vec<Test>,
}

/// One execution and what is expected of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Test {
    pub name: String,
    /// When it starts.
    #[serde(deserialize_with = "timestamp")]
    pub at: Option<Timestamp>,
    #[serde(deserialize_with = "present")]
    pub input: Option<Value>,
    /// They go before those of the file.
    pub mocks: BTreeMap<String, Replies>,
    pub signals: Vec<Signal>,
    /// Of people and of whoever has the token of a task, by state.
    pub answers: BTreeMap<String, Replies>,
    pub cancel: Option<Cancel>,
    pub expect: Expect,
}

/// What an activity does instead of running, one call after the other.
#[derive(Debug)]
pub(super) enum Replies {
    /// It runs after all.
    Real,
    One(Box<Reply>),
    Many(Vec<Reply>),
}

/// What one call comes to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reply {
    /// Only for calls whose input has this in it.
    #[serde(deserialize_with = "present")]
    pub when: Option<Value>,
    #[serde(deserialize_with = "present")]
    pub returns: Option<Value>,
    pub fails: Option<Fails>,
    /// It never ends.
    pub hangs: bool,
    /// How long it takes.
    #[serde(with = "optional_duration")]
    pub after: Option<Duration>,
    /// For so many calls, one by default; the last reply is for all that come.
    pub times: Option<u32>,
}

/// An error of an activity.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fails {
    pub error: String,
    pub message: String,
    pub retryable: Option<bool>,
    pub details: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Signal {
    pub name: String,
    #[serde(deserialize_with = "present")]
    pub payload: Option<Value>,
    /// From the start.
    #[serde(with = "optional_duration")]
    pub after: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cancel {
    pub reason: String,
    /// From the start.
    #[serde(with = "optional_duration")]
    pub after: Option<Duration>,
}

/// What is not given may be anything, but for the status.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    pub status: Option<Ending>,
    /// The states that are entered, in order; `...` stands for any.
    pub path: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    pub output: Option<Value>,
    /// What the output has among others.
    #[serde(deserialize_with = "present")]
    pub contains: Option<Value>,
    pub error: Option<ExpectedError>,
    /// By activity or state.
    pub calls: BTreeMap<String, Calls>,
    /// From the first event to the last.
    #[serde(with = "optional_duration")]
    pub took: Option<Duration>,
}

/// How an execution ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    /// It does not: it waits for what nobody sends.
    Waiting,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
        })
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExpectedError {
    pub name: String,
    /// A part of the message.
    pub message: Option<String>,
    pub state: Option<String>,
}

/// How often something is called.
#[derive(Debug, PartialEq)]
pub(super) enum Calls {
    Times(u64),
    /// What the input of each call has in it, in order.
    Inputs(Vec<Value>),
}

impl File {
    /// How a test is expected to end.
    pub(super) fn ending(expect: &Expect) -> Ending {
        expect.status.unwrap_or(if expect.error.is_some() {
            Ending::Failed
        } else {
            Ending::Completed
        })
    }
}

impl Replies {
    /// Each of them; none if it is to run.
    pub(super) fn list(&self) -> &[Reply] {
        match self {
            Self::Real => &[],
            Self::One(reply) => std::slice::from_ref(reply),
            Self::Many(replies) => replies,
        }
    }
}

/// A value that is there even if it is `null`.
fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

fn timestamp<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(input)?;
    let at = text.parse::<jiff::Timestamp>().ok();
    let ms = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    ms.map(|ms| Some(Timestamp(ms))).ok_or_else(|| {
        let expected = "a time since 1970 such as `2026-01-31T09:30:00Z`";
        D::Error::invalid_value(Unexpected::Str(&text), &expected)
    })
}

impl<'de> Deserialize<'de> for Replies {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(RepliesVisitor)
    }
}

struct RepliesVisitor;

impl<'de> Visitor<'de> for RepliesVisitor {
    type Value = Replies;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply such as `{returns: 1}`, a list of replies, or `real`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Replies, E> {
        match text {
            "real" => Ok(Replies::Real),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Replies, A::Error> {
        Reply::deserialize(MapAccessDeserializer::new(map)).map(|one| Replies::One(Box::new(one)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Replies, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Replies::Many)
    }
}

impl<'de> Deserialize<'de> for Fails {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            error: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            retryable: Option<bool>,
            #[serde(default)]
            details: Option<Value>,
        }

        let read = input.deserialize_any(NameOr::<Long>::new(
            "the name of an error, or `{error, message, retryable, details}`",
        ))?;
        Ok(match read {
            Either::Name(error) => Self {
                error,
                ..Self::default()
            },
            Either::Long(long) => Self {
                error: long.error,
                message: long.message,
                retryable: long.retryable,
                details: long.details,
            },
        })
    }
}

impl<'de> Deserialize<'de> for ExpectedError {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            name: String,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            state: Option<String>,
        }

        let read = input.deserialize_any(NameOr::<Long>::new(
            "the name of an error, or `{name, message, state}`",
        ))?;
        Ok(match read {
            Either::Name(name) => Self {
                name,
                ..Self::default()
            },
            Either::Long(long) => Self {
                name: long.name,
                message: long.message,
                state: long.state,
            },
        })
    }
}

enum Either<T> {
    Name(String),
    Long(T),
}

/// Reads a text, or a mapping that says more.
struct NameOr<T> {
    expected: &'static str,
    long: std::marker::PhantomData<T>,
}

impl<T> NameOr<T> {
    fn new(expected: &'static str) -> Self {
        Self {
            expected,
            long: std::marker::PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for NameOr<T> {
    type Value = Either<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Either::Name(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Either::Long)
    }
}

impl<'de> Deserialize<'de> for Calls {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(CallsVisitor)
    }
}

struct CallsVisitor;

impl<'de> Visitor<'de> for CallsVisitor {
    type Value = Calls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of calls, or a list with what the input of each has in it")
    }

    fn visit_u64<E: Error>(self, times: u64) -> Result<Calls, E> {
        Ok(Calls::Times(times))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Calls, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Calls::Inputs)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(yaml: &str) -> Result<T, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_null_is_given_all_the_same() {
        let test: Test = read("input: null\nexpect: { output: null }").expect("a test");
        assert_eq!(test.input, Some(Value::Null));
        assert_eq!(test.expect.output, Some(Value::Null));
        assert_eq!(test.expect.contains, None);
        let reply: Reply = read("returns:").expect("a reply");
        assert_eq!(reply.returns, Some(Value::Null));
    }

    #[test]
    fn errors_and_calls_have_short_and_long_forms() {
        let short: Fails = read("Declined").expect("a name");
        let long = "{ error: Declined, message: no, retryable: false, details: [1] }";
        let long: Fails = read(long).expect("a mapping");
        assert_eq!((short.error, short.retryable), ("Declined".into(), None));
        let expected = Fails {
            error: "Declined".to_owned(),
            message: "no".to_owned(),
            retryable: Some(false),
            details: Some(json!([1])),
        };
        assert_eq!(long, expected);
        let expected = ExpectedError {
            name: "Declined".to_owned(),
            message: Some("no".to_owned()),
            state: None,
        };
        assert_eq!(read("{ name: Declined, message: no }"), Ok(expected));
        assert_eq!(read("2"), Ok(Calls::Times(2)));
        assert_eq!(read("[{a: 1}]"), Ok(Calls::Inputs(vec![json!({"a": 1})])));
    }

    #[test]
    fn a_mock_is_a_reply_a_list_or_the_activity_itself() {
        for (yaml, replies) in [
            ("real", 0),
            ("{ returns: 1 }", 1),
            ("[{ fails: X, times: 2 }, { hangs: true }]", 2),
        ] {
            let read: Replies = read(yaml).expect(yaml);
            assert_eq!(read.list().len(), replies, "{yaml}");
        }
        for yaml in ["fake", "1", "[1]", "{ retruns: 1 }", "{ after: soon }"] {
            assert!(read::<Replies>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn an_error_that_is_expected_is_a_failure_that_is() {
        for (yaml, ending) in [
            ("{}", Ending::Completed),
            ("{ error: X }", Ending::Failed),
            ("{ status: timed_out }", Ending::TimedOut),
        ] {
            let expect: Expect = read(yaml).expect(yaml);
            assert_eq!(File::ending(&expect), ending, "{yaml}");
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        let at = |text: &str| read::<Test>(&format!("at: {text}")).map(|test| test.at);
        // The first second of 1970.
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(Some(Timestamp(1_000))));
        for text in ["1969-12-31T23:59:59Z", "tomorrow", "7"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}

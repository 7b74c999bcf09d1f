//! What attempts give in a run: mocks, and real activities in the real sandbox.
//!
//! An activity sees its input, its attempt, the time of its scheduling, and the
//! key-value store of its run. Of those it is a function, so what it gave once is
//! remembered, together with what it asked the store and was told: a thousand runs cost
//! not many more attempts than one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cascade_cdl::expression::{Env, Template};
use cascade_cdl::program::{Program, Resource};
use cascade_cdl::{ActivityFailure, ActivityTask, ExecutionId, Json, Receipt, TenantId};

use super::super::error::Error;
use super::super::local::{Caller, Local};
use super::super::object_files::ObjectFiles;
use super::super::source::Found;
use super::super::{input, run};
use crate::sandbox::{Cancel, Capability, KeyValue, KeyValueError, NoLog};

/// Texts of inputs and outputs that are remembered, in bytes. Beyond, attempts run again:
/// slower, with the same result.
const MAX_REMEMBERED: usize = 256 << 20;

/// What remembering takes beside them, in bytes, roughly.
const REMEMBERED_OVERHEAD: usize = 1 << 10;

/// How long an attempt of a mock may take, as the sandbox's default has it.
const MOCK_LIMIT_MS: u64 = 60_000;

/// The keys and values of one run.
pub(super) type Values = BTreeMap<String, Vec<u8>>;

/// Everything that can be attempted.
pub(super) struct Activities {
    local: Local,
    store: Store,
    known: BTreeMap<Arc<str>, Known>,
    objects: ObjectFiles,
    remembered: HashMap<Asked, Vec<Remembered>>,
    /// Bytes of it, roughly.
    bytes: usize,
}

enum Known {
    /// This, with expressions over the input in it.
    Mock(Template),
    /// A module.
    Module {
        /// Whether it starts before its cause is durable.
        pure: bool,
        /// Whether its results can be remembered.
        repeats: bool,
        limit_ms: u64,
    },
}

/// What an attempt was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    name: Arc<str>,
    state: Arc<str>,
    task: u64,
    attempt: u32,
    scheduled_at: u64,
    input: String,
}

/// What came of it.
pub(super) struct Given {
    pub(super) result: Result<Json, ActivityFailure>,
    pub(super) receipt: Receipt,
}

struct Remembered {
    calls: Vec<(Call, Answer)>,
    result: Result<Json, ActivityFailure>,
    receipt: Receipt,
}

/// What the command line says of activities.
pub(super) struct Mocks {
    known: BTreeMap<Arc<str>, Known>,
    /// Whether what reaches beyond this process does so.
    real: bool,
}

impl Mocks {
    /// Reads `NAME=JSON` or `NAME=@FILE`.
    pub(super) fn read(given: &[String], real: bool) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for text in given {
            let Some((name, value)) = text.split_once('=') else {
                return Err(Error::usage(format!("`{text}` is not NAME=JSON")));
            };
            let value = input::read(Some(value))?;
            let template = Template::from_value(&value)
                .map_err(|error| Error::usage(format!("the mock of `{name}`: {error}")))?;
            known.insert(name.into(), Known::Mock(template));
        }
        Ok(Self { known, real })
    }

    /// Whether nothing is left that would have to be looked for.
    pub(super) fn cover(&self, program: &Program) -> bool {
        let mut needed = program.resources().chain(program.children());
        needed.all(|resource| self.known.contains_key(&resource.name))
    }
}

impl Activities {
    /// Compiles what the program needs of `found`; what has neither a module nor a mock
    /// is told together.
    pub(super) async fn open(
        program: &Program,
        found: Vec<Found>,
        mocks: Mocks,
        objects: ObjectFiles,
    ) -> Result<Self, Error> {
        let Mocks { mut known, real } = mocks;
        let needed: Vec<&Resource> = program.resources().chain(program.children()).collect();
        let runs = |name: &str| {
            let needs = |resource: &&Resource| resource.child.is_none() && *resource.name == *name;
            needed.iter().any(needs) && !known.contains_key(name)
        };
        let found = found.into_iter().filter(|found| runs(&found.name));
        let store = Store::default();
        let local = Local::over(found.collect(), Arc::new(store.clone())).await?;
        let mut problems = BTreeSet::new();
        for resource in needed {
            let name = &resource.name;
            if known.contains_key(name) {
                continue;
            }
            let module = local.activity(resource);
            let Some(module) = module.filter(|_| resource.child.is_none()) else {
                problems.insert(missing(resource));
                continue;
            };
            let beyond = |power: &Capability| *power != Capability::KeyValue;
            let reaches: Vec<_> = module.powers().iter().copied().filter(beyond).collect();
            if !reaches.is_empty() && !real {
                problems.insert(reaching(name, &reaches));
                continue;
            }
            let module = Known::Module {
                pure: module.powers().is_empty(),
                repeats: reaches.is_empty(),
                limit_ms: module.timeout_ms(),
            };
            known.insert(name.clone(), module);
        }
        if !problems.is_empty() {
            let problems: Vec<_> = problems.into_iter().collect();
            return Err(Error::usage(problems.join("; ")).hint(
                "--activities names the folder of activities, --mock 'NAME=JSON' gives an \
                 output, --real lets activities reach out",
            ));
        }
        Ok(Self {
            local,
            store,
            known,
            objects,
            remembered: HashMap::new(),
            bytes: 0,
        })
    }

    /// Whether it starts before its cause is durable.
    pub(super) fn is_pure(&self, resource: &Resource) -> bool {
        matches!(
            self.known.get(&resource.name),
            Some(Known::Module { pure: true, .. })
        )
    }

    /// How long the sandbox lets an attempt run.
    pub(super) fn limit_ms(&self, resource: &Resource) -> u64 {
        match self.known.get(&resource.name) {
            Some(Known::Module { limit_ms, .. }) => *limit_ms,
            _ => MOCK_LIMIT_MS,
        }
    }

    /// Runs one attempt over the store of its run.
    pub(super) async fn run(
        &mut self,
        caller: &Caller<'_>,
        task: &ActivityTask,
        values: &mut Values,
    ) -> Result<Given, Error> {
        if let Some(result) = self.objects.answer(task) {
            return Ok(Given {
                result,
                receipt: Receipt::default(),
            });
        }
        let repeats = match self.known.get(&task.resource.name) {
            Some(Known::Mock(template)) => return mocked(template, caller.execution, task),
            Some(Known::Module { repeats, .. }) => *repeats,
            None => false,
        };
        let asked = Asked {
            name: task.resource.name.clone(),
            state: task.state.clone(),
            task: task.task.0,
            attempt: task.attempt,
            scheduled_at: task.scheduled_at.0,
            input: task.input.as_str().to_owned(),
        };
        if let Some(known) = self.recall(&asked, values) {
            return Ok(known);
        }
        self.store.lend(std::mem::take(values));
        let outcome = self
            .local
            .run_logging(caller, task, Cancel::default(), Arc::new(NoLog))
            .await;
        let (after, calls) = self.store.take_back();
        *values = after;
        let receipt = Receipt {
            // The only part of it that differs from one run to the next.
            duration_us: 0,
            ..outcome.receipt
        };
        if repeats && self.bytes < MAX_REMEMBERED {
            let output = outcome.result.as_ref().map_or(0, Json::len);
            let calls_bytes: usize = calls.iter().map(|(call, answer)| call.bytes(answer)).sum();
            self.bytes += asked.input.len() + output + calls_bytes + REMEMBERED_OVERHEAD;
            self.remembered.entry(asked).or_default().push(Remembered {
                calls,
                result: outcome.result.clone(),
                receipt: receipt.clone(),
            });
        }
        Ok(Given {
            result: outcome.result,
            receipt,
        })
    }

    /// What it gave when it was asked the same and the store told it the same.
    fn recall(&self, asked: &Asked, values: &mut Values) -> Option<Given> {
        let remembered = self.remembered.get(asked)?;
        remembered.iter().find_map(|remembered| {
            if !remembered.calls.is_empty() {
                let mut after = values.clone();
                let mut calls = remembered.calls.iter();
                if !calls.all(|(call, answer)| call.make(&mut after) == *answer) {
                    return None;
                }
                *values = after;
            }
            Some(Given {
                result: remembered.result.clone(),
                receipt: remembered.receipt.clone(),
            })
        })
    }
}

fn missing(resource: &Resource) -> String {
    if resource.child.is_some() {
        format!("`{resource}` would be an execution of its own and needs a mock")
    } else {
        format!("there is no activity `{resource}` here")
    }
}

fn reaching(name: &str, powers: &[Capability]) -> String {
    let powers: Vec<_> = powers.iter().map(|power| power.name()).collect();
    let powers = powers.join(", ");
    format!("activity `{name}` reaches beyond the simulation ({powers})")
}

fn mocked(template: &Template, id: ExecutionId, task: &ActivityTask) -> Result<Given, Error> {
    let context = task.input.to_value();
    let value = template.eval(&Env {
        context: &context,
        overlays: &[],
        locals: &[],
        now: task.scheduled_at,
        shards: run::SHARDS,
        id,
        seq: task.task.0,
    });
    let value = value.map_err(|error| {
        let name = &task.resource.name;
        Error::usage(format!("the mock of `{name}`: {error}"))
            .hint("its expressions see the activity's input as `$`")
    })?;
    Ok(Given {
        result: Ok(Json::from_value(&value)),
        receipt: Receipt::default(),
    })
}

/// A call of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Get(String),
    Set(String, Vec<u8>),
    CompareAndSet {
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    },
    Delete(String),
}

/// What it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Value(Option<Vec<u8>>),
    Holds(bool),
    Done,
}

impl Call {
    /// What it and its answer carry.
    fn bytes(&self, answer: &Answer) -> usize {
        let len = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let asked = match self {
            Self::Get(key) | Self::Delete(key) => key.len(),
            Self::Set(key, value) => key.len() + value.len(),
            Self::CompareAndSet {
                key,
                expected,
                value,
            } => key.len() + len(expected) + value.len(),
        };
        asked
            + match answer {
                Answer::Value(value) => len(value),
                Answer::Holds(_) | Answer::Done => 0,
            }
    }

    fn make(&self, values: &mut Values) -> Answer {
        match self {
            Self::Get(key) => Answer::Value(values.get(key).cloned()),
            Self::Set(key, value) => {
                values.insert(key.clone(), value.clone());
                Answer::Done
            }
            Self::CompareAndSet {
                key,
                expected,
                value,
            } => {
                let holds = values.get(key) == expected.as_ref();
                if holds {
                    values.insert(key.clone(), value.clone());
                }
                Answer::Holds(holds)
            }
            Self::Delete(key) => {
                values.remove(key);
                Answer::Done
            }
        }
    }
}

/// The key-value store that the sandbox sees: that of the run which has lent it.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Lent>>);

#[derive(Default)]
struct Lent {
    values: Values,
    calls: Vec<(Call, Answer)>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self, values: Values) {
        *self.lock() = Lent {
            values,
            calls: Vec::new(),
        };
    }

    fn take_back(&self) -> (Values, Vec<(Call, Answer)>) {
        let lent = std::mem::take(&mut *self.lock());
        (lent.values, lent.calls)
    }

    fn call(&self, call: Call) -> Answer {
        let mut lent = self.lock();
        let answer = call.make(&mut lent.values);
        lent.calls.push((call, answer.clone()));
        answer
    }
}

#[async_trait]
impl KeyValue for Store {
    async fn get(&self, _: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        match self.call(Call::Get(key.to_owned())) {
            Answer::Value(value) => Ok(value),
            Answer::Holds(_) | Answer::Done => Ok(None),
        }
    }

    async fn set(&self, _: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.call(Call::Set(key.to_owned(), value));
        Ok(())
    }

    async fn compare_and_set(
        &self,
        _: &TenantId,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        let call = Call::CompareAndSet {
            key: key.to_owned(),
            expected,
            value,
        };
        Ok(self.call(call) == Answer::Holds(true))
    }

    async fn delete(&self, _: &TenantId, key: &str) -> Result<(), KeyValueError> {
        self.call(Call::Delete(key.to_owned()));
        Ok(())
    }
}

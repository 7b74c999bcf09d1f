//! What each key of the language is: the tables that the schema and the editor read.

use super::super::fields::Shape;
use super::super::{child, document, map, policies, rates, schedules, states, waiting, workflow};
use crate::machine::limits::{MAX_BRANCHES, MAX_ITEMS};
use crate::schedule::{CatchUp, Overlap};
use crate::spread;

/// What the value of a key is.
#[derive(Clone, Copy)]
pub(in crate::front) enum Kind {
    Flag,
    /// Anything, with expressions in it.
    Template,
    /// A list, or an expression that gives one.
    Items,
    Integer(u32, u32),
    Number(f64, f64),
    Word(&'static [&'static str]),
    /// What stands under `$defs`.
    Def(&'static str),
    /// A list of at most so many, at least one.
    List(&'static str, usize),
    /// A list that may be empty.
    Any(&'static str, usize),
    /// Things by name.
    Named(&'static str),
    /// A list of things with names, or a mapping from names to them.
    Things(&'static str),
    /// Branches, which are things with a limit.
    Branches,
    /// An error name, or several.
    Errors,
    /// A rate, or a mapping with one.
    Rate,
}

use Kind::{Any, Def, Errors, Flag, Integer, Items, List, Named, Number, Template, Things, Word};

/// A key: of which shape (`*` if of all that have no row of their own), its name, what its
/// value is, and what it is for.
pub(in crate::front) type Row = (&'static str, &'static str, Kind, &'static str);

/// [`MAX_BRANCHES`] as numbers of a file are held.
#[expect(clippy::cast_possible_truncation, reason = "it is small")]
pub(super) const BRANCHES: u32 = MAX_BRANCHES as u32;

const TEXT: Kind = Def("text");
const NAME: Kind = Def("name");
const STATE_NAME: Kind = Def("state-name");
const DURATION: Kind = Def("duration");

pub(super) const KEYS: &[Row] = &[
    (
        "*",
        "apiVersion",
        Word(&[document::API_VERSION]),
        "The version of the language.",
    ),
    (
        "*",
        "kind",
        Word(&[document::KIND]),
        "What the file declares.",
    ),
    (
        "*",
        "metadata",
        Def("metadata"),
        "What the application is called.",
    ),
    (
        "*",
        "spec",
        Def("spec"),
        "What the application consists of.",
    ),
    ("metadata", "name", NAME, "Name of the application."),
    (
        "*",
        "namespace",
        NAME,
        "Namespace of the application; `default` if not given.",
    ),
    (
        "*",
        "labels",
        Named("text"),
        "Text by name, to find the application by.",
    ),
    (
        "*",
        "annotations",
        Named("text"),
        "Text by name, for people and tools.",
    ),
    (
        "*",
        "workflows",
        Things("workflow"),
        "Workflows: a list with `name`, or a mapping from names.",
    ),
    (
        "*",
        "schemas",
        Named("schema"),
        "JSON Schemas by name, for inputs and HumanTask states.",
    ),
    (
        "*",
        "schedules",
        Things("schedule"),
        "What starts workflows by the time: a list with `name`, or a mapping from names.",
    ),
    ("schedule", "name", NAME, "Name of the schedule."),
    (
        "schedule",
        "workflow",
        NAME,
        "The workflow to start, one of this application.",
    ),
    (
        "*",
        "cron",
        Def("cron"),
        "When, as `minute hour day month weekday`: `0 9 * * MON-FRI`, or a list of such.",
    ),
    (
        "*",
        "timezone",
        TEXT,
        "Whose clocks `cron` is about, as in `Europe/Berlin`; `UTC` if not given.",
    ),
    (
        "*",
        "interval",
        DURATION,
        "From one time to the next, as in `15m`, counted from 1970 on.",
    ),
    (
        "*",
        "offset",
        DURATION,
        "By how much all times of an interval are later, as in `5m`.",
    ),
    (
        "*",
        "start_at",
        TEXT,
        "The first time that counts, as in `2030-01-31T09:00:00Z`.",
    ),
    (
        "*",
        "end_at",
        TEXT,
        "The last time that counts, as in `2030-12-31T09:00:00Z`.",
    ),
    (
        "schedule",
        "jitter",
        DURATION,
        "By how much starts are spread at most, as in `30s`.",
    ),
    (
        "schedule",
        "input",
        Template,
        "Input of the execution, a template over `schedule.name` and `schedule.at`.",
    ),
    (
        "*",
        "catch_up",
        Def("catch-up-or-word"),
        "What happens to times that were missed: `none`, `last`, or `{ policy: all, window: 1h }`.",
    ),
    (
        "*",
        "policy",
        Word(CatchUp::WORDS),
        "Which missed times are made up for: none, the last, or all.",
    ),
    (
        "*",
        "window",
        DURATION,
        "How old a missed time may be, as in `1h`.",
    ),
    (
        "*",
        "overlap",
        Word(Overlap::WORDS),
        "What happens while an earlier execution runs; `skip` if not given.",
    ),
    (
        "*",
        "paused",
        Flag,
        "`true` if it starts nothing until somebody resumes it.",
    ),
    ("workflow", "name", NAME, "Name of the workflow."),
    (
        "branch",
        "name",
        NAME,
        "Name of the branch; its output stands under it.",
    ),
    (
        "*",
        "name",
        STATE_NAME,
        "Name of the state, unique in its scope.",
    ),
    ("*", "description", TEXT, "What it is for, for people."),
    (
        "*",
        "start",
        STATE_NAME,
        "The state that runs first; the first of the file if not given.",
    ),
    (
        "*",
        "states",
        Things("state"),
        "States: a list with `name`, or a mapping from names.",
    ),
    (
        "workflow",
        "timeout",
        DURATION,
        "How long an execution may take, as in `1h30m`.",
    ),
    ("*", "input", Def("input"), "What the input looks like."),
    (
        "workflow",
        "output",
        Template,
        "Output of the execution, a template; the context if not given.",
    ),
    (
        "workflow",
        "priority",
        Integer(1, 5),
        "How urgent executions are, 1 the most; 3 if not given. A start can say otherwise.",
    ),
    (
        "*",
        "priority",
        Integer(1, 5),
        "How urgent attempts are among those of the tenant, 1 the most; as the execution if not given.",
    ),
    (
        "*",
        "rate_limit",
        Kind::Rate,
        "How often attempts of this state may begin, those of all executions together, as in `10/s`.",
    ),
    (
        "*",
        "start_rate_limit",
        Kind::Rate,
        "How often executions may be started, as in `100/m`; beyond it starts are refused.",
    ),
    (
        "*",
        "rate",
        Def("rate"),
        "How often: `10/s`, `300/m`, `1000/h`.",
    ),
    (
        "*",
        "burst",
        Integer(1, rates::MAX_COUNT),
        "How many may come at once after a pause.",
    ),
    (
        "workflow",
        "shard_key",
        Def("key-template"),
        "What executions are placed by, as in `{{ $.workflow.input.customer_id }}`; their ids if not given.",
    ),
    (
        "workflow",
        "attributes",
        Named("attribute"),
        "What executions are found by: values by name, as in `total: \"{{ $.order.total }}\"`.",
    ),
    (
        "*",
        "output",
        Template,
        "Output of the workflow or branch, a template.",
    ),
    (
        "*",
        "resource",
        Def("resource"),
        "The activity: `urn:cascade:activity:NAME[:VERSION][@REGION]`.",
    ),
    (
        "Pass",
        "parameters",
        Template,
        "The value to compute, a template.",
    ),
    (
        "HumanTask",
        "parameters",
        Template,
        "What the person is shown, a template.",
    ),
    (
        "*",
        "parameters",
        Template,
        "Input of the activity, a template.",
    ),
    (
        "SubWorkflow",
        "parameters",
        Template,
        "Input of the child, a template; the whole context if not given.",
    ),
    (
        "*",
        "workflow",
        Def("workflow-name"),
        "The workflow to run, as in `ship_order` or `shipping/ship_order`.",
    ),
    (
        "*",
        "wait",
        Flag,
        "`false` if the state ends once the child has started.",
    ),
    (
        "*",
        "parent_close_policy",
        Word(child::ON_CLOSE),
        "What becomes of the child if this execution ends before it.",
    ),
    (
        "SubWorkflow",
        "retries",
        Def("retries"),
        "How failed children are repeated; one attempt if not given.",
    ),
    (
        "*",
        "result",
        Def("path"),
        "Where in the context the output goes, as in `$.payment`.",
    ),
    ("*", "resultPath", Def("path"), "Another name for `result`."),
    (
        "EventTask",
        "timeout",
        DURATION,
        "How long to wait from when the state is entered, as in `1d`.",
    ),
    (
        "HumanTask",
        "timeout",
        DURATION,
        "How long to wait from when the state is entered, as in `1d`.",
    ),
    (
        "*",
        "timeout",
        DURATION,
        "Limit of one attempt, as in `30s`.",
    ),
    (
        "*",
        "heartbeat",
        DURATION,
        "Longest silence of a running attempt, as in `10s`; shorter than `timeout`.",
    ),
    (
        "*",
        "retries",
        Def("retries"),
        "How failed attempts are repeated; three attempts if not given.",
    ),
    (
        "*",
        "max_attempts",
        Integer(1, policies::MAX_ATTEMPTS),
        "Most attempts, the first included.",
    ),
    (
        "*",
        "backoff",
        Def("backoff"),
        "The pauses between attempts.",
    ),
    (
        "*",
        "initial_interval",
        DURATION,
        "Pause before the second attempt, as in `1s`.",
    ),
    ("*", "max_interval", DURATION, "Longest pause, as in `60s`."),
    (
        "*",
        "multiplier",
        Number(1.0, policies::MAX_MULTIPLIER),
        "Factor from one pause to the next.",
    ),
    (
        "*",
        "jitter",
        Word(policies::JITTERS),
        "How chance shortens pauses: not, to 0 at least, to half at least.",
    ),
    (
        "*",
        "catch",
        Any("catch", usize::MAX),
        "Where errors lead when no attempt is left, tried in order.",
    ),
    (
        "catch",
        "error",
        Errors,
        "The error, a list of errors, or `*` for any.",
    ),
    (
        "catch",
        "result",
        Def("path"),
        "Where in the context the error goes, as in `$.error`.",
    ),
    ("*", "error", TEXT, "Name of the error, a text or template."),
    (
        "*",
        "compensate",
        Def("compensate"),
        "What undoes the Task if the execution fails later.",
    ),
    ("*", "next", STATE_NAME, "The state that follows."),
    ("*", "end", Flag, "`true` if nothing follows."),
    (
        "*",
        "choices",
        List("choice", states::MAX_CHOICES),
        "The ways; the first whose condition is true is gone.",
    ),
    (
        "*",
        "condition",
        Def("condition"),
        "One expression, as in `{{ $.total > 100 }}`.",
    ),
    (
        "*",
        "default",
        STATE_NAME,
        "The state that follows if no condition is true.",
    ),
    (
        "*",
        "branches",
        Kind::Branches,
        "What runs side by side: single states, or lists of states.",
    ),
    (
        "*",
        "completion_strategy",
        Word(states::STRATEGIES),
        "When the state ends; `ALL` if not given.",
    ),
    (
        "*",
        "required",
        Integer(1, BRANCHES),
        "Of `N_OF_M`: how many branches have to succeed.",
    ),
    (
        "*",
        "items",
        Items,
        "The list to go through, a template, or an object with the items.",
    ),
    (
        "*",
        "object",
        TEXT,
        "Bucket and key of an object, or the beginning of keys, a text or template.",
    ),
    (
        "*",
        "format",
        Word(map::FORMATS),
        "How the items are written: a JSON value a line, CSV, or one JSON list.",
    ),
    (
        "*",
        "headers",
        Any("text", usize::MAX),
        "Names of the columns of CSV; those of the first row if not given.",
    ),
    (
        "*",
        "delimiter",
        TEXT,
        "What stands between the cells of CSV, one ASCII character; a comma if not given.",
    ),
    (
        "*",
        "max_items",
        Integer(1, u32::MAX),
        "Items of the object beyond are left out.",
    ),
    (
        "*",
        "mode",
        Word(map::MODES),
        "Where iterations run: in this execution, or in executions of their own, a chunk each.",
    ),
    (
        "*",
        "results",
        Def("results"),
        "Where the results of a distributed Map are written.",
    ),
    ("*", "iterator", Def("iterator"), "What runs for each item."),
    (
        "*",
        "max_concurrency",
        Integer(1, spread::MAX_CONCURRENCY),
        "Most iterations at a time; 16 if not given.",
    ),
    (
        "*",
        "batch",
        Def("batch"),
        "Has iterations take several items at once.",
    ),
    (
        "*",
        "size",
        Integer(1, MAX_ITEMS),
        "Most items of an iteration.",
    ),
    (
        "*",
        "tolerated_failure_count",
        Integer(0, MAX_ITEMS),
        "How many items may fail.",
    ),
    (
        "*",
        "tolerated_failure_percentage",
        Number(0.0, 100.0),
        "How many of 100 items may fail.",
    ),
    ("*", "event", NAME, "Name of the signal to wait for."),
    (
        "*",
        "on_timeout",
        STATE_NAME,
        "The state that follows when `timeout` is over.",
    ),
    ("*", "assignee", TEXT, "Who is asked, a text or template."),
    ("*", "ui", Def("ui"), "What the answer looks like."),
    (
        "*",
        "schema",
        Def("schema-or-urn"),
        "JSON Schema of the input or answer, or `urn:cascade:schema:NAME`.",
    ),
    (
        "*",
        "escalate",
        Any("escalation", waiting::MAX_ESCALATIONS),
        "Who is asked next, if nobody answers, in ascending order.",
    ),
    (
        "*",
        "after",
        DURATION,
        "From when the state is entered, as in `1d`; shorter than `timeout`.",
    ),
    (
        "*",
        "duration",
        Def("wait-duration"),
        "How long to wait, as in `5m`, or a template.",
    ),
    (
        "*",
        "until",
        TEXT,
        "When to go on: an RFC 3339 timestamp, or a template.",
    ),
    (
        "*",
        "message",
        TEXT,
        "What went wrong, for people; a text or template.",
    ),
    ("*", "cause", TEXT, "Another name for `message`."),
];

/// Keys that have to be there.
pub(super) const REQUIRED: &[(&str, &[&str])] = &[
    ("envelope", &["apiVersion", "kind", "metadata", "spec"]),
    ("metadata", &["name"]),
    ("spec", &["workflows"]),
    ("only-workflows", &["workflows"]),
    ("workflow", &["states"]),
    ("schedule", &["workflow"]),
    ("branch", &["states"]),
    ("iterator", &["states"]),
    ("batch", &["size"]),
    ("items", &["object", "format"]),
    ("results", &["object"]),
    ("input", &["schema"]),
    ("rate-limit", &["rate"]),
    ("catch", &["error", "next"]),
    ("compensate", &["resource"]),
    ("choice", &["condition", "next"]),
    ("escalation", &["after", "assignee"]),
    ("Choice", &["choices"]),
    ("Parallel", &["branches"]),
    ("Map", &["items", "iterator"]),
    ("ForEach", &["items", "iterator"]),
    ("EventTask", &["event"]),
    ("HumanTask", &["assignee"]),
    ("SubWorkflow", &["workflow"]),
    ("Fail", &["error"]),
];

/// Keys that exclude each other.
pub(super) const EXCLUSIVE: &[(&str, &str)] = &[
    ("result", "resultPath"),
    ("message", "cause"),
    ("duration", "until"),
    ("cron", "interval"),
    ("cron", "offset"),
    ("interval", "timezone"),
];

/// A key that needs another beside it.
pub(super) const NEEDS: &[(&str, &str, &str)] = &[
    ("EventTask", "on_timeout", "timeout"),
    ("HumanTask", "on_timeout", "timeout"),
    ("Task", "compensate", "resource"),
];

/// Every mapping of the language but states, by its name under `$defs`.
pub(super) const SHAPES: &[(&str, &Shape)] = &[
    ("envelope", &document::ENVELOPE),
    ("metadata", &document::METADATA),
    ("spec", &document::SPEC),
    ("only-workflows", &document::ONLY_WORKFLOWS),
    ("workflow", &workflow::WORKFLOW),
    ("retries", &policies::RETRIES),
    ("backoff", &policies::BACKOFF),
    ("catch", &policies::HANDLER),
    ("compensate", &states::COMPENSATION),
    ("choice", &states::WAY),
    ("schedule", &schedules::SCHEDULE),
    ("catch-up", &schedules::CATCH_UP),
    ("branch", &states::BRANCH),
    ("iterator", &map::ITERATOR),
    ("batch", &map::BATCH),
    ("items", &map::OBJECT),
    ("results", &map::RESULTS),
    ("input", &workflow::INPUT),
    ("ui", &waiting::UI),
    ("rate-limit", &rates::RATE),
    ("escalation", &waiting::ESCALATION),
];

//! `schedules`: which workflows are started by the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Declared, named_items};
use super::fields::{Context, Fields, Shape, is_name};
use super::report::{Finding, quote, suggest};
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::expression::Template;
use crate::program::Program;
use crate::schedule::{
    CatchUp, Cron, MAX_CRONS, MAX_SCHEDULES, MAX_WINDOW_MS, MIN_INTERVAL_MS, ON_TIME_MS, Overlap,
    Schedule, Timing, When, Zone,
};
use crate::schema::Unfit;
use crate::{ExecutionId, Timestamp};

pub(super) const SCHEDULE: Shape = Shape {
    what: "a schedule",
    known: &[
        "name",
        "description",
        "workflow",
        "cron",
        "timezone",
        "interval",
        "offset",
        "start_at",
        "end_at",
        "jitter",
        "input",
        "catch_up",
        "overlap",
        "paused",
    ],
    later: &["calendars", "skip", "memo"],
};

pub(super) const CATCH_UP: Shape = Shape {
    what: "`catch_up`",
    known: &["policy", "window"],
    later: &[],
};

/// Longest delay by which starts may be spread: longer is another time.
const MAX_JITTER_MS: u64 = 24 * 60 * 60 * 1_000;

pub(crate) type Schedules = BTreeMap<String, Arc<Schedule>>;

/// Reads `schedules`; `None` if any of them is not right.
pub(super) fn read(
    context: &mut Context<'_>,
    node: &Node,
    workflows: &Declared<'_>,
) -> Option<Schedules> {
    let named = named_items(context, node, "`schedules`", "schedule name", is_name)?;
    if let Some(first) = named.get(MAX_SCHEDULES) {
        let message = format!("an application has at most {MAX_SCHEDULES} schedules");
        let finding = Finding::new(Code::TooBig, first.span, message);
        context.report(finding.help("put the others into another application"));
        return None;
    }
    if named.is_empty() {
        let finding = Finding::new(Code::InvalidValue, node.span, "there are no schedules");
        context.report(finding.help("leave `schedules` out"));
        return None;
    }
    let errors = context.reporter.errors();
    let mut schedules = Schedules::new();
    for item in named {
        if let Some(schedule) = schedule(context, item.node, item.name, workflows) {
            schedules.insert(item.name.to_owned(), Arc::new(schedule));
        }
    }
    (context.reporter.errors() == errors).then_some(schedules)
}

fn schedule(
    context: &mut Context<'_>,
    node: &Node,
    name: &str,
    workflows: &Declared<'_>,
) -> Option<Schedule> {
    let fields = context.fields(node, &SCHEDULE)?;
    if let Some(node) = fields.get("name")
        && let Some(given) = context.name(node, "schedule name")
        && given != name
    {
        let message = format!("the schedule {} calls itself {}", quote(name), quote(given));
        context
            .report(Finding::new(Code::Conflict, node.span, message).help("leave `name` out here"));
    }
    if let Some(node) = fields.get("description") {
        context.text(node, "`description`");
    }
    let workflow = context.required(&fields, "workflow");
    let workflow = workflow.and_then(|node| workflow_named(context, node, workflows));
    let timing = timing(context, &fields);
    let catch_up = match fields.get("catch_up") {
        Some(node) => catch_up(context, node),
        None => Some(CatchUp::default()),
    };
    let overlap = match fields.get("overlap") {
        Some(node) => context.word(node, "`overlap`", Overlap::WORDS),
        None => Some("skip"),
    };
    let paused = match fields.get("paused") {
        Some(node) => context.boolean(node, "`paused`"),
        None => Some(false),
    };
    let input = match fields.get("input") {
        Some(node) => input(context, node).map(Some),
        None => Some(None),
    };
    let schedule = Schedule {
        name: name.into(),
        workflow: workflow?.into(),
        timing: timing?,
        input: input?,
        catch_up: catch_up?,
        overlap: overlap.and_then(Overlap::from_word)?,
        paused: paused?,
    };
    let programs = workflows.programs.as_ref();
    if let Some(program) = programs.and_then(|programs| programs.get(&*schedule.workflow)) {
        check_input(context, &fields, &schedule, program);
    }
    Some(schedule)
}

/// The workflow that it starts, one of the application.
fn workflow_named<'t>(
    context: &mut Context<'_>,
    node: &'t Node,
    workflows: &Declared<'_>,
) -> Option<&'t str> {
    let name = context.text(node, "`workflow`")?;
    if workflows.names.contains(&name) {
        return Some(name);
    }
    // Without names, what is wrong with the workflows was reported.
    if !workflows.names.is_empty() {
        let finding = Finding::new(
            Code::UnknownWorkflow,
            node.span,
            format!("there is no workflow {} in this application", quote(name)),
        );
        let help = suggest(name, "the workflows are", &workflows.names);
        context.report(finding.maybe_help(help));
    }
    None
}

/// When it is due.
fn timing(context: &mut Context<'_>, fields: &Fields<'_>) -> Option<Timing> {
    let why = "a schedule has either";
    context.exclusive(fields, "cron", "interval", why);
    for (key, other) in [("interval", "timezone"), ("cron", "offset")] {
        let why = format!("`{other}` has no meaning with `{key}`");
        context.exclusive(fields, key, other, &why);
    }
    let when = match (fields.get("cron"), fields.get("interval")) {
        (Some(node), None) => cron(context, node, fields),
        (None, Some(node)) => interval(context, node, fields),
        (Some(_), Some(_)) => None,
        (None, None) => {
            let message = "a schedule needs either `cron` or `interval`";
            context.report(
                Finding::new(Code::MissingKey, fields.head(), message)
                    .help("write `cron: \"0 9 * * MON-FRI\"`, or `interval: 15m`"),
            );
            None
        }
    };
    let mut bound = |key: &str| match fields.get(key) {
        Some(node) => context.timestamp(node, &format!("`{key}`")).map(Some),
        None => Some(None),
    };
    let (start_at, end_at) = (bound("start_at"), bound("end_at"));
    let jitter_ms = match fields.get("jitter") {
        Some(node) => jitter(context, node),
        None => Some(0),
    };
    let timing = Timing {
        when: when?,
        start_at: start_at?,
        end_at: end_at?,
        jitter_ms: jitter_ms?,
    };
    if timing.next(Timestamp(0)).is_none() {
        let node = fields.get("end_at").or_else(|| fields.get("cron"));
        let span = node.map_or(fields.head(), |node| node.span);
        let message = "the schedule is never due";
        let finding = Finding::new(Code::NeverDue, span, message);
        context.report(finding.help("nothing of its times lies between `start_at` and `end_at`"));
        return None;
    }
    Some(timing)
}

fn cron(context: &mut Context<'_>, node: &Node, fields: &Fields<'_>) -> Option<When> {
    let zone = match fields.get("timezone") {
        Some(node) => zone(context, node),
        None => Some(Zone::utc()),
    };
    let crons = match &node.yaml {
        Yaml::Sequence(items) if !(1..=MAX_CRONS).contains(&items.len()) => {
            let message = format!("`cron` has 1 to {MAX_CRONS} expressions");
            context.report(Finding::new(Code::InvalidValue, node.head(), message));
            None
        }
        Yaml::Sequence(items) => {
            let crons: Vec<_> = items.iter().map(|item| expression(context, item)).collect();
            crons.into_iter().collect()
        }
        _ => expression(context, node).map(|cron| vec![cron]),
    };
    Some(When::Cron {
        crons: crons?,
        zone: zone?,
    })
}

/// One cron expression.
fn expression(context: &mut Context<'_>, node: &Node) -> Option<Cron> {
    let text = context.text(node, "a cron expression")?;
    let scalar = context.scalar(node, "a cron expression is text")?;
    let cron = match Cron::parse(text) {
        Ok(cron) => cron,
        Err(error) => {
            context.syntax(Code::InvalidCron, node, scalar, &error);
            return None;
        }
    };
    // Looking for a day that does not come takes a while.
    if context.reporter.is_full() || cron.comes() {
        return Some(cron);
    }
    let message = format!("{} is never due: there is no such day", quote(text));
    let finding = Finding::new(Code::NeverDue, node.span, message);
    context.report(finding.help("its fields are `minute hour day month weekday`"));
    None
}

fn zone(context: &mut Context<'_>, node: &Node) -> Option<Zone> {
    let name = context.text(node, "`timezone`")?;
    let zone = Zone::named(name);
    if zone.is_none() {
        let names: Vec<&str> = Zone::names().collect();
        // One that is written in another case, or without its continent.
        let known = |zone: &&&str| {
            zone.eq_ignore_ascii_case(name)
                || zone
                    .rsplit('/')
                    .next()
                    .is_some_and(|city| city.eq_ignore_ascii_case(name))
        };
        let help = match names.iter().find(known) {
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None => suggest(name, "", &names).filter(|help| help.starts_with("did")),
        };
        let help = help.unwrap_or_else(|| {
            "use a name of the IANA database: `Europe/Berlin`, `America/New_York`, `UTC`".to_owned()
        });
        let message = format!("there is no time zone {}", quote(name));
        context.report(Finding::new(Code::UnknownTimeZone, node.span, message).help(help));
    }
    zone
}

fn interval(context: &mut Context<'_>, node: &Node, fields: &Fields<'_>) -> Option<When> {
    let every_ms = context.duration(node, "`interval`")?;
    if every_ms < MIN_INTERVAL_MS {
        let message = "`interval` is shorter than a second";
        let finding = Finding::new(Code::InvalidValue, node.span, message);
        context.report(finding.help("write at least `1s`; a loop in a workflow can be faster"));
        return None;
    }
    let offset_ms = match fields.get("offset") {
        Some(node) => {
            let offset_ms = context.duration(node, "`offset`")?;
            if offset_ms >= every_ms {
                let message = "`offset` is not shorter than `interval`";
                let finding = Finding::new(Code::InvalidValue, node.span, message);
                context.report(finding.help("it moves all times by less than the interval"));
                return None;
            }
            offset_ms
        }
        None => 0,
    };
    Some(When::Interval {
        every_ms,
        offset_ms,
    })
}

fn jitter(context: &mut Context<'_>, node: &Node) -> Option<u64> {
    let jitter_ms = context.duration(node, "`jitter`")?;
    if jitter_ms > MAX_JITTER_MS {
        let message = "`jitter` is longer than a day";
        context.report(Finding::new(Code::InvalidValue, node.span, message));
        return None;
    }
    Some(jitter_ms)
}

/// A word, or a mapping with a window.
fn catch_up(context: &mut Context<'_>, node: &Node) -> Option<CatchUp> {
    let (policy, window) = if let Yaml::Scalar(_) = &node.yaml {
        (context.word(node, "`catch_up`", CatchUp::WORDS)?, None)
    } else {
        let fields = context.fields(node, &CATCH_UP)?;
        let policy = match fields.get("policy") {
            Some(node) => context.word(node, "`policy`", CatchUp::WORDS)?,
            None => "all",
        };
        let window = match fields.get("window") {
            Some(node) => Some((window(context, node)?, node)),
            None => None,
        };
        (policy, window)
    };
    match (policy, window) {
        ("none", Some((_, node))) => {
            let message = "`window` has no meaning where nothing is caught up with";
            let finding = Finding::new(Code::Conflict, node.span, message);
            context.report(finding.help("leave `window` out, or write `last` or `all`"));
            None
        }
        ("none", None) => Some(CatchUp::None),
        ("last", window) => Some(CatchUp::Last(window.map_or(MAX_WINDOW_MS, |(ms, _)| ms))),
        (_, Some((window, _))) => Some(CatchUp::All(window)),
        (_, None) => {
            let message = "`all` needs a `window`";
            let finding = Finding::new(Code::MissingKey, node.head(), message);
            context.report(finding.help("write `catch_up: { policy: all, window: 1h }`"));
            None
        }
    }
}

fn window(context: &mut Context<'_>, node: &Node) -> Option<u64> {
    let window = context.duration(node, "`window`")?;
    if (ON_TIME_MS..=MAX_WINDOW_MS).contains(&window) {
        return Some(window);
    }
    let message = "`window` is not between `10s` and `365d`";
    context.report(Finding::new(Code::InvalidValue, node.span, message));
    None
}

/// The input, which knows the schedule and nothing else.
fn input(context: &mut Context<'_>, node: &Node) -> Option<Template> {
    let iterators = std::mem::take(&mut context.iterators);
    context.in_schedule = true;
    let template = context.template(node);
    context.in_schedule = false;
    context.iterators = iterators;
    template
}

/// Reports an input that the workflow's schema refuses, for the first time that the
/// schedule is due: those of other times look alike.
fn check_input(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    schedule: &Schedule,
    program: &Program,
) {
    let Some(schema) = &program.input else { return };
    let at = schedule.timing.next(Timestamp(0)).unwrap_or_default();
    let id = ExecutionId(uuid::Uuid::nil());
    let Ok(input) = schedule.input(at, id) else {
        return; // of another time it may have a value
    };
    let span = fields.get("input").map_or(fields.head(), Node::head);
    let Err(unfit) = schema.check(&input.to_value()) else {
        return;
    };
    let why = match &unfit {
        Unfit::Misfits(misfits) => misfits.first().map(|first| {
            let at = if first.at.is_empty() {
                String::new()
            } else {
                format!(" at `{}`", first.at)
            };
            format!("{}{at}", first.message)
        }),
        Unfit::TooMuch => None,
    };
    let message = format!(
        "the input does not fit `input.schema` of {}: {}",
        quote(&schedule.workflow),
        why.unwrap_or_else(|| unfit.to_string())
    );
    let finding = Finding::new(Code::InvalidValue, span, message);
    let finding = match fields.get("input") {
        Some(_) => finding,
        None => finding.help("without `input` it is `{}`"),
    };
    context.report(finding);
}

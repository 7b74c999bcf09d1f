//! Resource names: `urn:cascade:activity:NAME[:VERSION][@REGION]` and
//! `urn:cascade:workflow:[APPLICATION/]NAME`.

use super::report::similar;
use crate::expression::SyntaxError;
use crate::program::Resource;

/// Longest name, version or region, in bytes: each becomes part of paths, keys
/// and queue subjects.
const MAX_PART_LEN: usize = 64;

/// What a resource that is well-formed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed<'t> {
    /// An activity.
    Activity(Resource),
    /// A workflow, by its name and the application that has it.
    Workflow {
        application: Option<&'t str>,
        name: &'t str,
    },
}

/// Reads a resource name.
pub(super) fn parse(text: &str) -> Result<Parsed<'_>, SyntaxError> {
    let Some(rest) = text.strip_prefix("urn:cascade:") else {
        return Err(not_ours(text));
    };
    let start = text.len() - rest.len();
    let (kind, tail) = rest.split_once(':').unwrap_or((rest, ""));
    match kind {
        "activity" => activity(text, start + kind.len() + 1, tail),
        "workflow" => workflow(text, start + kind.len() + 1, tail),
        "waitFor" => {
            let help = "a Task waits for `urn:cascade:waitFor:human` or \
                        `urn:cascade:waitFor:event`; a compensation for neither";
            let message = format!("`{tail}` cannot be waited for here");
            let start = (start + kind.len() + 1).min(text.len());
            Err(fault(start, tail.len(), message, help))
        }
        _ => {
            let help = match similar(kind, ["activity", "workflow", "waitFor"]) {
                Some(meant) => format!("did you mean `urn:cascade:{meant}:`?"),
                None => "a Task runs `urn:cascade:activity:NAME`".into(),
            };
            let message = format!("unknown kind of resource `{kind}`");
            Err(fault(start, kind.len(), message, help))
        }
    }
}

/// Reads `[APPLICATION/]NAME`, as a workflow is named without a URN, too.
pub(super) fn workflow<'t>(
    text: &str,
    start: usize,
    tail: &'t str,
) -> Result<Parsed<'t>, SyntaxError> {
    let start = start.min(text.len());
    let (application, name) = match tail.split_once('/') {
        Some((application, name)) => (Some(application), name),
        None => (None, tail),
    };
    if let Some(application) = application {
        part_of(application, start, "application", WORKFLOW_HELP)?;
    }
    let at = start + tail.len() - name.len();
    part_of(name, at, "name", WORKFLOW_HELP)?;
    Ok(Parsed::Workflow { application, name })
}

fn activity<'t>(text: &str, start: usize, tail: &'t str) -> Result<Parsed<'t>, SyntaxError> {
    let (named, region) = match tail.split_once('@') {
        Some((named, region)) => (named, Some(region)),
        None => (tail, None),
    };
    let (name, version) = match named.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (named, None),
    };
    let start = start.min(text.len());
    part(name, start, "name")?;
    if let Some(version) = version {
        part(version, start + name.len() + 1, "version")?;
    }
    if let Some(region) = region {
        part(region, start + named.len() + 1, "region")?;
    }
    Ok(Parsed::Activity(Resource {
        name: name.into(),
        version: version.map(Into::into),
        region: region.map(Into::into),
        child: None,
    }))
}

/// Checks one part: letters, digits, `-`, `_` and `.`, starting with a letter or digit.
fn part(part: &str, start: usize, what: &str) -> Result<(), SyntaxError> {
    const HELP: &str = "it looks like `urn:cascade:activity:charge_card`, \
                        `urn:cascade:activity:charge_card:v2` or \
                        `urn:cascade:activity:charge_card@us-east`";
    part_of(part, start, what, HELP)
}

const WORKFLOW_HELP: &str = "a workflow is named like `ship_order`, or `shipping/ship_order` if \
                             another application has it";

fn part_of(part: &str, start: usize, what: &str, help: &str) -> Result<(), SyntaxError> {
    if part.is_empty() {
        let message = format!("the {what} is missing");
        return Err(fault(start, 0, message, help));
    }
    let fits = |(at, c): (usize, char)| {
        c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '-' | '_' | '.'))
    };
    if let Some((at, c)) = part.char_indices().find(|&found| !fits(found)) {
        let message = format!("`{c}` cannot stand here in the {what}");
        let help = if part[at..].starts_with("{{") {
            "what runs is fixed; choose between several with a Choice state"
        } else {
            help
        };
        return Err(fault(start + at, c.len_utf8(), message, help));
    }
    if part.len() > MAX_PART_LEN {
        let message = format!("the {what} is longer than {MAX_PART_LEN} characters");
        return Err(fault(start, part.len(), message, help));
    }
    Ok(())
}

fn not_ours(text: &str) -> SyntaxError {
    let name = text.rsplit([':', '/']).next().unwrap_or(text);
    let help = if part(name, 0, "name").is_ok() {
        format!("write `urn:cascade:activity:{name}`")
    } else {
        "a Task runs `urn:cascade:activity:NAME`".into()
    };
    fault(
        0,
        text.len(),
        "a resource starts with `urn:cascade:activity:`".into(),
        help,
    )
}

fn fault(offset: usize, len: usize, message: String, help: impl Into<String>) -> SyntaxError {
    SyntaxError {
        offset,
        len,
        message,
        help: Some(help.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_reads_as_it_is_shown() {
        for text in [
            "urn:cascade:activity:charge_card",
            "urn:cascade:activity:charge_card:v2",
            "urn:cascade:activity:charge_card:1.2.0@us-east",
            "urn:cascade:activity:acme.charge-card@eu",
        ] {
            match parse(text) {
                Ok(Parsed::Activity(resource)) => assert_eq!(resource.to_string(), text),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_resource_says_where_and_why() {
        for (text, offset, len, fragment) in [
            ("charge_card", 0, 11, "starts with `urn:cascade:activity:`"),
            ("arn:aws:lambda:x", 0, 16, "starts with"),
            ("urn:cascade:activty:a", 12, 7, "unknown kind"),
            ("urn:cascade:activity", 20, 0, "name is missing"),
            ("urn:cascade:activity:", 21, 0, "name is missing"),
            ("urn:cascade:activity:a:", 23, 0, "version is missing"),
            ("urn:cascade:activity:a@", 23, 0, "region is missing"),
            (
                "urn:cascade:activity:a b",
                22,
                1,
                "` ` cannot stand here in the name",
            ),
            ("urn:cascade:activity:a:v1:v2", 25, 1, "in the version"),
            ("urn:cascade:activity:a@b@c", 24, 1, "in the region"),
            ("urn:cascade:activity:{{ x }}", 21, 1, "in the name"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.offset, error.len), (offset, len), "{text}: {error}");
            assert!(error.message.contains(fragment), "{text}: {error}");
        }
    }
}

//! Files of bindings: which activities stand behind the resources of a definition
//! in the States Language.
//!
//! ```yaml
//! "arn:aws:lambda:*:*:function:charge-card": urn:cascade:activity:charge_card
//! "arn:aws:states:::lambda:invoke":
//!   activity: urn:cascade:activity:any_function
//!   envelope: lambda_invoke
//! ```

use super::fields::{Context, Shape};
use super::report::{Finding, quote};
use super::urn;
use super::yaml::{Entry, Key, Node, Yaml};
use crate::asl::{Binding, Bindings, Envelope};
use crate::diagnostic::Code;
use crate::program::Resource;

/// Most bindings of a file: each resource is held against all of them.
const MAX_BINDINGS: usize = 1_000;

/// Longest pattern, in bytes: AWS's own ARNs have at most 256.
const MAX_PATTERN_BYTES: usize = 1_024;

const BINDING: Shape = Shape {
    what: "a binding",
    known: &["activity", "envelope"],
    later: &[],
};

/// Reads a file of bindings, reporting all that is wrong.
pub(super) fn read(context: &mut Context<'_>, root: &Node) -> Option<Bindings> {
    let entries = context.mapping(root, "a file of bindings")?;
    if entries.len() > MAX_BINDINGS {
        let message = format!(
            "{} bindings; at most {MAX_BINDINGS} are allowed",
            entries.len()
        );
        context.report(
            Finding::new(Code::InvalidValue, root.head(), message).help("use patterns with `*`"),
        );
        return None;
    }
    let bindings: Vec<_> = entries
        .iter()
        .map(|entry| binding(context, entry))
        .collect();
    let entries: Option<Vec<_>> = bindings.into_iter().collect();
    entries.map(|entries| Bindings { entries })
}

fn binding(context: &mut Context<'_>, entry: &Entry) -> Option<Binding> {
    let pattern = pattern(context, &entry.key);
    let (activity, envelope) = match &entry.value.yaml {
        Yaml::Mapping(_) => {
            let fields = context.fields(&entry.value, &BINDING)?;
            let node = context.required(&fields, "activity");
            let envelope = match fields.get("envelope") {
                Some(node) => envelope(context, node),
                None => Some(Envelope::None),
            };
            (node.and_then(|node| activity(context, node)), envelope)
        }
        _ => (activity(context, &entry.value), Some(Envelope::None)),
    };
    Some(Binding {
        pattern: pattern?,
        activity: activity?,
        envelope: envelope?,
    })
}

fn pattern(context: &mut Context<'_>, key: &Key) -> Option<String> {
    let text = &*key.text;
    let wrong = if text.trim().is_empty() {
        "a pattern is empty".to_owned()
    } else if text.len() > MAX_PATTERN_BYTES {
        format!("a pattern has at most {MAX_PATTERN_BYTES} bytes")
    } else if text.starts_with("urn:cascade:") {
        format!("{} is Cascade's own and needs no binding", quote(text))
    } else {
        return Some(text.to_owned());
    };
    context.report(Finding::new(Code::InvalidValue, key.span, wrong));
    None
}

fn activity(context: &mut Context<'_>, node: &Node) -> Option<Resource> {
    let text = context.text(node, "an activity")?;
    let Yaml::Scalar(scalar) = &node.yaml else {
        return None; // it has text
    };
    match urn::parse(text) {
        Ok(urn::Parsed::Activity(activity)) => Some(activity),
        Ok(urn::Parsed::Workflow { .. }) => {
            let message = "a resource is bound to an activity, not to child workflows";
            context.report(Finding::new(Code::InvalidResource, node.span, message));
            None
        }
        Err(error) => {
            context.syntax(Code::InvalidResource, node, scalar, &error);
            None
        }
    }
}

fn envelope(context: &mut Context<'_>, node: &Node) -> Option<Envelope> {
    let word = context.word(node, "an envelope", &["none", "lambda_invoke"])?;
    Some(if word == "none" {
        Envelope::None
    } else {
        Envelope::LambdaInvoke
    })
}

#[cfg(test)]
mod tests {
    use crate::{Source, parse_bindings};

    fn read(text: &str) -> Result<String, String> {
        let parsed = parse_bindings(&Source {
            name: "bindings.yaml",
            bytes: text.as_bytes(),
        });
        let told: Vec<_> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        parsed
            .bindings
            .map(|bindings| bindings.to_json())
            .ok_or_else(|| told.join("\n"))
    }

    #[test]
    fn bindings_are_read_in_their_order() {
        let text = "
\"arn:aws:lambda:*:*:function:z\": urn:cascade:activity:z:v2@us-east
\"arn:aws:lambda:*\": { activity: urn:cascade:activity:any, envelope: lambda_invoke }
a-name: { activity: urn:cascade:activity:plain, envelope: none }
";
        let expected = concat!(
            r#"{"arn:aws:lambda:*:*:function:z":{"activity":"urn:cascade:activity:z:v2@us-east"},"#,
            r#""arn:aws:lambda:*":{"activity":"urn:cascade:activity:any","envelope":"lambda_invoke"},"#,
            r#""a-name":{"activity":"urn:cascade:activity:plain"}}"#,
        );
        assert_eq!(read(text).as_deref(), Ok(expected));
        assert_eq!(read(expected).as_deref(), Ok(expected), "and again");
    }

    /// The resources of the application in a file, or what is wrong.
    fn resources(text: &str) -> Result<Vec<String>, String> {
        let parsed = crate::parse(&Source {
            name: "machine.yaml",
            bytes: text.as_bytes(),
        });
        let told: Vec<_> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        let application = parsed.application.ok_or_else(|| told.join("\n"))?;
        assert_eq!(application.name, "machine");
        let program = &application.workflows["machine"];
        Ok(program.resources().map(ToString::to_string).collect())
    }

    #[test]
    fn a_definition_may_bring_its_bindings_along() {
        let definition = "definition:
  StartAt: A
  States:
    A: { Type: Task, Resource: 'arn:aws:lambda:us-east-1:1:function:f', End: true }
";
        assert_eq!(resources(definition), Ok(vec![]), "unbound is a warning");
        let bound =
            format!("bindings: {{ 'arn:aws:lambda:*': urn:cascade:activity:f }}\n{definition}");
        assert_eq!(
            resources(&bound),
            Ok(vec!["urn:cascade:activity:f".to_owned()])
        );
        for (text, expected) in [
            (
                format!("{definition}binding: {{}}\n"),
                "5:1: error[CDL0201]",
            ),
            (
                format!("bindings: [a]\n{definition}"),
                "1:12: error[CDL0203]",
            ),
            ("definition: 5\n".to_owned(), "1:13: error"),
        ] {
            let told = resources(&text).expect_err(&text);
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        for (text, expected) in [
            ("[]", "1:1: error[CDL0203]: a file of bindings is a mapping"),
            ("", "error[CDL0110]: the file is empty"),
            (
                "a: {activity: urn:cascade:activity:x, envelop: none}",
                "1:39: error[CDL0201]",
            ),
            ("a: {envelope: none}", "needs the key `activity`"),
            ("a: 'urn:cascade:activity:'", "the name is missing"),
            (
                "a: urn:cascade:workflow:x",
                "bound to an activity, not to child workflows",
            ),
            (
                "a: {activity: urn:cascade:activity:x, envelope: lambda}",
                "cannot be `lambda`",
            ),
            (
                "urn:cascade:activity:x: urn:cascade:activity:y",
                "needs no binding",
            ),
            ("'': urn:cascade:activity:y", "a pattern is empty"),
            (
                "a: urn:cascade:activity:x\na: urn:cascade:activity:y",
                "2:1: error",
            ),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
        let many: Vec<_> = (0..1_001)
            .map(|n| format!("a{n}: urn:cascade:activity:x"))
            .collect();
        let many = many.join("\n");
        assert!(read(&many).expect_err("too many").contains("at most 1000"));
    }
}

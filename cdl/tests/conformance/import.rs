//! Definitions as CDL: what is translated without a finding ends as the original does.

use std::collections::BTreeMap;
use std::path::Path;

use cascade_cdl::asl::conformance::{Case, Expected, Outcome};
use cascade_cdl::asl::names;
use cascade_cdl::{
    AslOptions, Imported, RENAMED_ERRORS, Severity, Source, Unexpressed, import_asl, parse,
};
use serde_json::Value;

use crate::run::{self, Ended};
use crate::suite::{Definition, load};

mod beyond;

/// Executions of the suite whose definition is translated whole. A floor, so that what
/// has been reached is not lost again; the others have findings, most of them for
/// JSONata, timestamps in Choice states, and the machine's own retries.
const WHOLE_FLOOR: usize = 305;

/// How AWS begins a cause that it words itself. CDL words its own in its own way.
const MADE_UP: &str = "An error occurred while executing the state";

fn import(case: &Case) -> Imported {
    let text = run::text(case, Definition::Json);
    let options = run::options(case.machine_type, &run::names(case));
    let source = Source {
        name: "machine.asl.json",
        bytes: text.as_bytes(),
    };
    import_asl(&source, &options)
}

/// Runs the translation of a case.
fn run_translated(case: &Case, cdl: &str) -> Ended {
    let parsed = parse(&Source {
        name: "machine.yaml",
        bytes: cdl.as_bytes(),
    });
    let application = parsed.application.expect("a translation compiles");
    let program = application.workflows.into_values().next();
    run::run_program(case, program.expect("it is one workflow"))
}

/// The name that CDL has for an error of the machine.
fn renamed(error: &str) -> &str {
    let mut names = RENAMED_ERRORS.iter();
    names
        .find(|(asl, _)| *asl == error)
        .map_or(error, |(_, cdl)| cdl)
}

/// Pointers to causes that the machine worded.
fn made_up(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                match item.as_str() {
                    Some(text) if key == "Cause" && text.starts_with(MADE_UP) => found.push(at),
                    _ => made_up(item, &at, found),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                made_up(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Why the translation ended in another way; empty if it did not.
fn differences(case: &Case, original: &Outcome, mut translated: Outcome) -> Vec<String> {
    let mut holes = case
        .expected
        .as_ref()
        .map_or(Vec::new(), |expected| expected.holes.clone());
    if let Some(output) = &original.output {
        made_up(output, "/output", &mut holes);
    }
    let own_words = original
        .error
        .as_deref()
        .is_some_and(|error| renamed(error) != error);
    translated.error = translated
        .error
        .as_deref()
        .map(|error| renamed(error).to_owned());
    let expected = Expected {
        status: original.status.clone(),
        output: original.output.clone(),
        error: original
            .error
            .as_deref()
            .map(|error| renamed(error).to_owned()),
        cause: original.cause.clone(),
        cause_strict: !own_words,
        holes,
        entered: None,
        distributed_map: false,
    };
    expected.reasons(&translated)
}

/// Whether the original met a bound on the size of data, which is AWS's and not CDL's.
fn met_a_bound(original: &Ended) -> bool {
    original.outcome.error.as_deref() == Some(names::DATA_LIMIT)
        || original.caught.contains(names::DATA_LIMIT)
}

/// Whether the original met one of AWS's bounds; or how the translation differs.
fn check(case: &Case, imported: &Imported) -> Result<bool, String> {
    let cdl = imported.cdl.as_deref().expect("a valid definition");
    let original = run::run(case, Definition::Json);
    if met_a_bound(&original) {
        return Ok(true);
    }
    let translated = run_translated(case, cdl);
    let reasons = differences(case, &original.outcome, translated.outcome);
    if reasons.is_empty() && translated.replayed {
        Ok(false)
    } else {
        Err(format!("{}: {}\n{cdl}", case.id, reasons.join("; ")))
    }
}

#[test]
fn a_definition_that_is_translated_whole_ends_as_the_original_does() {
    let (mut whole, mut total, mut bounded) = (0, 0, 0);
    let mut wrong = Vec::new();
    let mut lost: BTreeMap<String, usize> = BTreeMap::new();
    for case in load() {
        let imported = import(&case);
        if imported.cdl.is_none() {
            continue;
        }
        total += 1;
        for Unexpressed { field, what, .. } in &imported.findings {
            *lost.entry(format!("{field}: {what}")).or_default() += 1;
        }
        if !imported.findings.is_empty() {
            continue;
        }
        whole += 1;
        match check(&case, &imported) {
            Ok(true) => bounded += 1,
            Ok(false) => {}
            Err(difference) => wrong.push(difference),
        }
    }
    println!("translated whole: {whole} of {total}, {bounded} of them beyond AWS's bounds");
    let mut lost: Vec<_> = lost.into_iter().collect();
    lost.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (what, count) in lost.iter().take(40) {
        println!("  {count:>4} {what}");
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        whole >= WHOLE_FLOOR,
        "{whole} are whole, {WHOLE_FLOOR} were"
    );
}

/// What is lost is told beside its state; the rest is there, and can be run.
#[test]
fn every_translation_compiles_and_says_what_it_loses() {
    for case in load() {
        let Imported { cdl, findings, .. } = import(&case);
        let Some(cdl) = cdl else { continue };
        let parsed = parse(&Source {
            name: "machine.yaml",
            bytes: cdl.as_bytes(),
        });
        let mut diagnostics = parsed.diagnostics.iter();
        let error = diagnostics.find(|found| found.severity == Severity::Error);
        assert!(error.is_none(), "{}: {error:?}\n{cdl}", case.id);
        let told = cdl.matches("# not expressed: ").count();
        assert_eq!(told, findings.len(), "{}: {findings:?}\n{cdl}", case.id);
        assert_eq!(
            Some(cdl),
            import(&case).cdl,
            "{}: it differs each time",
            case.id
        );
    }
}

/// The block of `language` in the documentation's section about this.
fn documented(language: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/asl.md");
    let text = std::fs::read_to_string(file).expect("the documentation");
    let (_, section) = text.split_once("## As CDL").expect("the section");
    let (_, block) = section
        .split_once(&format!("```{language}\n"))
        .expect("the block");
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_documentation_shows_what_is_written() {
    let imported = import_asl(
        &Source {
            name: "order.asl.json",
            bytes: documented("json").as_bytes(),
        },
        &AslOptions::default(),
    );
    let fields: Vec<_> = imported
        .findings
        .iter()
        .map(|found| &*found.field)
        .collect();
    assert_eq!(fields, ["Retry"]);
    let cdl = imported.cdl.expect("a valid definition");
    assert_eq!(cdl, documented("yaml"), "{cdl}");
}

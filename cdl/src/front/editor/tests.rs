use std::fs;
use std::path::Path;

use super::*;
use crate::front::json_schema;
use crate::front::states;

/// The cursor in a document.
const CURSOR: char = '‸';

/// Three states with a branch and an iterator among them.
const ORDERS: &str = r#"apiVersion: cascade.io/v1
kind: Application
metadata: { name: orders }
spec:
  workflows:
    process:
      start: Check
      states:
        - name: Check
          type: Task
          description: Looks at the order
          resource: urn:cascade:activity:check:v2
          catch: [{ error: Bad, next: Stop }]
          next: Both
        - name: Both
          type: Parallel
          branches:
            - { name: Single, type: Pass }
            - name: list
              states:
                - { name: One, type: Pass, next: Two }
                - { name: Two, type: Pass, end: true }
          next: Each
        - name: Each
          type: Map
          items: "{{ $.lines }}"
          iterator:
            states:
              One: { type: Pass, next: "Two" }
              Two: { type: Wait, duration: 1s, end: true }
          end: true
        - { name: Stop, type: Fail, error: Stopped }
"#;

fn known() -> Vec<Activity> {
    ["charge", "refund"]
        .map(|name| Activity {
            name: name.to_owned(),
            about: format!("Does {name}."),
        })
        .into()
}

/// A document without its cursor, and where that was.
fn at_cursor(marked: &str) -> (String, usize) {
    let at = marked.find(CURSOR).expect("a cursor");
    (marked.replacen(CURSOR, "", 1), at)
}

fn completions(marked: &str) -> Vec<Completion> {
    let (text, at) = at_cursor(marked);
    complete_at(&text, at, &known())
}

fn labels(marked: &str) -> Vec<String> {
    let found = completions(marked).into_iter();
    found.map(|completion| completion.label).collect()
}

/// The document once the completion with a label was chosen.
fn chosen(marked: &str, label: &str) -> String {
    let (mut text, _) = at_cursor(marked);
    let all = completions(marked);
    let found = all.iter().find(|completion| completion.label == label);
    let found = found.unwrap_or_else(|| panic!("no {label} in {marked}: {all:?}"));
    text.replace_range(found.replace.start..found.replace.end, &found.text);
    text
}

/// A workflow of three states with a line of `typed` in the second.
fn within(typed: &str) -> String {
    format!(
        "states:\n- name: A\n  type: Pass\n  next: B\n- name: B\n{typed}\n- {{ name: C, type: Succeed }}\n"
    )
}

#[test]
fn states_of_the_scope_are_offered_where_one_is_named() {
    let text = |from: &str, to: &str| ORDERS.replacen(from, to, 1);
    let outer = ["Check", "Both", "Each", "Stop"];
    for (text, expected) in [
        (within("  type: Pass\n  next: ‸"), &["A", "C", "B"][..]),
        (within("  type: Pass\n  next:‸"), &["A", "C", "B"]),
        (within("  type: Pass\n  next: C‸"), &["A", "C", "B"]),
        (within("  type: Pass\n  next: \"‸\""), &["A", "C", "B"]),
        (within("  type: Pass\n  next: \"‸"), &["A", "C", "B"]),
        (within("  type: Pass\n  next: ‸ # later"), &["A", "C", "B"]),
        (
            within("  type: Choice\n  choices:\n  - next: ‸"),
            &["A", "C", "B"],
        ),
        (
            within("  type: Choice\n  choices: [{ condition: x, next: ‸ }]"),
            &["A", "C", "B"],
        ),
        (
            within("  type: Choice\n  choices: [{ condition: x, next: ‸"),
            &["A", "C", "B"],
        ),
        (within("  type: Choice\n  default: ‸"), &["A", "C", "B"]),
        (
            within("  type: EventTask\n  on_timeout: ‸"),
            &["A", "C", "B"],
        ),
        // A line above is broken, and so is the one below.
        (within("  type: \"Pass\n  next: ‸\n  par"), &["A", "C", "B"]),
        (within("  typ\n  next: ‸\n  x: {{ y }}"), &["A", "C", "B"]),
        (text("start: Check", "start: ‸"), &outer),
        (
            text("next: Stop", "next: ‸"),
            &["Both", "Each", "Stop", "Check"],
        ),
        (text("next: Two", "next: ‸"), &["Two", "One"]),
        (text("next: \"Two\"", "next: \"‸\""), &["Two", "One"]),
        // What is in a template names no states.
        (within("  type: Pass\n  parameters:\n    next: ‸"), &[]),
        (within("  type: Pass\n  # next: ‸"), &[]),
    ] {
        assert_eq!(labels(&text), expected, "{text}");
    }
}

#[test]
fn a_definition_in_the_states_language_has_its_names_completed() {
    let text = r#"{"StartAt": "A", "States": {
  "A": {"Type": "Pass", "Next": "‸"},
  "B": {"Type": "Map", "ItemProcessor": {"StartAt": "C", "States": {"C": {"Type": "Pass", "End": true}}}, "End": true}
}}"#;
    assert_eq!(labels(text), ["B", "A"]);
    let inner = text.replacen("\"Next\": \"‸\"", "\"Next\": \"B\"", 1);
    let inner = inner.replacen("\"StartAt\": \"C\"", "\"StartAt\": ‸", 1);
    assert_eq!(labels(&inner), ["C"]);
    assert!(chosen(&inner, "C").contains("\"StartAt\": \"C\""));
}

/// That all of `some` and none of `none` are offered at the cursor.
fn check_keys(text: &str, some: &[&str], none: &[&str]) {
    let found = labels(text);
    let has = |key: &str| found.iter().any(|label| label == key);
    for key in some {
        assert!(has(key), "{key} in {found:?} of {text}");
    }
    for key in none {
        assert!(!has(key), "no {key} in {found:?} of {text}");
    }
}

#[test]
fn keys_are_offered_by_what_the_mapping_is() {
    for (typed, some, none) in [
        (
            "type: Task\n  ‸",
            &["resource", "retries", "next"][..],
            &["name", "type", "choices"][..],
        ),
        (
            "type: Task\n  resource: urn:cascade:waitFor:human\n  ‸",
            &["assignee"],
            &["heartbeat"],
        ),
        (
            "type: Choice\n  de‸",
            &["default", "choices"],
            &["next", "result"],
        ),
        ("‸", &["type"], &["name", "next"]),
        (
            "type: Task\n  retries:\n    ‸",
            &["max_attempts", "backoff"],
            &["next"],
        ),
        (
            "type: Task\n  rate_limit: { ‸ }",
            &["rate", "burst"],
            &["next"],
        ),
        (
            "type: Task\n  retries: { ‸ }",
            &["max_attempts", "backoff"],
            &["next"],
        ),
        (
            "type: Task\n  catch:\n    - ‸",
            &["error", "next"],
            &["name"],
        ),
        (
            "type: Task\n  catch:\n    - error: X\n      ‸",
            &["next", "result"],
            &["error"],
        ),
        ("type: \"Task\n  par\n  ‸", &[], &["name"]),
        ("type: Pass\n  parameters:\n    ‸", &[], &["next"]),
    ] {
        check_keys(&within(&format!("  {typed}")), some, none);
    }
}

#[test]
fn keys_of_the_root_are_offered_in_our_files_only() {
    for (text, some, none) in [
        (
            "‸",
            &["apiVersion", "workflows", "states"][..],
            &["next"][..],
        ),
        (
            "apiVersion: cascade.io/v1\n‸",
            &["kind", "metadata", "spec"],
            &["apiVersion"],
        ),
        (
            "workflows:\n  a:\n    ‸\n    states: []",
            &["timeout", "start"],
            &["states", "next"],
        ),
        (
            "workflows:\n  a:\n    states: []\nschedules:\n  s:\n    workflow: a\n    ‸",
            &["cron", "interval", "overlap", "catch_up"],
            &["workflow", "states"],
        ),
        ("services:\n  web: {}\n‸", &[], &["apiVersion", "states"]),
        ("apiVersion: v1\nkind: Pod\n‸", &[], &["metadata"]),
    ] {
        check_keys(text, some, none);
    }
}

#[test]
fn values_are_offered_by_their_key() {
    for (text, expected) in [
        (
            within("  type: Task\n  resource: ‸"),
            &[
                "urn:cascade:activity:charge",
                "urn:cascade:activity:refund",
                "urn:cascade:waitFor:event",
                "urn:cascade:waitFor:human",
            ][..],
        ),
        (
            within("  type: Task\n  compensate: { resource: urn:cascade:activity:‸ }"),
            &["urn:cascade:activity:charge", "urn:cascade:activity:refund"],
        ),
        (within("  type: Parallel\n  completion_strategy: ‸"), &["ALL", "ANY", "N_OF_M", "ALL_SETTLED"]),
        (within("  type: Task\n  end: ‸"), &["true", "false"]),
        (within("  type: Task\n  description: ‸"), &[]),
        ("apiVersion: ‸\nkind: Application".into(), &["cascade.io/v1"]),
        ("apiVersion: cascade.io/v1\nkind: ‸".into(), &["Application"]),
        (
            "schemas: { yes-no: {} }\nworkflows:\n  w:\n    states:\n    - name: A\n      type: HumanTask\n      ui: { schema: ‸ }".into(),
            &["urn:cascade:schema:yes-no"],
        ),
    ] {
        assert_eq!(labels(&text), expected, "{text}");
    }
    let types = labels(&within("  type: ‸"));
    assert_eq!(
        types,
        states::shapes().map(|(name, _)| name).collect::<Vec<_>>()
    );
    // What the file itself asks for elsewhere is known, too.
    let again = ORDERS.replacen(
        "{ name: Single, type: Pass }",
        "{ name: Single, type: Task, resource: ‸ }",
        1,
    );
    assert!(labels(&again).contains(&"urn:cascade:activity:check:v2".to_owned()));
}

#[test]
fn filters_are_offered_behind_a_bar_in_an_expression() {
    let text = within("  type: Pass\n  parameters: \"{{ $.a | ‸");
    assert!(labels(&text).contains(&"upper".to_owned()));
    assert!(chosen(&text, "upper").contains("{{ $.a | upper\n"));
    for other in ["{{ $.a || ‸ }}", "{{ $.a‸ }}", "{{ $.a }} | ‸"] {
        let text = within(&format!("  type: Pass\n  parameters: \"{other}\""));
        assert!(labels(&text).is_empty(), "{text}");
    }
    assert!(labels("other: \"{{ $.a | ‸ }}\"").is_empty());
}

#[test]
fn what_is_chosen_is_put_in_as_it_has_to_be_written() {
    for (typed, label, expected) in [
        ("  type: Pass\n  next: ‸", "C", "  next: C\n"),
        ("  type: Pass\n  next:‸", "C", "  next: C\n"),
        ("  type: Pass\n  next: A‸", "C", "  next: C\n"),
        ("  type: Pass\n  next: ‸A # x", "C", "  next: C # x\n"),
        ("  type: Pass\n  next: \"A‸\"", "C", "  next: \"C\"\n"),
        (
            "  type: Choice\n  choices: [{ next: A‸, condition: x }]",
            "C",
            "[{ next: C, condition: x }]\n",
        ),
        ("  type: Pass\n  ne‸", "next", "  next: \n"),
        ("  type: Task\n  re‸", "retries", "  retries:\n"),
        ("  type: Pass\n  ne‸: A", "next", "  next: A\n"),
        (
            "  type: Task\n  resource: urn:cas‸",
            "urn:cascade:activity:charge",
            "  resource: urn:cascade:activity:charge\n",
        ),
    ] {
        let text = chosen(&within(typed), label);
        assert!(text.contains(expected), "{text}");
    }
    let odd = "states:\n- { name: 'a: b', type: Pass }\n- name: B\n  type: Pass\n  next: ‸\n";
    assert!(chosen(odd, "a: b").contains("next: \"a: b\"\n"));
    let odd = odd
        .replace("next: ‸", "next: '‸'")
        .replace("'a: b'", "\"it's\"");
    assert!(chosen(&odd, "it's").contains("next: 'it''s'\n"));
}

/// The text of what a place is defined by.
fn definition(marked: &str) -> Option<String> {
    let (text, at) = at_cursor(marked);
    match definition_at(&text, at)? {
        Definition::Here(span) => {
            let line = text[..span.start].matches('\n').count() + 1;
            Some(format!("{} in line {line}", &text[span.start..span.end]))
        }
        Definition::Activity(name) => Some(format!("activity {name}")),
    }
}

#[test]
fn a_transition_leads_to_the_state_of_its_scope() {
    for (from, to, expected) in [
        ("start: Check", "start: Ch‸eck", Some("Check in line 9")),
        ("next: Stop", "next: ‸Stop", Some("Stop in line 32")),
        ("next: Both", "next: Both‸", Some("Both in line 15")),
        ("next: Two", "next: T‸wo", Some("Two in line 22")),
        ("next: \"Two\"", "next: \"T‸wo\"", Some("Two in line 30")),
        ("- name: Each", "- name: Ea‸ch", Some("Each in line 24")),
        ("activity:check", "activity:c‸heck", Some("activity check")),
        (
            "activity:check:v2",
            "workflow:pro‸cess",
            Some("process in line 6"),
        ),
        (
            "type: Wait, duration: 1s",
            "type: SubWorkflow, workflow: ‸process",
            Some("process in line 6"),
        ),
        ("activity:check:v2", "workflow:oth‸er", None),
        ("next: Each", "next: No‸where", None),
        ("type: Parallel", "type: Par‸allel", None),
    ] {
        let text = ORDERS.replacen(from, to, 1);
        assert_eq!(definition(&text).as_deref(), expected, "{to}");
        // And so it is in a file that is broken elsewhere.
        let broken = format!("{text}        - {{ name: \"\n");
        assert_eq!(definition(&broken).as_deref(), expected, "{to}, broken");
    }
    let asl = r#"{"StartAt": "A‸", "States": {
  "A": {"Type": "Succeed"}}}"#;
    assert_eq!(definition(asl).as_deref(), Some("A in line 2"));
}

#[test]
fn a_state_is_renamed_wherever_it_is_named_and_nowhere_else() {
    let rename = |marked: &str, name: &str| {
        let (mut text, at) = at_cursor(marked);
        let mut edits = rename_at(&text, at, name)?;
        assert_eq!(edits.len(), references_at(&text, at).len());
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.span.start));
        for Edit { span, text: new } in edits {
            text.replace_range(span.start..span.end, &new);
        }
        Ok::<_, RenameError>(text)
    };
    let text = ORDERS.replacen("next: Two", "next: T‸wo", 1);
    let expected = ORDERS.replacen("Two", "Last one", 2);
    assert_eq!(rename(&text, "Last one").as_deref(), Ok(&*expected));
    let text = ORDERS.replacen("              Two:", "              T‸wo:", 1);
    let at = ORDERS.find("next: \"Two\"").expect("there");
    let expected = format!(
        "{}{}",
        &ORDERS[..at],
        ORDERS[at..]
            .replace("\"Two\"", "\"a: b\"")
            .replace("Two:", "\"a: b\":")
    );
    assert_eq!(rename(&text, "a: b").as_deref(), Ok(&*expected));

    for (from, to, name, expected) in [
        (
            "start: Check",
            "start: Ch‸eck",
            "Both",
            RenameError::Taken("Both".into()),
        ),
        ("start: Check", "start: Ch‸eck", "", RenameError::Invalid),
        ("start: Check", "start: Ch‸eck", " x", RenameError::Invalid),
        ("name: Single", "name: Si‸ngle", "x", RenameError::Branch),
        ("type: Map", "type: M‸ap", "x", RenameError::NotAState),
        (
            "name: Both",
            "name: St‸op",
            "x",
            RenameError::Ambiguous("Stop".into()),
        ),
    ] {
        assert_eq!(
            rename(&ORDERS.replacen(from, to, 1), name),
            Err(expected),
            "{to}"
        );
    }
    let broken = format!("{}\"", ORDERS.replacen("start: Check", "start: Ch‸eck", 1));
    assert_eq!(rename(&broken, "x"), Err(RenameError::Broken));
}

fn hover(marked: &str) -> Option<String> {
    let (text, at) = at_cursor(marked);
    hover_at(&text, at, &known()).map(|hover| hover.markdown)
}

#[test]
fn a_hover_says_what_stands_there() {
    for (from, to, expected) in [
        (
            "start: Check",
            "start: Ch‸eck",
            "**Check**: Task, `urn:cascade:activity:check:v2`\n\nLooks at the order\n\nLeads to: Stop (`catch`), Both (`next`)\n\nReached from: the start (`start`)",
        ),
        (
            "name: Stop",
            "name: St‸op",
            "**Stop**: Fail\n\nReached from: Check (`catch`)",
        ),
        (
            "name: One",
            "name: O‸ne",
            "**One**: Pass\n\nLeads to: Two (`next`)\n\nReached from: the start",
        ),
        (
            "type: Map",
            "type: M‸ap",
            "Runs its `iterator` once for each item of a list, some at a time.",
        ),
        (
            "duration: 1s",
            "dur‸ation: 1s",
            "How long to wait, as in `5m`, or a template.",
        ),
        (
            "iterator:",
            "iter‸ator:",
            "What runs for each item.\n\nRequired.",
        ),
        (
            "activity:check:v2",
            "activity:ch‸arge",
            "The activity `charge`.\n\nDoes charge.",
        ),
        (
            "activity:check:v2",
            "activity:ch‸eck",
            "The activity `check`, which is not in this folder.",
        ),
        (
            "$.lines }}",
            "$.lines | fi‸rst }}",
            "The filter `first`, as in `{{ $.lines | first }}`.",
        ),
    ] {
        let text = ORDERS.replacen(from, to, 1);
        assert_eq!(hover(&text).as_deref(), Some(expected), "{to}");
    }
    for text in [
        "services:\n  na‸me: x",
        "apiVersion: v1\nki‸nd: Pod",
        "‸",
        "states:\n- nex‸: B",
    ] {
        assert_eq!(hover(text), None, "{text}");
    }
}

#[test]
fn an_outline_has_workflows_states_and_what_is_in_them() {
    fn show(symbols: &[Symbol], text: &str) -> String {
        let each = symbols.iter().map(|symbol| {
            let Symbol {
                span, selection, ..
            } = symbol;
            assert!(
                span.start <= selection.start && selection.end <= span.end,
                "{symbol:?}"
            );
            assert!(text.get(span.start..span.end).is_some());
            let children = show(&symbol.children, text);
            if children.is_empty() {
                symbol.name.clone()
            } else {
                format!("{}({children})", symbol.name)
            }
        });
        each.collect::<Vec<_>>().join(" ")
    }
    let expected = "process(Check Both(Single list(One Two)) Each(iterator(One Two)) Stop)";
    assert_eq!(show(&outline(ORDERS), ORDERS), expected);
    let broken = ORDERS.replacen("error: Bad", "error: \"Bad", 1);
    assert_eq!(show(&outline(&broken), &broken), expected);
    let short = within("  type: Pass");
    assert_eq!(show(&outline(&short), &short), "A B C");
}

#[test]
fn a_file_is_ours_by_the_keys_of_its_root() {
    for (text, expected) in [
        ("apiVersion: cascade.io/v1", Some(Language::Cdl)),
        ("apiVersion: cascade.io/v9\nbroken", Some(Language::Cdl)),
        ("workflows: {}", Some(Language::Cdl)),
        ("name: x\nstates:\n - \"", Some(Language::Cdl)),
        ("{\"StartAt\": \"A\"}", Some(Language::Asl)),
        (
            "definition: { StartAt: A, States: {} }\nbindings: {}",
            Some(Language::Asl),
        ),
        ("apiVersion: v1\nkind: Pod", None),
        ("apiVersion: apps/v1\nstates: []", None),
        ("definition: x", None),
        ("- states: []", None),
        ("services: { states: [] }", None),
        ("", None),
    ] {
        assert_eq!(language(text), expected, "{text}");
    }
}

#[test]
fn every_key_and_type_can_be_looked_up() {
    for (name, shape) in json_schema::shapes() {
        for key in shape.known {
            assert!(hover::about_key(name, key).is_some(), "{name}.{key}");
        }
    }
    for (name, _) in states::shapes() {
        assert!(!hover::about_type(name).is_empty(), "{name}");
    }
}

/// Cuts the files that the parser is tested with anywhere and asks everything there.
#[test]
fn no_place_of_no_file_is_a_panic() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut files: Vec<String> = fs::read_dir(samples)
        .expect("samples")
        .filter_map(|entry| fs::read_to_string(entry.expect("listed").path()).ok())
        .filter(|text| text.len() < 2_000)
        .collect();
    files.push(ORDERS.to_owned());
    files.push("\u{feff}states:\r\n- näme: 'ü\r\n".to_owned());
    for text in files {
        let _ = outline(&text);
        // Every place of the last lines, and some of the rest.
        for at in (0..=text.len()).step_by(7) {
            let _ = hover_at(&text, at, &known());
            let _ = definition_at(&text, at);
            let _ = rename_at(&text, at, "x: y");
            let _ = complete_at(&text, at, &known());
            let cut = &text[..super::floor(&text, at)];
            let _ = complete_at(cut, cut.len(), &known());
        }
    }
}

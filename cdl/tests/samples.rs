//! Files that are right, and the program that comes of them.

use cascade_cdl::program::{
    Jitter, Next, Program, Resource, StateId, StateKind, Strategy, Timeout, Tolerance, Until,
};
use cascade_cdl::schema::Schema;
use cascade_cdl::{Parsed, Source, parse};

fn read(name: &str, text: &str) -> Parsed {
    parse(&Source {
        name,
        bytes: text.as_bytes(),
    })
}

fn accepted(name: &str, text: &str) -> cascade_cdl::program::Application {
    let parsed = read(name, text);
    assert!(parsed.diagnostics.is_empty(), "{:#?}", parsed.diagnostics);
    parsed
        .application
        .expect("no diagnostics, so an application")
}

/// The state with this name, in whatever scope.
fn state<'p>(program: &'p Program, name: &str) -> (StateId, &'p StateKind) {
    let index = program
        .states
        .iter()
        .position(|state| &*state.name == name)
        .unwrap_or_else(|| panic!("no state {name}"));
    let id = StateId(u32::try_from(index).expect("few states"));
    (id, &program.states[index].kind)
}

fn design() -> cascade_cdl::program::Application {
    accepted("design.yaml", include_str!("samples/design.yaml"))
}

#[test]
fn the_envelope_names_the_application() {
    let application = design();
    assert_eq!(application.name, "orders");
    assert_eq!(application.namespace, "default");
    assert_eq!(application.labels["team"], "checkout");
    assert_eq!(application.annotations["owner"], "shop@example.com");
    let program = &application.workflows["process"];
    assert_eq!(program.name, "process");
    assert_eq!(program.timeout_ms, Some(5_400_000));
    assert!(program.output.is_some());
}

#[test]
fn a_task_has_what_the_file_says() {
    let application = design();
    let program = &application.workflows["process"];
    let (id, kind) = state(program, "ValidateOrder");
    assert_eq!(program.scopes[0].start, id);
    let StateKind::Task(task) = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(
        task.resource.to_string(),
        "urn:cascade:activity:validate_order"
    );
    assert_eq!(
        task.result.as_ref().map(ToString::to_string).as_deref(),
        Some("$.validation")
    );
    assert_eq!(
        (task.timeout_ms, task.heartbeat_ms),
        (Some(30_000), Some(10_000))
    );
    let retries = &task.retries;
    assert_eq!(
        (retries.max_attempts, retries.initial_interval_ms),
        (3, 1_000)
    );
    assert_eq!(
        (retries.max_interval_ms, retries.jitter),
        (60_000, Jitter::Full)
    );
    assert_eq!(task.catch[0].errors, ["PaymentDeclined"]);
    assert_eq!(task.catch[0].next, state(program, "Refund").0);
    assert_eq!(task.next, Next::State(state(program, "Route").0));
}

#[test]
fn branches_are_scopes_of_their_own() {
    let application = design();
    let program = &application.workflows["process"];
    let (owner, kind) = state(program, "Regions");
    let StateKind::Parallel { branches, .. } = kind else {
        panic!("{kind:?}")
    };
    let [us, eu] = branches.as_slice() else {
        panic!("{branches:?}")
    };
    assert_eq!(program.scope(*us).name, "ValidateUS");
    assert_eq!(program.scope(*us).owner, Some(owner));
    let StateKind::Task(task) = state(program, "ValidateUS").1 else {
        panic!("a branch that is a Task")
    };
    let resource = Resource {
        name: "validate_order".into(),
        version: Some("v2".into()),
        region: Some("us-east".into()),
        child: None,
    };
    assert_eq!((&task.resource, task.next), (&resource, Next::End));
    // `start` names the second state.
    assert_eq!(program.scope(*eu).start, state(program, "Check").0);
    assert_eq!(program.state(state(program, "Check").0).scope, *eu);
}

#[test]
fn a_task_without_resource_passes_through_and_a_wait_keeps_its_duration() {
    let application = design();
    let program = &application.workflows["process"];
    assert!(matches!(
        state(program, "Through").1,
        StateKind::Pass { .. }
    ));
    let StateKind::Wait { until, .. } = state(program, "Pause").1 else {
        panic!("a Wait")
    };
    let Until::Duration(duration) = until else {
        panic!("{until:?}")
    };
    assert_eq!(duration.as_literal(), Some(&"250ms".into()));
}

/// The same workflow in every form that a file may have.
#[test]
fn shorthands_give_the_same_workflow() {
    let states = "[{name: A, type: Pass, next: B}, {name: B, type: Succeed}]";
    for (text, workflow) in [
        (format!("states: {states}"), "flow"),
        (format!("name: main\nstates: {states}"), "main"),
        (
            "states: {A: {type: Pass, next: B}, B: {type: Succeed}}".into(),
            "flow",
        ),
        (format!("workflows: {{main: {{states: {states}}}}}"), "main"),
        (
            format!("workflows: [{{name: main, states: {states}}}]"),
            "main",
        ),
        (
            format!("\u{feff}{{\"workflows\": {{\"main\": {{\"states\": {states}}}}}}}"),
            "main",
        ),
    ] {
        let application = accepted("a/flow.cdl.yaml", &text);
        assert_eq!(
            (application.name.as_str(), application.namespace.as_str()),
            ("flow", "default")
        );
        let program = &application.workflows[workflow];
        assert_eq!(program.name, workflow, "{text}");
        let names: Vec<_> = program.states.iter().map(|state| &*state.name).collect();
        assert_eq!(names, ["A", "B"], "{text}");
    }
}

#[test]
fn warnings_do_not_keep_a_file_from_being_used() {
    let parsed = read(
        "x.yaml",
        "states: [{name: A, type: Pass, end: true}, {name: B, type: Succeed}]",
    );
    assert_eq!((parsed.diagnostics.len(), parsed.errors()), (1, 0));
    assert!(parsed.application.is_some());
}

fn saga() -> cascade_cdl::program::Application {
    accepted("saga.yaml", include_str!("samples/saga.yaml"))
}

#[test]
fn a_map_has_what_the_file_says() {
    let application = saga();
    let program = &application.workflows["fulfil"];
    let (owner, kind) = state(program, "Reserve");
    let StateKind::Map(map) = kind else {
        panic!("{kind:?}")
    };
    assert_eq!((map.max_concurrency, map.batch), (10, Some(5)));
    let tolerance = Tolerance {
        count: Some(3),
        percentage: Some(2.5),
    };
    assert_eq!(map.tolerance, Some(tolerance));
    let iterator = program.scope(map.iterator);
    assert_eq!(iterator.owner, Some(owner));
    assert_eq!(iterator.start, state(program, "One").0);
    assert_eq!(map.next, Next::State(state(program, "Quotes").0));
}

/// Of 120 items 3 are 2.5 %, of 119 they are more; 4 are more than 3 of any number.
#[test]
fn a_tolerance_bears_up_to_both_of_its_bounds() {
    let both = Tolerance {
        count: Some(3),
        percentage: Some(2.5),
    };
    for (failed, items, bears) in [
        (3, 120, true),
        (3, 119, false),
        (4, 1_000, false),
        (0, 0, true),
    ] {
        assert_eq!(both.bears(failed, items), bears, "{failed} of {items}");
    }
}

#[test]
fn a_compensation_has_what_the_file_says() {
    let application = saga();
    let StateKind::Task(task) = state(&application.workflows["fulfil"], "One").1 else {
        panic!("not a Task")
    };
    let undo = task.compensate.as_ref().expect("a compensation");
    assert_eq!(
        undo.resource.to_string(),
        "urn:cascade:activity:release:v2@eu"
    );
    assert_eq!(
        (undo.timeout_ms, undo.retries.max_attempts),
        (Some(30_000), 5)
    );
    assert!(undo.parameters.is_some());
}

#[test]
fn strategies_and_waits_have_what_the_file_says() {
    let application = saga();
    let program = &application.workflows["fulfil"];
    let StateKind::Parallel { strategy, .. } = state(program, "Quotes").1 else {
        panic!("not a Parallel")
    };
    assert_eq!(*strategy, Strategy::AtLeast(2));
    let StateKind::Event(event) = state(program, "Paid").1 else {
        panic!("not an event")
    };
    let timeout = Timeout {
        ms: 86_400_000,
        next: Some(state(program, "Ask").0),
    };
    assert_eq!((&*event.event, event.timeout), ("paid", Some(timeout)));
    let StateKind::Human(human) = state(program, "Ask").1 else {
        panic!("not a person")
    };
    let schema = serde_json::json!({"type": "object", "required": ["approved"]});
    let given = human.schema.as_deref().map(Schema::source);
    assert_eq!(given, Some(&schema));
    assert_eq!(human.escalate[0].after_ms, 86_400_000);
    assert_eq!(human.timeout.map(|timeout| timeout.next), Some(None));
}

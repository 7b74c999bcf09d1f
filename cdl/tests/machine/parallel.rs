//! Parallel states.

use crate::compile::compile;
use crate::transcript::{Run, check, json};

const TWO: &str = r"
    states:
      - name: Both
        type: Parallel
        branches:
          - { name: eu, type: Task, parameters: 1 }
          - name: us
            states:
              - { name: First, type: Task, parameters: 2, result: $.us, next: Second }
              - { name: Second, type: Task, parameters: 3 }
        result: $.both
        catch: [{ error: Declined, result: $.error, next: Refund }]
      - { name: Refund, type: Task, parameters: 4 }
";

#[test]
fn branches_run_side_by_side_and_their_last_outputs_are_collected() {
    check(
        TWO,
        r#"
        start null
          enter Both
          enter Both/eu/eu
          schedule Both/eu/eu#1 1
          enter Both/us/First
          schedule Both/us/First#1 2
        complete First#1 "f"
          exit Both/us/First "f"
          enter Both/us/Second
          schedule Both/us/Second#1 3
        complete Second#1 "s"
          exit Both/us/Second "s"
          branch Both/us done, 1 open
        complete eu#1 {"e":1}
          exit Both/eu/eu {"e":1}
          branch Both/eu done, 0 open
          exit Both {"eu":{"e":1},"us":"s"}
          completed {"both":{"eu":{"e":1},"us":"s"},"us":"f"}
        "#,
    );
}

#[test]
fn the_first_failure_cancels_the_other_branches_before_the_catch() {
    check(
        TWO,
        r#"
        start null
          enter Both
          enter Both/eu/eu
          schedule Both/eu/eu#1 1
          enter Both/us/First
          schedule Both/us/First#1 2
        fail eu#1 Declined final
          cancel First#1
          caught Both Declined, on to Refund
          enter Refund
          schedule Refund#1 4
        complete First#1 "late"
          ignored: the outcome of this attempt is not awaited
        complete Refund#1 null
          exit Refund null
          completed {"error":{"details":null,"error":"Declined","message":"told","state":"eu"}}
        "#,
    );
}

#[test]
fn a_failure_that_nothing_catches_fails_the_execution() {
    check(
        TWO,
        r"
        start null
          enter Both
          enter Both/eu/eu
          schedule Both/eu/eu#1 1
          enter Both/us/First
          schedule Both/us/First#1 2
        fail First#1 Other final
          cancel eu#1
          failed Other at First: told
        ",
    );
}

const NESTED: &str = r"
    states:
      - name: Outer
        type: Parallel
        catch: [{ error: Deep, next: Mend }]
        branches:
          - name: left
            states:
              - name: Inner
                type: Parallel
                catch: [{ error: Shallow, next: Fix }]
                branches:
                  - { name: a, type: Task, parameters: 1 }
                  - { name: b, type: Wait, duration: 1h }
              - { name: Fix, type: Pass, parameters: fixed }
          - { name: right, type: Task, parameters: 2, timeout: 10s }
        result: $.out
      - { name: Mend, type: Succeed }
";

#[test]
fn an_error_goes_outwards_to_the_first_catch_that_handles_it() {
    check(
        NESTED,
        r"
        start null
          enter Outer
          enter Outer/left/Inner
          enter Outer/left/Inner/a/a
          schedule Outer/left/Inner/a/a#1 1
          enter Outer/left/Inner/b/b
          timer at 3600000
          enter Outer/right/right
          schedule Outer/right/right#1 2
          timeout at 10000
        fail a#1 Deep final
          cancel right#1
          caught Outer Deep, on to Mend
          enter Mend
          exit Mend null
          completed {}
        ",
    );
}

#[test]
fn an_inner_catch_leaves_the_outer_branches_alone() {
    check(
        NESTED,
        r#"
        start null
          enter Outer
          enter Outer/left/Inner
          enter Outer/left/Inner/a/a
          schedule Outer/left/Inner/a/a#1 1
          enter Outer/left/Inner/b/b
          timer at 3600000
          enter Outer/right/right
          schedule Outer/right/right#1 2
          timeout at 10000
        fail a#1 Shallow final
          caught Outer/left/Inner Shallow, on to Fix
          enter Outer/left/Fix
          exit Outer/left/Fix "fixed"
          branch Outer/left done, 1 open
        complete right#1 null
          exit Outer/right/right null
          branch Outer/right done, 0 open
          exit Outer {"left":"fixed","right":null}
          completed {"out":{"left":"fixed","right":null}}
        "#,
    );
}

#[test]
fn a_branch_that_fails_at_once_takes_back_what_its_siblings_asked_for() {
    check(
        r"
        states:
          - name: P
            type: Parallel
            catch: [{ error: '*', next: After }]
            branches:
              - { name: task, type: Task, parameters: 1 }
              - { name: bad, type: Fail, error: Bad, message: at once }
              - { name: never, type: Task, parameters: 2 }
          - { name: After, type: Succeed }
        ",
        r"
        start null
          enter P
          enter P/task/task
          schedule P/task/task#1 1
          enter P/bad/bad
          cancel task#1
          caught P Bad, on to After
          enter After
          exit After null
          completed {}
        ",
    );
}

#[test]
fn only_what_a_failed_branch_asked_for_is_taken_back() {
    let mut run = Run::new(compile(
        r"
        states:
          - name: P
            type: Parallel
            branches:
              - { name: a, type: Task, parameters: 1 }
              - name: q
                states:
                  - name: Q
                    type: Parallel
                    branches:
                      - { name: c, type: Task, parameters: 2 }
                      - { name: d, type: Fail, error: Declined }
                    catch: [{ error: Declined, next: Z }]
                  - { name: Z, type: Pass }
        ",
    ));
    run.start(json("null"));
    assert_eq!(run.only_task().input, json("1"));
    run.check_replay();
}

#[test]
fn branches_share_one_context() {
    check(
        r#"
        states:
          - name: P
            type: Parallel
            branches:
              - { name: writes, type: Pass, parameters: 1, result: $.x }
              - { name: reads, type: Pass, parameters: "{{ $.x + 1 }}", result: $.y }
        "#,
        r#"
        start null
          enter P
          enter P/writes/writes
          exit P/writes/writes 1
          branch P/writes done, 1 open
          enter P/reads/reads
          exit P/reads/reads 2
          branch P/reads done, 0 open
          exit P {"reads":2,"writes":1}
          completed {"x":1,"y":2}
        "#,
    );
}

#[test]
fn a_retry_keeps_finished_branches_and_enters_the_others_anew() {
    check(
        TWO,
        r#"
        start null
          enter Both
          enter Both/eu/eu
          schedule Both/eu/eu#1 1
          enter Both/us/First
          schedule Both/us/First#1 2
        complete eu#1 "kept"
          exit Both/eu/eu "kept"
          branch Both/eu done, 1 open
        complete First#1 "f"
          exit Both/us/First "f"
          enter Both/us/Second
          schedule Both/us/Second#1 3
        fail Second#1 Other final
          failed Other at Second: told
        retry
          goes on
          enter Both/us/Second
          schedule Both/us/Second#1 3
        complete Second#1 "s"
          exit Both/us/Second "s"
          branch Both/us done, 0 open
          exit Both {"eu":"kept","us":"s"}
          completed {"both":{"eu":"kept","us":"s"},"us":"f"}
        retry
          ignored: the execution neither failed nor timed out
        "#,
    );
}

//! Which reply of a mock a call gets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare;
use super::file::{Replies, Reply};

/// Mocks by name; those of the first level go before those of the second, and so on.
type Levels<'m> = Vec<&'m BTreeMap<String, Replies>>;

/// The mocks of one test, and how far they are used.
pub(super) struct Mocks<'m> {
    levels: Levels<'m>,
    /// How often each reply was given, by level and name.
    given: BTreeMap<(usize, &'m str), Vec<u32>>,
}

/// What a call comes to.
pub(super) enum Dealt<'m> {
    Reply(&'m Reply),
    /// There is a mock, and none of its replies is for such an input.
    NoneFits(&'m str),
    /// It is not mocked.
    Real,
}

impl<'m> Mocks<'m> {
    pub(super) fn new(levels: Levels<'m>) -> Self {
        Self {
            levels,
            given: BTreeMap::new(),
        }
    }

    /// Whether a call by one of these names is mocked.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        let found = self.find(names);
        found.is_some_and(|(.., replies)| !matches!(replies, Replies::Real))
    }

    /// The reply to a call, known by these names, the first being the most precise.
    pub(super) fn deal(&mut self, names: &[&str], input: &Value) -> Dealt<'m> {
        let Some((level, name, replies)) = self.find(names) else {
            return Dealt::Real;
        };
        if let Replies::Real = replies {
            return Dealt::Real;
        }
        let replies = replies.list();
        let given = self.given.entry((level, name)).or_default();
        given.resize(replies.len(), 0);
        let fits = |reply: &Reply| {
            let when = reply.when.as_ref();
            when.is_none_or(|when| compare::has(input, when))
        };
        let fitting = replies.iter().enumerate().filter(|(_, reply)| fits(reply));
        // The one that is not used up, or else the last.
        let mut last = None;
        for (index, reply) in fitting {
            last = Some((index, reply));
            if given[index] < reply.times.unwrap_or(1) {
                break;
            }
        }
        match last {
            Some((index, reply)) => {
                given[index] = given[index].saturating_add(1);
                Dealt::Reply(reply)
            }
            None => Dealt::NoneFits(name),
        }
    }

    fn find(&self, names: &[&str]) -> Option<(usize, &'m str, &'m Replies)> {
        let levels = self.levels.iter().enumerate();
        let mut found = levels.flat_map(|(level, mocks)| {
            let here = names.iter().filter_map(|name| mocks.get_key_value(*name));
            here.map(move |(name, replies)| (level, name.as_str(), replies))
        });
        found.next()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mocks(yaml: &str) -> BTreeMap<String, Replies> {
        serde_yaml::from_str(yaml).expect("mocks")
    }

    /// What the calls with these inputs are given.
    fn deal(mocks: &mut Mocks<'_>, names: &[&str], inputs: &[Value]) -> Vec<Option<Value>> {
        let calls = inputs.iter().map(|input| match mocks.deal(names, input) {
            Dealt::Reply(reply) => reply.returns.clone(),
            Dealt::NoneFits(name) => Some(json!(format!("none of {name}"))),
            Dealt::Real => None,
        });
        calls.collect()
    }

    #[test]
    fn the_last_reply_is_for_all_calls_that_come() {
        let mocks =
            mocks("a: [{returns: 1}, {returns: 2, times: 2}, {returns: 3}]\nb: {returns: 0}");
        let mut mocks = Mocks::new(vec![&mocks]);
        let calls = vec![json!(null); 6];
        let expected = [1, 2, 2, 3, 3, 3].map(|n| Some(json!(n)));
        assert_eq!(deal(&mut mocks, &["a"], &calls), expected);
        assert_eq!(
            deal(&mut mocks, &["b"], &calls[..2]),
            [0, 0].map(|n| Some(json!(n)))
        );
    }

    #[test]
    fn a_reply_may_be_for_certain_inputs() {
        let mocks = mocks("a: [{when: {n: 1}, returns: one}, {when: {n: 2}, returns: two}]");
        let mut mocks = Mocks::new(vec![&mocks]);
        let calls = [
            json!({"n": 2, "m": 0}),
            json!({"n": 1}),
            json!({"n": 2}),
            json!({"n": 3}),
        ];
        let expected = ["two", "one", "two", "none of a"].map(|text| Some(json!(text)));
        assert_eq!(deal(&mut mocks, &["a"], &calls), expected);
    }

    #[test]
    fn a_test_goes_before_its_file_and_a_state_before_its_activity() {
        let file = mocks("State: {returns: 1}\nactivity: {returns: 2}\nother: {returns: 3}");
        let test = mocks("activity: {returns: 4}\nother: real");
        let mut mocks = Mocks::new(vec![&test, &file]);
        let call = [json!(null)];
        let mut one = |names: &[&str]| deal(&mut mocks, names, &call).remove(0);
        assert_eq!(one(&["State", "activity"]), Some(json!(4)));
        assert_eq!(one(&["State", "unknown"]), Some(json!(1)));
        assert_eq!(one(&["Other", "other"]), None);
        assert!(mocks.has(&["activity"]) && !mocks.has(&["other"]) && !mocks.has(&["none"]));
    }
}

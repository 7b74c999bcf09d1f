//! Reads a YAML file into a typed value and reports every problem of it at
//! once, each with its place.
//!
//! Serde stops at the first problem. So a problem is noted, the offending part
//! taken out, and the rest read again, until it reads; a second, event-level
//! pass over the text tells the line and column of each path.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment as SerdeSegment;
use serde_yaml::Value;

/// Reading stops after so many problems: nobody mends more in one go, and each costs a pass.
const MAX_PROBLEMS: usize = 50;

/// Largest file that is read. A thousand tenants take about half of it.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a mapping.
    Key(String),
    /// A position in a list.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Where in the file a value stands, as in `tenants[0].limits`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// This path with one more step.
    #[must_use]
    pub fn join(&self, segment: impl Into<Segment>) -> Self {
        let mut path = self.clone();
        path.0.push(segment.into());
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1, if the text has the place.
    pub place: Option<(usize, usize)>,
    /// What it is about; empty for the file as a whole.
    pub path: Path,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All that is wrong with a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// Name of the file.
    pub file: String,
    /// In the order of the file's lines.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.list.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = problem.place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
            if !problem.path.0.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file that is being read.
pub struct Reader {
    problems: Problems,
    places: HashMap<Path, (usize, usize)>,
    value: Value,
    /// Positions taken out of lists, as `(list, original position)`: what comes
    /// after them has moved up.
    removed: Vec<(Path, usize)>,
}

impl Reader {
    /// Reads `text` as YAML.
    ///
    /// # Errors
    ///
    /// If it is none: then there is no more to find.
    pub fn new(file: &str, text: &str) -> Result<Self, Problems> {
        let fail = |place, message: String| Problems {
            file: file.to_owned(),
            list: vec![Problem {
                place,
                path: Path::default(),
                message,
            }],
        };
        if text.len() > MAX_FILE_BYTES {
            let message = format!(
                "the file has {} bytes, at most {MAX_FILE_BYTES} are read",
                text.len()
            );
            return Err(fail(None, message));
        }
        let value: Value = serde_yaml::from_str(text).map_err(|error| {
            let place = error.location().map(|at| (at.line(), at.column()));
            fail(place, error.to_string())
        })?;
        let value = match value {
            Value::Null => Value::Mapping(serde_yaml::Mapping::new()),
            Value::Mapping(_) => value,
            _ => {
                return Err(fail(
                    Some((1, 1)),
                    "the file must be a mapping of blocks".to_owned(),
                ));
            }
        };
        Ok(Self {
            problems: Problems {
                file: file.to_owned(),
                list: Vec::new(),
            },
            places: places(text),
            value,
            removed: Vec::new(),
        })
    }

    /// Takes the value at `path` out if it is there, and reports it.
    pub fn refuse(&mut self, path: &Path, message: &str) {
        if remove(&mut self.value, &path.0) {
            self.problem(path, message.to_owned());
        }
    }

    /// Positions in the list at `path`.
    pub fn list_len(&self, path: &Path) -> usize {
        let mut value = &self.value;
        for segment in &path.0 {
            let inner = match segment {
                Segment::Key(key) => value.get(key.as_str()),
                Segment::Index(index) => value.get(*index),
            };
            match inner {
                Some(inner) => value = inner,
                None => return 0,
            }
        }
        value.as_sequence().map_or(0, Vec::len)
    }

    /// Reads what is there, noting what does not fit. `None` if nothing can be made of it.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        while self.problems.list.len() < MAX_PROBLEMS {
            match serde_path_to_error::deserialize(self.value.clone()) {
                Ok(read) => return Some(read),
                Err(error) => {
                    let path = own_path(error.path());
                    let message = with_suggestion(&error.inner().to_string(), &path);
                    self.problem(&path, message);
                    if !remove(&mut self.value, &path.0) {
                        return None;
                    }
                    if let Some((Segment::Index(index), list)) = path.0.split_last() {
                        let list = self.original(&Path(list.to_vec()));
                        let original = self.original_index(&list, *index);
                        self.removed.push((list, original));
                    }
                }
            }
        }
        None
    }

    /// Notes that one of `keys` is missing at `path`, unless one was there and
    /// has been reported already.
    pub fn missing(&mut self, path: &Path, keys: &[&str]) {
        let at = self.original(path);
        let reported = |key: &&str| {
            let inner = at.join(*key);
            self.problems
                .list
                .iter()
                .any(|problem| problem.path == inner)
        };
        if !keys.iter().any(reported) {
            self.problem(path, format!("`{}` is missing", keys.join("` or `")));
        }
    }

    /// Notes a problem.
    pub fn problem(&mut self, path: &Path, message: String) {
        let path = self.original(path);
        let mut place = None;
        // A value that is missing is reported where its block starts.
        for len in (0..=path.0.len()).rev() {
            place = self.places.get(&Path(path.0[..len].to_vec())).copied();
            if place.is_some() {
                break;
            }
        }
        self.problems.list.push(Problem {
            place,
            path,
            message,
        });
    }

    /// Whether nothing was wrong, and what was.
    ///
    /// # Errors
    ///
    /// All problems that were noted.
    pub fn finish(mut self) -> Result<(), Problems> {
        if self.problems.list.is_empty() {
            return Ok(());
        }
        self.problems.list.sort_by_key(|problem| problem.place);
        Err(self.problems)
    }

    /// The path as it was before parts were taken out.
    fn original(&self, path: &Path) -> Path {
        let mut original = Path::default();
        for segment in &path.0 {
            let segment = match segment {
                Segment::Index(index) => Segment::Index(self.original_index(&original, *index)),
                Segment::Key(_) => segment.clone(),
            };
            original.0.push(segment);
        }
        original
    }

    fn original_index(&self, list: &Path, index: usize) -> usize {
        let mut gone: Vec<usize> = (self.removed.iter())
            .filter(|(path, _)| path == list)
            .map(|(_, index)| *index)
            .collect();
        gone.sort_unstable();
        gone.into_iter().fold(
            index,
            |index, gone| if gone <= index { index + 1 } else { index },
        )
    }
}

fn own_path(path: &serde_path_to_error::Path) -> Path {
    let segments = path.iter().filter_map(|segment| match segment {
        SerdeSegment::Seq { index } => Some(Segment::Index(*index)),
        SerdeSegment::Map { key } => Some(Segment::Key(key.clone())),
        SerdeSegment::Enum { .. } | SerdeSegment::Unknown => None,
    });
    Path(segments.collect())
}

/// Takes the value at `path` out; says whether it was there.
fn remove(value: &mut Value, path: &[Segment]) -> bool {
    let Some((last, inner)) = path.split_last() else {
        return false;
    };
    let mut value = value;
    for segment in inner {
        let next = match segment {
            Segment::Key(key) => value.get_mut(key.as_str()),
            Segment::Index(index) => value.get_mut(*index),
        };
        match next {
            Some(next) => value = next,
            None => return false,
        }
    }
    match (last, value) {
        (Segment::Key(key), Value::Mapping(mapping)) => mapping.remove(key.as_str()).is_some(),
        (Segment::Index(index), Value::Sequence(items)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

/// Adds `did you mean` to serde's `unknown field` message, which names the candidates.
fn with_suggestion(message: &str, path: &Path) -> String {
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(given)) = (unknown, quoted.next()) else {
        // The path stands in front of the message already.
        let prefix = format!("{path}: ");
        return message.strip_prefix(&prefix).unwrap_or(message).to_owned();
    };
    match nearest(given, quoted) {
        Some(candidate) => format!("{message}; did you mean `{candidate}`?"),
        None => message.to_owned(),
    }
}

/// The candidate that `given` is most likely a slip for, if any is close.
pub fn nearest<'c>(given: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let close = candidates
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min();
    close.map(|(_, candidate)| candidate)
}

/// Line and column of every path in `text`. Text that the parser refuses has
/// been refused before, so the first error only ends the pass.
fn places(text: &str) -> HashMap<Path, (usize, usize)> {
    enum Open {
        Mapping { key: Option<String> },
        Sequence { next: usize },
    }
    let mut places = HashMap::new();
    let mut path = Path::default();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let place = (span.start.line(), span.start.col() + 1);
        if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            open.pop();
        } else if !matches!(
            event,
            Event::Scalar(..)
                | Event::Alias(_)
                | Event::MappingStart(..)
                | Event::SequenceStart(..)
        ) {
            continue;
        } else {
            match open.last_mut() {
                Some(Open::Mapping { key: key @ None }) => {
                    // A key. The place of a value is that of its key, where the eye looks.
                    let name = match &event {
                        Event::Scalar(text, ..) => text.clone().into_owned(),
                        _ => break, // nothing that the typed value could hold
                    };
                    path.0.push(Segment::Key(name.clone()));
                    places.entry(path.clone()).or_insert(place);
                    *key = Some(name);
                    continue;
                }
                Some(Open::Mapping { .. }) => {}
                Some(Open::Sequence { next }) => {
                    path.0.push(Segment::Index(*next));
                    *next += 1;
                    places.entry(path.clone()).or_insert(place);
                }
                None => {
                    places.entry(path.clone()).or_insert(place);
                }
            }
            match event {
                Event::MappingStart(..) => {
                    open.push(Open::Mapping { key: None });
                    continue;
                }
                Event::SequenceStart(..) => {
                    open.push(Open::Sequence { next: 0 });
                    continue;
                }
                _ => {}
            }
        }
        // A value is complete: leave its path.
        if let Some(Open::Mapping { key }) = open.last_mut() {
            *key = None;
        }
        path.0.pop();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_place() {
        let text = "a: 1\nb:\n  - c: x\n    d: [1, 2]\n  - e\nf: {g: h}\n";
        let places = places(text);
        let path = |segments: &[Segment]| Path(segments.to_vec());
        let (key, index) = (|k: &str| Segment::from(k), Segment::Index);
        for (path, place) in [
            (path(&[key("a")]), (1, 1)),
            (path(&[key("b"), index(0), key("c")]), (3, 5)),
            (path(&[key("b"), index(0), key("d"), index(1)]), (4, 12)),
            (path(&[key("b"), index(1)]), (5, 5)),
            (path(&[key("f"), key("g")]), (6, 5)),
        ] {
            assert_eq!(places.get(&path), Some(&place), "{path}");
        }
    }

    #[test]
    fn positions_in_lists_survive_what_was_taken_out() {
        #[derive(Debug, serde::Deserialize, PartialEq)]
        struct Numbers {
            list: Vec<u8>,
        }
        let mut reader = Reader::new("f", "list: [1, x, 3, y, z, 6]").expect("is YAML");
        assert_eq!(
            reader.read(),
            Some(Numbers {
                list: vec![1, 3, 6]
            })
        );
        reader.problem(
            &Path::default().join("list").join(2_usize),
            "six".to_owned(),
        );
        let problems = reader.finish().expect_err("three are no numbers");
        let paths: Vec<String> = problems.list.iter().map(|p| p.path.to_string()).collect();
        // x, y, z by their places in the text, and the third that was left is the sixth.
        assert_eq!(paths, ["list[1]", "list[3]", "list[4]", "list[5]"]);
    }

    #[test]
    fn hostile_text_is_a_problem_and_no_panic() {
        let bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: *c\n";
        let deep = "[".repeat(10_000);
        let long = "x".repeat(MAX_FILE_BYTES + 1);
        for text in [
            "\t- a",
            "a: [",
            "- list",
            "just text",
            "a: 1\na: 2",
            &deep,
            &long,
        ] {
            assert!(
                Reader::new("f", text).is_err(),
                "{}",
                &text[..text.len().min(20)]
            );
        }
        assert!(
            Reader::new("f", bomb).is_ok(),
            "a small expansion is plain YAML"
        );
        assert!(
            Reader::new("f", "").is_ok(),
            "an empty file takes all defaults"
        );
    }
}

//! A short run of each target: its corpus, and mutations of it by a seed. Bounded
//! by a number, so that it is the same everywhere.

use std::fs;
use std::path::Path;

use cascade_fuzz::{TARGETS, Target, target};

/// Mutations for each target.
const MUTATIONS: usize = 1_500;

/// Largest input, in bytes.
const MAX_LEN: usize = 4_096;

/// Words that mutations put in, shared with the campaigns: a line each, in quotes.
const WORDS: &str = include_str!("../words.dict");

#[test]
fn cdl_files_keep_their_promises() {
    check("cdl");
}

#[test]
fn asl_definitions_keep_their_promises() {
    check("asl");
}

#[test]
fn expressions_keep_their_promises() {
    check("expression");
}

#[test]
fn json_paths_and_intrinsic_functions_keep_their_promises() {
    check("jsonpath");
}

#[test]
fn jsonata_keeps_its_promises() {
    check("jsonata");
}

#[test]
fn the_machine_keeps_its_promises() {
    check("events");
}

#[test]
fn histories_keep_their_promises() {
    check("history");
}

#[test]
fn every_target_has_a_corpus_of_its_own() {
    for Target { name, .. } in TARGETS {
        assert!(corpus(name).len() >= 3, "{name}");
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a file").path();
            let bytes = fs::read(&path).expect("it reads");
            (path.display().to_string(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn check(name: &str) {
    let target = target(name).expect("a target");
    let corpus = corpus(name);
    for (file, bytes) in &corpus {
        println!("{file}");
        (target.run)(bytes);
    }
    let words: Vec<String> = WORDS
        .lines()
        .filter(|line| line.starts_with('"'))
        .map(|line| serde_json::from_str(line).expect("a word in quotes"))
        .collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..MUTATIONS {
        let mut bytes = corpus[random.below(corpus.len())].1.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &corpus, &words, &mut random);
        }
        bytes.truncate(MAX_LEN);
        // Shown if it panics.
        println!("{}", String::from_utf8_lossy(&bytes));
        (target.run)(&bytes);
    }
}

/// Changes an input in one of the ways that fuzzers do.
fn mutate(
    bytes: &mut Vec<u8>,
    corpus: &[(String, Vec<u8>)],
    words: &[String],
    random: &mut Random,
) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        3 => {
            let word = words[random.below(words.len())].bytes();
            bytes.splice(at..at, word);
        }
        4 => {
            let word = words[random.below(words.len())].bytes();
            bytes.splice(at..end, word);
        }
        5 => {
            let other = &corpus[random.below(corpus.len())].1;
            let from = random.below(other.len() + 1);
            let to = (from + random.below(64)).min(other.len());
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => bytes.insert(at, b" \n\"'{}[]()$.,:-0"[random.below(16)]),
    }
}

/// Xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("53 bits") % bound.max(1)
    }
}

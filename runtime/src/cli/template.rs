//! `cascade activity new`: the template and the SDK's sources, out of the binary.
//!
//! Both are compiled in, so a new activity needs no network and no clone.
//! The template is that of `cargo generate`; the two placeholders that it has
//! are filled in here. A crash leaves a folder that is not complete, and a
//! second try says so.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest name, in bytes: what still fits a table and a file name with room to spare.
const NAME_MAX: usize = 64;

/// Where the SDK is written, below the activity's folder.
const VENDORED: &str = ".cascade/sdk";

/// The template's files; their names end in `.liquid` where there is something to fill in.
const TEMPLATE: [(&str, &str); 4] = [
    (
        "Cargo.toml.liquid",
        include_str!("../../../sdk/template/Cargo.toml.liquid"),
    ),
    (
        "README.md.liquid",
        include_str!("../../../sdk/template/README.md.liquid"),
    ),
    (
        ".gitignore",
        include_str!("../../../sdk/template/.gitignore"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../sdk/template/src/lib.rs"),
    ),
];

macro_rules! sdk_files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../../../sdk/", $path)))),*]
    };
}

/// All that the SDK's crates consist of.
const SDK: [(&str, &str); 20] = sdk_files![
    "Cargo.toml",
    "README.md",
    "macros/Cargo.toml",
    "macros/src/lib.rs",
    "src/clock.rs",
    "src/context.rs",
    "src/error.rs",
    "src/heartbeat.rs",
    "src/host.rs",
    "src/host/bindings.rs",
    "src/host/native.rs",
    "src/host/wasm.rs",
    "src/http.rs",
    "src/kv.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/random.rs",
    "src/serve.rs",
    "src/testing.rs",
    "wit/activity.wit",
];

/// Where a new activity takes the SDK from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdkSource {
    /// From this binary: its sources are written to `.cascade/sdk`. Works anywhere.
    Vendored,
    /// From a folder, as in a clone's `sdk`.
    Path(PathBuf),
    /// From the registry, in this version.
    Version(String),
}

/// Why there is no new activity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be that of a crate and of an activity.
    #[error(
        "`{0}` cannot be an activity's name: it has 1 to {NAME_MAX} characters of a-z, 0-9, - and _, \
         starts with a letter, and is no word of Rust"
    )]
    Name(String),
    /// The folder is in use.
    #[error("`{}` exists and is not empty", .0.display())]
    Exists(PathBuf),
    /// There is no SDK in the folder that was given.
    #[error("`{}` is not the folder of cascade-sdk", .0.display())]
    NotSdk(PathBuf),
    /// A version that cannot stand in a manifest.
    #[error("`{0}` is not a version")]
    Version(String),
    /// Writing failed.
    #[error("cannot write `{}`", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Makes the crate of a new activity in `dir`, which must be absent or empty.
/// Gives the files that it wrote, the SDK's not included.
pub fn instantiate(dir: &Path, name: &str, sdk: &SdkSource) -> Result<Vec<PathBuf>, Error> {
    check_name(name)?;
    check_empty(dir)?;
    let dependency = dependency(sdk)?;
    let mut written = Vec::new();
    for (file, content) in TEMPLATE {
        let path = dir.join(file.strip_suffix(".liquid").unwrap_or(file));
        let content = if file.ends_with(".liquid") {
            fill(content, name, &dependency)
        } else {
            content.to_owned()
        };
        write_new(&path, &content)?;
        written.push(path);
    }
    if *sdk == SdkSource::Vendored {
        for (file, content) in SDK {
            write_new(&dir.join(VENDORED).join(file), content)?;
        }
    }
    Ok(written)
}

/// A name that is a crate's, an activity's and a folder's alike.
fn check_name(name: &str) -> Result<(), Error> {
    // Cargo refuses these as crates; of other words it only warns.
    const RESERVED: [&str; 52] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "core",
        "crate", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "if",
        "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "priv", "pub", "ref",
        "return", "self", "static", "std", "struct", "super", "test", "trait", "true", "try",
        "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_')
        && !RESERVED.contains(&name);
    if fits {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(NAME_MAX).collect()))
    }
}

fn check_empty(dir: &Path) -> Result<(), Error> {
    match fs::read_dir(dir).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::Exists(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::Write(dir.to_owned(), error)),
    }
}

/// What stands behind `cascade-sdk =` in the manifest.
fn dependency(sdk: &SdkSource) -> Result<String, Error> {
    match sdk {
        SdkSource::Vendored => Ok(format!("{{ path = \"{VENDORED}\" }}")),
        SdkSource::Path(path) => {
            if !path.join("wit/activity.wit").is_file() {
                return Err(Error::NotSdk(path.clone()));
            }
            // Relative to the new crate it would depend on where that lies.
            let path = fs::canonicalize(path).map_err(|_| Error::NotSdk(path.clone()))?;
            let text = path.to_str().ok_or_else(|| Error::NotSdk(path.clone()))?;
            Ok(format!("{{ path = {} }}", toml_string(text)))
        }
        SdkSource::Version(version) => {
            let fits = !version.is_empty()
                && version
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b".-+^~=<>, *".contains(&c));
            fits.then(|| format!("\"{version}\""))
                .ok_or_else(|| Error::Version(version.clone()))
        }
    }
}

/// A TOML basic string; JSON's escapes are a part of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Fills in what the template leaves open. These are all the forms that it uses; a
/// test holds that none is left.
fn fill(template: &str, name: &str, dependency: &str) -> String {
    template
        .replace("{{project-name}}", name)
        .replace("{{crate_name}}", &name.replace('-', "_"))
        .replace("{{sdk}}", dependency)
        .replace(r#"{{ "{{" }}"#, "{{")
}

fn write_new(path: &Path, content: &str) -> Result<(), Error> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(content.as_bytes())
    };
    write().map_err(|error| Error::Write(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdk() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk")
    }

    /// Every file below `dir`, by its path from `root`.
    fn files(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files(root, &path, found);
            } else {
                let path = path.strip_prefix(root).expect("below the root");
                found.push(path.to_str().expect("plain names").to_owned());
            }
        }
    }

    #[test]
    fn the_binary_brings_every_file_of_the_sdk() {
        let mut found = vec!["Cargo.toml".to_owned(), "README.md".to_owned()];
        for part in ["macros", "src", "wit"] {
            files(&sdk(), &sdk().join(part), &mut found);
        }
        found.sort();
        let brought: Vec<_> = SDK.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(brought, found);
    }

    #[test]
    fn a_new_activity_is_complete_and_filled_in() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("charge-card");
        let written = instantiate(&dir, "charge-card", &SdkSource::Vendored).expect("made");
        assert_eq!(written.len(), TEMPLATE.len());
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).expect("written");
        assert!(manifest.contains("name = \"charge-card\"\n"), "{manifest}");
        assert!(
            manifest.contains("cascade-sdk = { path = \".cascade/sdk\" }\n"),
            "{manifest}"
        );
        assert!(!manifest.contains("{{"), "{manifest}");
        let readme = fs::read_to_string(dir.join("README.md")).expect("written");
        assert!(
            readme.contains("urn:cascade:activity:charge_card\n"),
            "{readme}"
        );
        // The one pair of braces that is left is CDL's own.
        assert_eq!(readme.matches("{{").count(), 1, "{readme}");
        assert!(readme.contains("{{ workflow.input.name }}"), "{readme}");
        assert!(dir.join(".cascade/sdk/macros/src/lib.rs").is_file());

        let again = instantiate(&dir, "charge-card", &SdkSource::Vendored);
        assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    }

    #[test]
    fn the_sdk_comes_from_where_it_is_said() {
        let check = |source, expected: &str| {
            assert_eq!(dependency(&source).expect("a dependency"), expected);
        };
        check(SdkSource::Version("0.1".into()), "\"0.1\"");
        let path = fs::canonicalize(sdk()).expect("the SDK");
        check(
            SdkSource::Path(sdk()),
            &format!("{{ path = \"{}\" }}", path.display()),
        );
        assert!(matches!(
            dependency(&SdkSource::Path("/".into())),
            Err(Error::NotSdk(_))
        ));
        let quote = SdkSource::Version("1\" }".into());
        assert!(matches!(dependency(&quote), Err(Error::Version(_))));
    }

    #[test]
    fn names_are_those_of_crates() {
        for good in ["a", "charge-card", "charge_card2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "2fast",
            "Charge",
            "a b",
            "../up",
            "ä",
            "match",
            "test",
            &"a".repeat(65),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

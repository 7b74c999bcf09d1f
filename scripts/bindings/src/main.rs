//! Writes the bindings of `sdk/wit/activity.wit` that are checked in: in Rust for the SDK, in C
//! for the example. Run `scripts/bindings.sh` after a change of the contract.
//!
//! They are checked in so that the first build of an activity does not
//! compile the generator, which takes longer than all the rest.

use std::path::Path;

use anyhow::{Context, Result};
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

const HEAD: &str = "// Written by scripts/bindings.sh from sdk/wit/activity.wit";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("scripts/bindings lies in the repository")?;
    let rust = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        ..Default::default()
    };
    generate(root, "sdk/src/host", &mut rust.build())?;
    generate(
        root,
        "examples/polyglot/c/bindings",
        wit_bindgen_c::Opts::default().build().as_mut(),
    )
}

fn generate(root: &Path, folder: &str, generator: &mut dyn WorldGenerator) -> Result<()> {
    let wit = root.join("sdk/wit/activity.wit");
    let text = std::fs::read_to_string(&wit)?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str(&wit, &text)?;
    let world = resolve.select_world(&[package], Some("activity"))?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder)?;
    for (name, content) in files.iter() {
        let (name, content) = if name.ends_with(".rs") {
            let body = String::from_utf8(content.to_vec())?;
            let head = format!("{HEAD} ({:016x}).\n", fnv1a64(text.as_bytes()));
            ("bindings.rs", (head + &body).into_bytes())
        } else {
            (name, content.to_vec())
        };
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

/// FNV-1a; a test of the SDK computes the same, and so sees a contract that
/// changed without its bindings.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

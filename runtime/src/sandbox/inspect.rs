//! What a module is and can do, read from its bytes without running it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmparser::{ElementItems, ElementKind, Encoding, Parser, Payload};

use super::engine::MAX_CORE_INSTANCES;
use super::limits::Capability;

/// Largest module that is accepted, in bytes: Python components, the largest
/// that people build today, have 18 MB.
pub const MAX_MODULE_BYTES: usize = 64 << 20;

/// Most imports and exports that are looked at: real components have dozens.
const MAX_ITEMS: usize = 10_000;

/// Most functions of a module and all that is nested in it. The engines of
/// JavaScript and Python have some 20,000; compiling takes time and memory for
/// each, however small.
const MAX_FUNCTIONS: u32 = 60_000;

/// Most elements of the passive segments of a module and all that is nested in
/// it. Compilers hardly write any, and each instance keeps a copy of them.
const MAX_PASSIVE_ELEMENTS: u32 = 30_000;

/// What the host keeps for a passive element.
const PASSIVE_ELEMENT_BYTES: u64 = 16;

/// Longest name that is kept, in bytes, so that a hostile module cannot make
/// its description larger than itself.
const MAX_NAME: usize = 256;

/// How a module is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// A component that exports `handle` of the world `cascade:activity`.
    Handler,
    /// A component that exports `wasi:cli/run`: JSON on stdin and stdout.
    Command,
}

/// What a module is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// SHA-256 of the uploaded bytes, in hexadecimal.
    pub digest: String,
    /// Length of the uploaded bytes.
    pub size: u64,
    /// How it is run.
    pub kind: ModuleKind,
    /// Names that it imports, in order.
    pub imports: Vec<String>,
    /// Names that it exports, in order.
    pub exports: Vec<String>,
    /// The capabilities among the imports. Without any, it is pure.
    pub powers: BTreeSet<Capability>,
    /// Whether it was uploaded as a core module and made a component here.
    pub componentized: bool,
    /// Memory of the host that the passive element segments of one attempt's
    /// instances take at most, in bytes.
    #[serde(default)] // descriptions that are stored may be older
    pub(super) segment_bytes: u64,
}

/// Why bytes are not a module that can be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InvalidModule {
    /// Nothing there.
    #[error("the upload is empty")]
    Empty,
    /// Beyond [`MAX_MODULE_BYTES`].
    #[error("the module has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Native code: running it would be running the uploader's machine code.
    #[error(
        "this is precompiled native code ({format}), not WebAssembly; upload the .wasm file itself"
    )]
    Precompiled {
        /// What it looks like.
        format: String,
    },
    /// Something else.
    #[error("this is not a WebAssembly module: {hint}")]
    NotWasm {
        /// What it looks like.
        hint: String,
    },
    /// Damaged, or uses something that is not supported.
    #[error("the module is not valid: {message}")]
    Malformed {
        /// The parser's words.
        message: String,
    },
    /// Imports what no host interface here offers.
    #[error("the module imports what Cascade does not offer: {message}")]
    UnknownImport {
        /// Which.
        message: String,
    },
    /// Nothing to call.
    #[error(
        "the module exports neither `handle` of cascade:activity nor `wasi:cli/run`; it exports {found}"
    )]
    ExportMissing {
        /// What there is.
        found: String,
    },
    /// Compiling took too much time or memory.
    #[error("the module is too large to compile: {message}")]
    TooComplex {
        /// Which limit.
        message: String,
    },
}

/// SHA-256 of `bytes`, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
}

/// Whether uploaded bytes are WebAssembly at all: cheap, and all that the
/// server's own process does with them before a child has compiled them.
pub(super) fn sniff(bytes: &[u8]) -> Result<Encoding, InvalidModule> {
    if bytes.is_empty() {
        return Err(InvalidModule::Empty);
    }
    if bytes.len() > MAX_MODULE_BYTES {
        return Err(InvalidModule::TooLarge {
            size: bytes.len() as u64,
            limit: MAX_MODULE_BYTES as u64,
        });
    }
    for (magic, format) in [
        (&b"\x7fELF"[..], "ELF, as in .cwasm or a Linux program"),
        (b"MZ", "a Windows program"),
        (b"\xcf\xfa\xed\xfe", "a macOS program"),
        (b"\xca\xfe\xba\xbe", "a macOS program"),
        (b"!<arch>", "a static library"),
    ] {
        if bytes.starts_with(magic) {
            return Err(InvalidModule::Precompiled {
                format: format.into(),
            });
        }
    }
    if !bytes.starts_with(b"\0asm") {
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
        let hint = if start.is_some_and(|at| bytes[at] == b'(') {
            "it looks like the text format; convert it with `wasm-tools parse`"
        } else {
            "it does not start with the magic number `\\0asm`"
        };
        return Err(InvalidModule::NotWasm { hint: hint.into() });
    }
    // Version 1, layer 0 is a core module; layer 1 is a component.
    match bytes.get(4..8) {
        Some([1, 0, 0, 0]) => Ok(Encoding::Module),
        Some([_, _, 1, 0]) => Ok(Encoding::Component),
        _ => Err(InvalidModule::NotWasm {
            hint: "its version is unknown".into(),
        }),
    }
}

/// Describes a component. `uploaded` are the bytes that its owner knows it by:
/// the component itself, or the core module that it was made from.
pub(super) fn describe(component: &[u8], uploaded: &[u8]) -> Result<ModuleInfo, InvalidModule> {
    let found = read_items(component)?;
    let exports = |prefix: &str| {
        found
            .exports
            .iter()
            .any(|name| name.split('@').next() == Some(prefix))
    };
    let kind = if exports("handle") {
        ModuleKind::Handler
    } else if exports("wasi:cli/run") {
        ModuleKind::Command
    } else {
        return Err(InvalidModule::ExportMissing {
            found: list(&found.exports),
        });
    };
    Ok(ModuleInfo {
        digest: digest(uploaded),
        size: uploaded.len() as u64,
        kind,
        powers: found
            .imports
            .iter()
            .filter_map(|name| Capability::of_import(name))
            .collect(),
        imports: found.imports,
        exports: found.exports,
        componentized: component != uploaded,
        segment_bytes: segment_bytes(component)?,
    })
}

pub(super) fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    match names {
        [] => "nothing".into(),
        names if names.len() <= SHOWN => names.join(", "),
        names => format!(
            "{} and {} more",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        ),
    }
}

struct Items {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Imports and exports of the outermost component.
fn read_items(component: &[u8]) -> Result<Items, InvalidModule> {
    let malformed = |error: wasmparser::BinaryReaderError| InvalidModule::Malformed {
        message: error.to_string(),
    };
    let mut items = Items {
        imports: Vec::new(),
        exports: Vec::new(),
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(malformed)?;
                    // Types that the world uses are names, not powers.
                    if !matches!(import.ty, wasmparser::ComponentTypeRef::Type(_)) {
                        keep(&mut items.imports, import.name.name)?;
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    keep(&mut items.exports, export.map_err(malformed)?.name.name)?;
                }
            }
            _ => {}
        }
    }
    Ok(items)
}

fn keep(names: &mut Vec<String>, name: &str) -> Result<(), InvalidModule> {
    if names.len() == MAX_ITEMS || name.len() > MAX_NAME {
        return Err(InvalidModule::Malformed {
            message: format!(
                "more than {MAX_ITEMS} imports or exports, or a name longer than {MAX_NAME} bytes"
            ),
        });
    }
    names.push(name.to_owned());
    Ok(())
}

/// What decides how a core module is made a component.
pub(super) struct CoreItems {
    pub(super) exports: Vec<String>,
    /// Whether it imports WASI preview 1.
    pub(super) preview1: bool,
    /// Whether a toolchain said which world it is for.
    pub(super) has_component_type: bool,
}

/// Reads a core module's exports and kind.
pub(super) fn core_items(module: &[u8]) -> Result<CoreItems, InvalidModule> {
    let malformed = |error: wasmparser::BinaryReaderError| InvalidModule::Malformed {
        message: error.to_string(),
    };
    let mut items = CoreItems {
        exports: Vec::new(),
        preview1: false,
        has_component_type: false,
    };
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(malformed)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    items.preview1 |= import.module == "wasi_snapshot_preview1";
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    keep(&mut items.exports, export.map_err(malformed)?.name)?;
                }
            }
            Payload::CustomSection(section) => {
                items.has_component_type |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok(items)
}

/// Refuses a module with more functions or passive elements than anybody
/// writes, before a compiler spends a minute on it.
pub(super) fn check_counts(module: &[u8]) -> Result<(), InvalidModule> {
    let counts = count(module)?;
    let (functions, elements) = (counts.functions, counts.passive_elements);
    let message = if functions > MAX_FUNCTIONS {
        format!("it has {functions} functions, the limit is {MAX_FUNCTIONS}")
    } else if elements > MAX_PASSIVE_ELEMENTS {
        format!(
            "its passive element segments have {elements} elements, the limit is {MAX_PASSIVE_ELEMENTS}"
        )
    } else {
        return Ok(());
    };
    Err(InvalidModule::TooComplex { message })
}

/// What the passive element segments of a component's instances take, as if
/// each instance had those of all modules.
fn segment_bytes(component: &[u8]) -> Result<u64, InvalidModule> {
    let counts = count(component)?;
    // A nested component may be instantiated many times, which only the
    // compiler knows to resolve; there are not more than the engine allows.
    let instances = if counts.nested_instances {
        MAX_CORE_INSTANCES
    } else {
        counts.instances.min(MAX_CORE_INSTANCES)
    };
    Ok(PASSIVE_ELEMENT_BYTES * u64::from(counts.passive_elements) * u64::from(instances))
}

/// Numbers of things in a module or component and all that is nested in it.
#[derive(Default)]
struct Counts {
    functions: u32,
    passive_elements: u32,
    /// Core instances that the outermost component makes itself.
    instances: u32,
    /// Whether nested components make core instances too.
    nested_instances: bool,
}

fn count(module: &[u8]) -> Result<Counts, InvalidModule> {
    let malformed = |error: wasmparser::BinaryReaderError| InvalidModule::Malformed {
        message: error.to_string(),
    };
    let mut counts = Counts::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionStart { count, .. } => {
                counts.functions = counts.functions.saturating_add(count);
            }
            Payload::ElementSection(section) => {
                for element in section {
                    let element = element.map_err(malformed)?;
                    if matches!(element.kind, ElementKind::Passive) {
                        let items = match element.items {
                            ElementItems::Functions(items) => items.count(),
                            ElementItems::Expressions(_, items) => items.count(),
                        };
                        counts.passive_elements = counts.passive_elements.saturating_add(items);
                    }
                }
            }
            Payload::InstanceSection(section) if depth == 0 => {
                counts.instances = counts.instances.saturating_add(section.count());
            }
            Payload::InstanceSection(_) => counts.nested_instances = true,
            _ => {}
        }
    }
    Ok(counts)
}

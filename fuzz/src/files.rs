//! Files: whatever is in them, they are read or refused with reasons.

use cascade_cdl::asl::{Bindings, MachineType};
use cascade_cdl::{AslOptions, Parsed, Source, parse_with};

/// A CDL file.
pub(crate) fn cdl(data: &[u8]) {
    check("fuzz.yaml", data, &AslOptions::default());
}

/// A definition in the Amazon States Language, of either type of machine.
pub(crate) fn asl(data: &[u8]) {
    for machine_type in [MachineType::Standard, MachineType::Express] {
        let options = AslOptions {
            bindings: Bindings::default(),
            machine_type,
        };
        check("fuzz.asl.json", data, &options);
    }
}

/// Reads a file twice. Diagnostics point into it, at whole characters; what is
/// refused says why; and the second time gives the same.
fn check(name: &str, bytes: &[u8], options: &AslOptions) {
    let source = Source { name, bytes };
    let Parsed {
        application,
        diagnostics,
        omitted,
    } = parse_with(&source, options);
    let text = std::str::from_utf8(bytes);
    for diagnostic in &diagnostics {
        let span = diagnostic.span;
        assert!(span.start <= span.end && span.end <= bytes.len());
        if let Ok(text) = text {
            assert!(text.get(span.start..span.end).is_some(), "{diagnostic:?}");
        }
    }
    let again = parse_with(&source, options);
    assert_eq!(
        (&again.diagnostics, again.omitted),
        (&diagnostics, omitted),
        "read twice, told differently"
    );
    assert_eq!(application.is_some(), again.errors() == 0);
    for program in application.iter().flat_map(|a| a.workflows.values()) {
        for state in &program.states {
            assert!((state.scope.0 as usize) < program.scopes.len());
        }
        for scope in &program.scopes {
            assert!((scope.start.0 as usize) < program.states.len());
        }
    }
}

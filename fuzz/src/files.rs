//! Files: whatever is in them, they are read or refused with reasons.

use cascade_cdl::asl::{Bindings, MachineType};
use cascade_cdl::editor::{
    Definition, Symbol, complete_at, definition_at, hover_at, language, outline, references_at,
    rename_at,
};
use cascade_cdl::{AslOptions, Parsed, Source, import_asl, parse_with};

/// A CDL file, and what an editor asks about it.
pub(crate) fn cdl(data: &[u8]) {
    check("fuzz.yaml", data, &AslOptions::default());
    edit(data);
}

/// A definition in the Amazon States Language, of either type of machine, and what it
/// is in CDL.
pub(crate) fn asl(data: &[u8]) {
    import(data);
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

/// Translates a definition twice, with the same result. What has no finding is a file
/// without errors.
fn import(bytes: &[u8]) {
    let name = "fuzz.asl.json";
    let options = AslOptions::default();
    let imported = import_asl(&Source { name, bytes }, &options);
    let again = import_asl(&Source { name, bytes }, &options);
    assert_eq!(
        (&imported.cdl, &imported.findings),
        (&again.cdl, &again.findings),
        "translated twice, written differently"
    );
    if let Some(cdl) = imported.cdl.filter(|_| imported.findings.is_empty()) {
        let name = "imported.yaml";
        let bytes = cdl.as_bytes();
        let parsed = parse_with(&Source { name, bytes }, &options);
        assert_eq!(parsed.errors(), 0, "{:?}", parsed.diagnostics);
    }
}

/// Asks what editors ask, at some places. Whatever is told of the file is in it, and
/// stands at whole characters.
fn edit(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let is_in = |start: usize, end: usize| assert!(text.get(start..end).is_some());
    let _ = language(text);
    let mut symbols = outline(text);
    while let Some(Symbol {
        span,
        selection,
        children,
        ..
    }) = symbols.pop()
    {
        is_in(span.start, span.end);
        is_in(selection.start, selection.end);
        symbols.extend(children);
    }
    for at in [0, 1, 2, 3].map(|part| text.len() * part / 3) {
        for offered in complete_at(text, at, &[]) {
            is_in(offered.replace.start, offered.replace.end);
        }
        if let Some(Definition::Here(span)) = definition_at(text, at) {
            is_in(span.start, span.end);
        }
        for span in references_at(text, at) {
            is_in(span.start, span.end);
        }
        let _ = hover_at(text, at, &[]);
        let mut end = 0;
        let mut edits = rename_at(text, at, "Renamed").unwrap_or_default();
        edits.sort_by_key(|edit| edit.span.start);
        for edit in edits {
            is_in(edit.span.start, edit.span.end);
            assert!(end <= edit.span.start, "two edits of one place");
            end = edit.span.end;
        }
    }
}

//! What is said about a file, from the words of [`cascade_cdl::editor`] into those of the
//! protocol.

use std::collections::HashMap;

use cascade_cdl::asl::Bindings;
use cascade_cdl::editor::{self, Activity, CompletionKind, Definition, Symbol, SymbolKind};
use cascade_cdl::{AslOptions, Code, Severity, Source, parse_with};
use lsp_server::ErrorCode;
use lsp_types::{
    CodeDescription, CompletionItem, CompletionItemKind, CompletionParams, CompletionTextEdit,
    Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity, DocumentSymbolParams,
    Documentation, GotoDefinitionParams, Hover, HoverContents, HoverParams, Location,
    MarkupContent, MarkupKind, NumberOrString, Range, ReferenceParams, RenameParams,
    TextDocumentPositionParams, TextEdit, Url, WorkspaceEdit,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::document::{Document, Encoding, Lines};
use super::workspace::Found;
use super::{Refusal, Server};

/// Who says what is wrong.
const SOURCE: &str = "cascade";

/// What is wrong with a file; `None` if it is none of ours.
pub(super) fn diagnostics(
    uri: &Url,
    document: &Document,
    bindings: &Bindings,
    encoding: Encoding,
) -> Option<Vec<Diagnostic>> {
    let text = document.text()?;
    editor::language(text)?;
    let source = Source {
        name: uri.path(),
        bytes: text.as_bytes(),
    };
    let options = AslOptions {
        bindings: bindings.clone(),
        ..AslOptions::default()
    };
    let parsed = parse_with(&source, &options);
    let lines = Lines::new(text, encoding);
    let found = parsed.diagnostics.iter();
    let mut diagnostics: Vec<Diagnostic> =
        found.map(|found| diagnostic(found, uri, &lines)).collect();
    if parsed.omitted > 0 {
        diagnostics.push(Diagnostic {
            severity: Some(DiagnosticSeverity::INFORMATION),
            source: Some(SOURCE.to_owned()),
            message: format!("{} more problems are not shown", parsed.omitted),
            ..Diagnostic::default()
        });
    }
    Some(diagnostics)
}

fn diagnostic(found: &cascade_cdl::Diagnostic, uri: &Url, lines: &Lines<'_>) -> Diagnostic {
    let mut message = found.message.clone();
    for more in [Some(&found.label), found.help.as_ref()]
        .into_iter()
        .flatten()
    {
        if !more.is_empty() {
            message.push('\n');
            message.push_str(more);
        }
    }
    let url = Url::parse(&found.url).ok();
    let related = found.related.map(|span| DiagnosticRelatedInformation {
        location: Location::new(uri.clone(), lines.range(span)),
        message: "the first is here".to_owned(),
    });
    Diagnostic {
        range: lines.range(found.span),
        severity: Some(match found.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(found.code.to_string())),
        code_description: url.map(|href| CodeDescription { href }),
        source: Some(SOURCE.to_owned()),
        message,
        related_information: related.map(|related| vec![related]),
        tags: (found.code == Code::Unreachable)
            .then(|| vec![lsp_types::DiagnosticTag::UNNECESSARY]),
        ..Diagnostic::default()
    }
}

/// A place that somebody asks about.
struct Place<'s> {
    uri: &'s Url,
    text: &'s str,
    lines: Lines<'s>,
    at: usize,
}

impl Place<'_> {
    fn location(&self, span: cascade_cdl::diagnostic::ByteSpan) -> Location {
        Location::new(self.uri.clone(), self.lines.range(span))
    }
}

impl Server {
    fn text(&self, uri: &Url) -> Result<&str, Refusal> {
        let document = self.documents.get(uri).and_then(Document::text);
        document
            .ok_or_else(|| Refusal::new(ErrorCode::InvalidParams, format!("`{uri}` is not open")))
    }

    fn place<'s>(&'s self, params: &'s TextDocumentPositionParams) -> Result<Place<'s>, Refusal> {
        let uri = &params.text_document.uri;
        let text = self.text(uri)?;
        let lines = Lines::new(text, self.encoding);
        let at = lines.offset(params.position);
        Ok(Place {
            uri,
            text,
            lines,
            at,
        })
    }

    /// What is known of the activities in the workspace.
    fn activities(&mut self) -> Vec<Activity> {
        let found = self.workspace.activities().iter();
        found.map(|found| found.activity.clone()).collect()
    }

    pub(super) fn completion(&mut self, params: &CompletionParams) -> Result<Value, Refusal> {
        let activities = self.activities();
        let place = self.place(&params.text_document_position)?;
        let mut found = editor::complete_at(place.text, place.at, &activities);
        let trigger = params.context.as_ref();
        let trigger = trigger.and_then(|context| context.trigger_character.as_deref());
        if trigger == Some(" ") {
            // Whoever indents a line has not asked for keys.
            found.retain(|one| one.kind != CompletionKind::Key);
        }
        let items = found.into_iter().enumerate();
        let items: Vec<CompletionItem> = items
            .map(|(index, one)| completion_item(index, one, &place.lines))
            .collect();
        to_json(items)
    }

    pub(super) fn hover(&mut self, params: &HoverParams) -> Result<Value, Refusal> {
        let activities = self.activities();
        let place = self.place(&params.text_document_position_params)?;
        let found = editor::hover_at(place.text, place.at, &activities);
        to_json(found.map(|found| Hover {
            contents: HoverContents::Markup(markdown(found.markdown)),
            range: Some(place.lines.range(found.span)),
        }))
    }

    pub(super) fn definition(&mut self, params: &GotoDefinitionParams) -> Result<Value, Refusal> {
        let place = self.place(&params.text_document_position_params)?;
        let location = match editor::definition_at(place.text, place.at) {
            Some(Definition::Here(span)) => Some(place.location(span)),
            Some(Definition::Activity(name)) => self.definition_of(&name),
            None => None,
        };
        to_json(location)
    }

    /// Where the source of an activity is, or what says most of it.
    fn definition_of(&mut self, name: &str) -> Option<Location> {
        let mut found = self.workspace.activities().iter();
        let Found { file, .. } = found.find(|found| found.activity.name == name)?;
        let is_binary = file
            .extension()
            .is_some_and(|extension| extension == "wasm");
        let uri = Url::from_file_path(file).ok().filter(|_| !is_binary)?;
        Some(Location::new(uri, Range::default()))
    }

    pub(super) fn references(&self, params: &ReferenceParams) -> Result<Value, Refusal> {
        let place = self.place(&params.text_document_position)?;
        let all = editor::references_at(place.text, place.at);
        // The declaration comes first.
        let skipped = usize::from(!params.context.include_declaration);
        let found = all.into_iter().skip(skipped);
        to_json(found.map(|span| place.location(span)).collect::<Vec<_>>())
    }

    pub(super) fn prepare_rename(
        &self,
        params: &TextDocumentPositionParams,
    ) -> Result<Value, Refusal> {
        let place = self.place(params)?;
        let span = editor::renamable_at(place.text, place.at).map_err(|error| refused(&error))?;
        to_json(place.lines.range(span))
    }

    pub(super) fn rename(&self, params: &RenameParams) -> Result<Value, Refusal> {
        let place = self.place(&params.text_document_position)?;
        let edits = editor::rename_at(place.text, place.at, &params.new_name)
            .map_err(|error| refused(&error))?;
        let edits = edits.into_iter();
        let edits = edits.map(|edit| TextEdit::new(place.lines.range(edit.span), edit.text));
        let changes = HashMap::from([(place.uri.clone(), edits.collect())]);
        to_json(WorkspaceEdit::new(changes))
    }

    pub(super) fn symbols(&self, params: &DocumentSymbolParams) -> Result<Value, Refusal> {
        let text = self.text(&params.text_document.uri)?;
        let lines = Lines::new(text, self.encoding);
        let symbols = editor::outline(text);
        Ok(symbols
            .iter()
            .map(|symbol| symbol_json(symbol, &lines))
            .collect())
    }
}

fn completion_item(index: usize, one: editor::Completion, lines: &Lines<'_>) -> CompletionItem {
    let text_edit = TextEdit::new(lines.range(one.replace), one.text);
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let documentation = some(one.documentation);
    CompletionItem {
        kind: Some(match one.kind {
            CompletionKind::Key => CompletionItemKind::PROPERTY,
            CompletionKind::State => CompletionItemKind::REFERENCE,
            CompletionKind::Word => CompletionItemKind::ENUM_MEMBER,
            CompletionKind::Resource => CompletionItemKind::MODULE,
            CompletionKind::Filter => CompletionItemKind::FUNCTION,
        }),
        detail: some(one.detail),
        documentation: documentation.map(|text| Documentation::MarkupContent(markdown(text))),
        // In the order that they come in, not in that of the alphabet.
        sort_text: Some(format!("{index:05}")),
        filter_text: Some(one.label.clone()),
        label: one.label,
        text_edit: Some(CompletionTextEdit::Edit(text_edit)),
        ..CompletionItem::default()
    }
}

/// A symbol by hand: the type of the protocol cannot be made without a field that it
/// deprecates.
fn symbol_json(symbol: &Symbol, lines: &Lines<'_>) -> Value {
    let kind = match symbol.kind {
        SymbolKind::Workflow => lsp_types::SymbolKind::MODULE,
        SymbolKind::State => lsp_types::SymbolKind::FUNCTION,
        SymbolKind::Scope => lsp_types::SymbolKind::NAMESPACE,
    };
    let children = symbol
        .children
        .iter()
        .map(|child| symbol_json(child, lines));
    json!({
        "name": symbol.name,
        "detail": symbol.detail,
        "kind": kind,
        "range": lines.range(symbol.span),
        "selectionRange": lines.range(symbol.selection),
        "children": children.collect::<Vec<_>>(),
    })
}

fn markdown(value: String) -> MarkupContent {
    MarkupContent {
        kind: MarkupKind::Markdown,
        value,
    }
}

fn refused(error: &editor::RenameError) -> Refusal {
    Refusal::new(ErrorCode::RequestFailed, error.to_string())
}

fn to_json(answer: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer)
        .map_err(|error| Refusal::new(ErrorCode::InternalError, error.to_string()))
}

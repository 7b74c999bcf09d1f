//! `cascade lsp`: a language server, over standard input and output.
//!
//! Speaks the Language Server Protocol with one editor and knows the files that it has
//! open; all that it says about them comes from [`cascade_cdl`]. Nothing is written, and nothing is run.
//!
//! One thread reads messages ahead, so that a request which was cancelled in the meantime
//! is not worked on, and files are looked through only once no key waits. All
//! else happens in one loop.

mod answers;
mod document;
mod frames;
mod workspace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufReader, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use cascade_cdl::asl::Bindings;
use clap::Args;
use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::{
    DidChangeTextDocumentParams, DidChangeWorkspaceFoldersParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, InitializeParams, PositionEncodingKind, PublishDiagnosticsParams,
    Url,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Session;
use super::error::{Error, Exit};
use super::validate::Bind;
use document::{Document, Encoding};
use frames::Frame;
use workspace::Workspace;

/// Messages that are read ahead: some keys of a fast typist, each with its questions.
const READ_AHEAD: usize = 64;

/// Most files that may be open: an editor opens some of a project.
const MAX_DOCUMENTS: usize = 1_000;

/// Most text of open files, so that many large ones do not fill the memory.
const MAX_TEXT_BYTES: usize = 256 * 1024 * 1024;

/// Most changes in one message, each of which goes through the file: more than the cursors
/// that people have. What has more is not followed until it is sent as a whole.
const MAX_CHANGES: usize = 1_000;

/// Speak with an editor: diagnostics, completion and more, over stdin and stdout
#[derive(Debug, Args)]
pub(crate) struct Lsp {
    #[command(flatten)]
    bind: Bind,
    /// As it is anyway; many editors say it
    #[arg(long, hide = true)]
    stdio: bool,
}

impl Lsp {
    pub(crate) fn run(&self, session: &Session) -> Result<(), Error> {
        let bindings = self.bind.read(session.output)?;
        let (sender, receiver) = sync_channel(READ_AHEAD);
        // Not joined if the loop ends first: it waits for a message that may never come.
        thread::spawn(move || {
            let mut input = BufReader::new(io::stdin());
            loop {
                let frame = frames::read(&mut input);
                let is_last = !matches!(frame, Ok(Some(_)));
                if sender.send(frame).is_err() || is_last {
                    return;
                }
            }
        });
        let mut server = Server::new(bindings);
        let end = server.serve(&receiver, &mut io::stdout().lock());
        match end.map_err(|error| Error::failed(format!("the editor is gone: {error}")))? {
            End::AsAgreed => Ok(()),
            End::Abrupt => Err(Error::told(Exit::Failed)),
        }
    }
}

/// How the editor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It said so before.
    AsAgreed,
    Abrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fresh,
    Running,
    ShutDown,
}

/// Why a request is not answered.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

type Input = io::Result<Option<Frame>>;

struct Server {
    phase: Phase,
    encoding: Encoding,
    documents: BTreeMap<Url, Document>,
    /// Files that have changed since they were last looked through.
    changed: BTreeSet<Url>,
    workspace: Workspace,
    bindings: Bindings,
    /// Messages that were read ahead.
    ahead: VecDeque<Input>,
}

impl Server {
    fn new(bindings: Bindings) -> Self {
        Self {
            phase: Phase::Fresh,
            encoding: Encoding::Utf16,
            documents: BTreeMap::new(),
            changed: BTreeSet::new(),
            workspace: Workspace::default(),
            bindings,
            ahead: VecDeque::new(),
        }
    }

    /// Handles messages until the editor leaves.
    fn serve(&mut self, inputs: &Receiver<Input>, output: &mut impl Write) -> io::Result<End> {
        loop {
            let Some(frame) = self.next(inputs, output)? else {
                return Ok(self.end());
            };
            match frame {
                Frame::Message(Message::Request(request)) => {
                    let response = self.respond(request);
                    Message::Response(response).write(output)?;
                }
                Frame::Message(Message::Notification(note)) if note.method == "exit" => {
                    return Ok(self.end());
                }
                Frame::Message(Message::Notification(note)) => {
                    if let Some(warning) = self.note(note) {
                        warn(&warning, output)?;
                    }
                }
                // Nothing is asked of the editor.
                Frame::Message(Message::Response(_)) => {}
                Frame::Malformed(why) => refuse_malformed(&why, output)?,
            }
        }
    }

    fn end(&self) -> End {
        if self.phase == Phase::ShutDown {
            End::AsAgreed
        } else {
            End::Abrupt
        }
    }

    /// The next message, once there is one; `None` at the end. Before it waits, it tells the
    /// editor about the files that have changed.
    fn next(
        &mut self,
        inputs: &Receiver<Input>,
        output: &mut impl Write,
    ) -> io::Result<Option<Frame>> {
        while self.ahead.len() < READ_AHEAD {
            let Ok(input) = inputs.try_recv() else {
                break;
            };
            self.ahead.push_back(input);
        }
        if let Some(input) = self.ahead.pop_front() {
            return input;
        }
        self.publish(output)?;
        inputs.recv().unwrap_or(Ok(None))
    }

    /// Whether the editor does not want an answer any more.
    fn is_cancelled(&self, id: &RequestId) -> bool {
        self.ahead.iter().any(|input| match input {
            Ok(Some(Frame::Message(Message::Notification(note)))) => {
                let given = || serde_json::from_value::<RequestId>(note.params["id"].clone());
                note.method == "$/cancelRequest" && given().is_ok_and(|given| given == *id)
            }
            _ => false,
        })
    }

    fn respond(&mut self, request: Request) -> Response {
        let Request { id, method, params } = request;
        let answer = if self.is_cancelled(&id) {
            Err(Refusal::new(ErrorCode::RequestCanceled, "cancelled"))
        } else {
            self.answer(&method, params)
        };
        match answer {
            Ok(value) => Response::new_ok(id, value),
            Err(refusal) => Response::new_err(id, refusal.code as i32, refusal.message),
        }
    }

    fn answer(&mut self, method: &str, params: Value) -> Result<Value, Refusal> {
        match (self.phase, method) {
            (Phase::Fresh, "initialize") => Ok(self.initialize(&read(params)?)),
            (Phase::Fresh, _) => Err(Refusal::new(
                ErrorCode::ServerNotInitialized,
                "`initialize` comes first",
            )),
            (Phase::ShutDown, _) | (_, "initialize") => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("`{method:.80}` cannot come now"),
            )),
            (Phase::Running, "shutdown") => {
                self.phase = Phase::ShutDown;
                Ok(Value::Null)
            }
            (Phase::Running, "textDocument/completion") => self.completion(&read(params)?),
            (Phase::Running, "textDocument/hover") => self.hover(&read(params)?),
            (Phase::Running, "textDocument/definition") => self.definition(&read(params)?),
            (Phase::Running, "textDocument/references") => self.references(&read(params)?),
            (Phase::Running, "textDocument/prepareRename") => self.prepare_rename(&read(params)?),
            (Phase::Running, "textDocument/rename") => self.rename(&read(params)?),
            (Phase::Running, "textDocument/documentSymbol") => self.symbols(&read(params)?),
            (Phase::Running, _) => Err(Refusal::new(
                ErrorCode::MethodNotFound,
                format!("there is no method `{method:.80}`"),
            )),
        }
    }

    fn initialize(&mut self, params: &InitializeParams) -> Value {
        let general = params.capabilities.general.as_ref();
        let offered = general.and_then(|general| general.position_encodings.as_deref());
        // The one that the editor likes best, of those that are known here.
        let known = |kind: &PositionEncodingKind| match kind.as_str() {
            "utf-8" => Some(Encoding::Utf8),
            "utf-16" => Some(Encoding::Utf16),
            _ => None,
        };
        let chosen = offered.unwrap_or_default().iter().find_map(known);
        self.encoding = chosen.unwrap_or(Encoding::Utf16);
        let folders = params.workspace_folders.as_deref().unwrap_or_default();
        let folders: Vec<&Url> = folders.iter().map(|folder| &folder.uri).collect();
        #[expect(deprecated, reason = "editors that know no workspaces say it so")]
        let root = params.root_uri.iter().filter(|_| folders.is_empty());
        for folder in folders.iter().copied().chain(root) {
            if let Ok(path) = folder.to_file_path() {
                self.workspace.add(path);
            }
        }
        self.phase = Phase::Running;
        let name = match self.encoding {
            Encoding::Utf8 => "utf-8",
            Encoding::Utf16 => "utf-16",
        };
        json!({
            "capabilities": {
                "positionEncoding": name,
                "textDocumentSync": { "openClose": true, "change": 2, "save": true },
                "completionProvider": { "triggerCharacters": [" ", ":", "|"] },
                "hoverProvider": true,
                "definitionProvider": true,
                "referencesProvider": true,
                "renameProvider": { "prepareProvider": true },
                "documentSymbolProvider": true,
                "workspace": { "workspaceFolders": { "supported": true, "changeNotifications": true } },
            },
            "serverInfo": { "name": "cascade", "version": env!("CARGO_PKG_VERSION") },
        })
    }

    /// Takes note of something; gives what the editor should show its user. What cannot
    /// be understood is left: there is nobody to tell.
    fn note(&mut self, note: Notification) -> Option<String> {
        if self.phase != Phase::Running {
            return None;
        }
        let Notification { method, params } = note;
        match &*method {
            "textDocument/didOpen" => self.open(read(params).ok()?),
            "textDocument/didChange" => {
                self.change(read(params).ok()?);
                None
            }
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => {
                self.workspace.forget();
                let uri = serde_json::from_value(params["textDocument"]["uri"].clone()).ok()?;
                if self.documents.contains_key(&uri) {
                    self.changed.insert(uri);
                }
                None
            }
            "textDocument/didClose" => {
                let params: DidCloseTextDocumentParams = read(params).ok()?;
                let uri = params.text_document.uri;
                self.documents.remove(&uri);
                self.changed.insert(uri);
                None
            }
            "workspace/didChangeWorkspaceFolders" => {
                let params: DidChangeWorkspaceFoldersParams = read(params).ok()?;
                let path_of = |uri: &Url| uri.to_file_path().ok();
                let removed = params.event.removed.iter();
                for path in removed.filter_map(|folder| path_of(&folder.uri)) {
                    self.workspace.remove(&path);
                }
                let added = params.event.added.iter();
                for path in added.filter_map(|folder| path_of(&folder.uri)) {
                    self.workspace.add(path);
                }
                None
            }
            _ => None,
        }
    }

    fn open(&mut self, params: DidOpenTextDocumentParams) -> Option<String> {
        let opened = params.text_document;
        let is_new = !self.documents.contains_key(&opened.uri);
        if is_new && self.documents.len() >= MAX_DOCUMENTS {
            return Some(format!(
                "more than {MAX_DOCUMENTS} files are open; cascade looks at no more"
            ));
        }
        let kept: usize = self.documents.values().map(Document::bytes).sum();
        if kept + opened.text.len() > MAX_TEXT_BYTES {
            return Some(format!(
                "the open files have more than {MAX_TEXT_BYTES} bytes; cascade looks at no more"
            ));
        }
        let mut document = Document::new(opened.text, opened.version);
        let before = self.documents.get(&opened.uri);
        document.is_marked = before.is_some_and(|before| before.is_marked);
        self.changed.insert(opened.uri.clone());
        self.documents.insert(opened.uri, document);
        None
    }

    fn change(&mut self, params: DidChangeTextDocumentParams) {
        let uri = params.text_document.uri;
        let Some(document) = self.documents.get_mut(&uri) else {
            return;
        };
        document.version = params.text_document.version;
        if params.content_changes.len() > MAX_CHANGES {
            document.forget();
        } else {
            for change in params.content_changes {
                document.change(change, self.encoding);
            }
        }
        let kept: usize = self.documents.values().map(Document::bytes).sum();
        if kept > MAX_TEXT_BYTES
            && let Some(document) = self.documents.get_mut(&uri)
        {
            document.forget();
        }
        self.changed.insert(uri);
    }

    /// Tells the editor what is wrong with the files that have changed.
    fn publish(&mut self, output: &mut impl Write) -> io::Result<()> {
        for uri in std::mem::take(&mut self.changed) {
            let (diagnostics, version) = match self.documents.get_mut(&uri) {
                Some(document) => {
                    let found = answers::diagnostics(&uri, document, &self.bindings, self.encoding);
                    // A file that is none of ours is left to others.
                    if found.is_none() && !document.is_marked {
                        continue;
                    }
                    document.is_marked = found.is_some();
                    (found.unwrap_or_default(), Some(document.version))
                }
                None => (Vec::new(), None),
            };
            let params = PublishDiagnosticsParams {
                uri,
                diagnostics,
                version,
            };
            send("textDocument/publishDiagnostics", params, output)?;
        }
        Ok(())
    }
}

/// The parameters of a method.
fn read<P: DeserializeOwned>(params: Value) -> Result<P, Refusal> {
    serde_json::from_value(params)
        .map_err(|error| Refusal::new(ErrorCode::InvalidParams, error.to_string()))
}

fn send(method: &str, params: impl serde::Serialize, output: &mut impl Write) -> io::Result<()> {
    Message::Notification(Notification::new(method.to_owned(), params)).write(output)
}

/// Has the editor show a warning.
fn warn(message: &str, output: &mut impl Write) -> io::Result<()> {
    send(
        "window/showMessage",
        json!({ "type": 2, "message": message }),
        output,
    )
}

/// Answers what is no message. Whose answer it is cannot be said.
fn refuse_malformed(why: &str, output: &mut impl Write) -> io::Result<()> {
    let code = ErrorCode::ParseError as i32;
    let error = json!({ "code": code, "message": format!("not a message: {why:.200}") });
    let text = json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string();
    write!(output, "Content-Length: {}\r\n\r\n{text}", text.len())?;
    output.flush()
}

#[cfg(test)]
mod tests;

//! Map states.

use super::{Builder, Language, PROCESSOR, Place, known};
use crate::asl::MachineType;
use crate::asl::program::{Batcher, Format, Items, Map, Native, Reader, Writer};
use crate::diagnostic::Code;
use crate::front::fields::Fields;
use crate::front::report::Finding;
use crate::front::states::Reported;
use crate::front::yaml::{Node, Yaml};
use crate::program::ScopeId;
use crate::spread::Style;

const CONFIG: &[&str] = &["Mode", "ExecutionType"];
const READER: &[&str] = &["Resource", "Parameters", "Arguments", "ReaderConfig"];
const READER_CONFIG: &[&str] = &[
    "InputType",
    "CSVHeaderLocation",
    "CSVHeaders",
    "CSVDelimiter",
    "MaxItems",
    "MaxItemsPath",
    "Transformation",
    "ManifestType",
    "ItemsPointer",
];
const WRITER: &[&str] = &["Resource", "Parameters", "Arguments", "WriterConfig"];
const WRITER_CONFIG: &[&str] = &["Transformation", "OutputType"];
const BATCHER: &[&str] = &[
    "MaxItemsPerBatch",
    "MaxItemsPerBatchPath",
    "MaxInputBytesPerBatch",
    "MaxInputBytesPerBatchPath",
    "BatchInput",
];

/// Most iterations at a time, and most items, that can be asked for.
const MAX_COUNT: f64 = 100_000_000.0;

/// Largest batch, in bytes (AWS's limit).
const MAX_BATCH_BYTES: f64 = 262_144.0;

impl Builder<'_, '_, '_> {
    pub(super) fn map(
        &mut self,
        place: &Place<'_>,
        fields: &Fields<'_>,
        language: Language,
    ) -> Option<Map> {
        let why = "`Iterator` is the old name of `ItemProcessor`";
        self.context
            .exclusive(fields, "ItemProcessor", "Iterator", why);
        let node = match fields.get("Iterator") {
            Some(node) => Some(node),
            None => self.context.required(fields, "ItemProcessor"),
        };
        let processor = node.and_then(|node| self.processor(place, node, language));
        let why = "`Parameters` is the old name of `ItemSelector`";
        self.context
            .exclusive(fields, "ItemSelector", "Parameters", why);
        let selector = fields.get("ItemSelector").or(fields.get("Parameters"));
        let selector = match selector {
            Some(node) => Some(self.template(node, "ItemSelector", language)?),
            None => None,
        };
        let items = self.items(fields);
        let counts = (0.0, MAX_COUNT);
        let concurrency = self.amount(
            fields,
            "MaxConcurrency",
            "MaxConcurrencyPath",
            language,
            counts,
        );
        let tolerated_count = self.amount(
            fields,
            "ToleratedFailureCount",
            "ToleratedFailureCountPath",
            language,
            counts,
        );
        let tolerated_percentage = self.amount(
            fields,
            "ToleratedFailurePercentage",
            "ToleratedFailurePercentagePath",
            language,
            (0.0, 100.0),
        );
        let reader = match fields.get("ItemReader") {
            Some(node) => Some(self.reader(node, language)?),
            None => None,
        };
        let batcher = match fields.get("ItemBatcher") {
            Some(node) => Some(self.batcher(node, language)?),
            None => None,
        };
        let writer = match fields.get("ResultWriter") {
            Some(node) => self.writer(node, language).ok()?,
            None => None,
        };
        let (processor, distributed) = processor?;
        Some(Map {
            items: items?,
            reader,
            writer,
            selector,
            batcher,
            processor,
            distributed,
            concurrency,
            tolerated_count,
            tolerated_percentage,
        })
    }

    /// The scope of the iterations, and whether they are executions of their own.
    fn processor(
        &mut self,
        place: &Place<'_>,
        node: &Node,
        language: Language,
    ) -> Option<(ScopeId, bool)> {
        let fields = known(self.context, node, "an item processor", PROCESSOR)?;
        let mut distributed = false;
        if let Some(node) = fields.get("ProcessorConfig") {
            let config = known(self.context, node, "`ProcessorConfig`", CONFIG)?;
            if let Some(mode) = config.get("Mode") {
                let word = self
                    .context
                    .word(mode, "`Mode`", &["INLINE", "DISTRIBUTED"])?;
                distributed = word == "DISTRIBUTED";
                if distributed && self.options.machine_type == MachineType::Express {
                    self.report(Finding::new(
                        Code::NotForExpress,
                        mode.span,
                        "an Express state machine has no distributed Map",
                    ));
                }
            }
            if let Some(node) = config.get("ExecutionType") {
                self.context
                    .word(node, "`ExecutionType`", &["STANDARD", "EXPRESS"])?;
            } else if distributed {
                self.context.required(&config, "ExecutionType")?;
            }
        }
        let scope = self.scope(&fields, "item", Some(place.id), language)?;
        Some((scope, distributed))
    }

    fn items(&mut self, fields: &Fields<'_>) -> Option<Items> {
        if let Some(node) = fields.get("ItemsPath") {
            return self.path(node, "ItemsPath").map(Items::Path);
        }
        match fields.get("Items") {
            Some(node) => self.query(node, "Items").map(Items::Query),
            None => Some(Items::Input),
        }
    }

    fn reader(&mut self, node: &Node, language: Language) -> Option<Reader> {
        let fields = known(self.context, node, "`ItemReader`", READER)?;
        let parameters = match fields.get("Parameters").or(fields.get("Arguments")) {
            Some(node) => Some(self.template(node, "ItemReader/Arguments", language)?),
            None => None,
        };
        let resource = self.context.required(&fields, "Resource")?;
        let native = self.native(resource);
        let (resource, bound) = match native {
            Some(_) => (self.context.text(resource, "`Resource`")?.into(), None),
            None => self.resource(resource, None)?,
        };
        let mut format = Format::Json;
        let mut max_items = None;
        if let Some(node) = fields.get("ReaderConfig") {
            let config = known(self.context, node, "`ReaderConfig`", READER_CONFIG)?;
            format = self.format(&config)?;
            max_items = self.amount(
                &config,
                "MaxItems",
                "MaxItemsPath",
                language,
                (0.0, MAX_COUNT),
            );
        }
        Some(Reader {
            resource,
            bound,
            native,
            parameters,
            format,
            max_items,
        })
    }

    /// What a resource reads of the tenant's objects, unless an activity is bound to it.
    fn native(&self, node: &Node) -> Option<Native> {
        let Yaml::Scalar(scalar) = &node.yaml else {
            return None;
        };
        let text = scalar.as_text()?;
        let native = match text.strip_prefix("arn:aws:states:::s3:")? {
            "getObject" => Native::Object,
            "listObjectsV2" => Native::Listing,
            _ => return None,
        };
        self.options.bindings.find(text).is_none().then_some(native)
    }

    fn format(&mut self, config: &Fields<'_>) -> Option<Format> {
        let Some(node) = config.get("InputType") else {
            return Some(Format::Json);
        };
        let types = ["JSON", "JSONL", "CSV", "MANIFEST", "PARQUET"];
        let word = self.context.word(node, "`InputType`", &types)?;
        match word {
            "JSON" => Some(Format::Json),
            "JSONL" => Some(Format::JsonLines),
            "CSV" => self.csv(config),
            other => {
                let message =
                    format!("items of the type {other} are not supported by this version");
                self.report(Finding::new(Code::NotSupported, node.span, message));
                None
            }
        }
    }

    fn csv(&mut self, config: &Fields<'_>) -> Option<Format> {
        let places = ["FIRST_ROW", "GIVEN"];
        let place = self.context.required(config, "CSVHeaderLocation")?;
        let place = self.context.word(place, "`CSVHeaderLocation`", &places)?;
        let headers = match place {
            "GIVEN" => {
                let node = self.context.required(config, "CSVHeaders")?;
                let items = self.context.sequence(node, "`CSVHeaders`")?;
                let names = items
                    .iter()
                    .map(|item| self.context.text(item, "the name of a column"));
                Some(
                    names
                        .map(|name| name.map(ToOwned::to_owned))
                        .collect::<Option<_>>()?,
                )
            }
            _ => None,
        };
        let delimiter = match config.get("CSVDelimiter") {
            Some(node) => {
                let names = ["COMMA", "PIPE", "SEMICOLON", "SPACE", "TAB"];
                match self.context.word(node, "`CSVDelimiter`", &names)? {
                    "PIPE" => '|',
                    "SEMICOLON" => ';',
                    "SPACE" => ' ',
                    "TAB" => '\t',
                    _ => ',',
                }
            }
            None => ',',
        };
        Some(Format::Csv { headers, delimiter })
    }

    fn batcher(&mut self, node: &Node, language: Language) -> Option<Batcher> {
        let fields = known(self.context, node, "`ItemBatcher`", BATCHER)?;
        let max_items = self.amount(
            &fields,
            "MaxItemsPerBatch",
            "MaxItemsPerBatchPath",
            language,
            (1.0, MAX_COUNT),
        );
        let max_bytes = self.amount(
            &fields,
            "MaxInputBytesPerBatch",
            "MaxInputBytesPerBatchPath",
            language,
            (1.0, MAX_BATCH_BYTES),
        );
        if max_items.is_none() && max_bytes.is_none() {
            self.context.required(&fields, "MaxItemsPerBatch");
        }
        let input = match fields.get("BatchInput") {
            Some(node) => Some(self.template(node, "ItemBatcher/BatchInput", language)?),
            None => None,
        };
        Some(Batcher {
            max_items,
            max_bytes,
            input,
        })
    }

    /// Where and how results are written; `None` inside if they are the state's output.
    fn writer(&mut self, node: &Node, language: Language) -> Result<Option<Writer>, Reported> {
        let fields = known(self.context, node, "`ResultWriter`", WRITER).ok_or(Reported)?;
        let parameters = match fields.get("Parameters").or(fields.get("Arguments")) {
            Some(node) => Some(
                self.template(node, "ResultWriter/Arguments", language)
                    .ok_or(Reported)?,
            ),
            None => None,
        };
        let (mut style, mut lines) = (Style::Detailed, false);
        if let Some(node) = fields.get("WriterConfig") {
            let config =
                known(self.context, node, "`WriterConfig`", WRITER_CONFIG).ok_or(Reported)?;
            if let Some(node) = config.get("Transformation") {
                let words = ["NONE", "COMPACT", "FLATTEN"];
                let word = self.context.word(node, "`Transformation`", &words);
                style = match word.ok_or(Reported)? {
                    "COMPACT" => Style::Compact,
                    "FLATTEN" => Style::Flat,
                    _ => Style::Detailed,
                };
            }
            if let Some(node) = config.get("OutputType") {
                let word = self
                    .context
                    .word(node, "`OutputType`", &["JSON", "JSONL"])
                    .ok_or(Reported)?;
                lines = word == "JSONL";
            }
        }
        let Some(node) = fields.get("Resource") else {
            return Ok(None);
        };
        let text = self.context.text(node, "`Resource`").ok_or(Reported)?;
        if text != "arn:aws:states:::s3:putObject" {
            self.report(Finding::new(
                Code::InvalidResource,
                node.span,
                "results are written by `arn:aws:states:::s3:putObject`",
            ));
            return Err(Reported);
        }
        Ok(Some(Writer {
            parameters,
            style,
            lines,
        }))
    }
}

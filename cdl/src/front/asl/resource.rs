//! What a Task runs: Cascade's own URNs, and ARNs by way of bindings.

use std::sync::Arc;

use super::Builder;
use crate::asl::program::Bound;
use crate::asl::{Envelope, MachineType};
use crate::diagnostic::Code;
use crate::front::report::{Finding, quote};
use crate::front::urn;
use crate::front::yaml::{Node, Yaml};

/// Services with an optimised integration, and the actions that it has; from
/// "Integrating optimized services" of the guide.
const OPTIMIZED: [(&str, &str); 21] = [
    ("lambda", "invoke"),
    ("batch", "submitJob"),
    ("dynamodb", "getItem putItem updateItem deleteItem"),
    ("ecs", "runTask"),
    ("sns", "publish"),
    ("sqs", "sendMessage"),
    ("glue", "startJobRun"),
    (
        "sagemaker",
        "createTrainingJob createTransformJob createEndpoint createEndpointConfig \
         createHyperParameterTuningJob createLabelingJob createModel createProcessingJob updateEndpoint",
    ),
    (
        "elasticmapreduce",
        "createCluster terminateCluster setClusterTerminationProtection addStep cancelStep \
         modifyInstanceFleetByName modifyInstanceGroupByName",
    ),
    (
        "emr-containers",
        "createVirtualCluster deleteVirtualCluster startJobRun",
    ),
    (
        "emr-serverless",
        "createApplication startApplication stopApplication deleteApplication startJobRun cancelJobRun",
    ),
    (
        "codebuild",
        "startBuild stopBuild batchDeleteBuilds batchGetReports startBuildBatch stopBuildBatch \
         retryBuildBatch deleteBuildBatch",
    ),
    ("states", "startExecution"),
    (
        "athena",
        "startQueryExecution stopQueryExecution getQueryExecution getQueryResults",
    ),
    (
        "eks",
        "createCluster deleteCluster createNodegroup deleteNodegroup runJob call",
    ),
    ("apigateway", "invoke"),
    ("databrew", "startJobRun"),
    ("events", "putEvents"),
    ("mediaconvert", "createJob"),
    ("bedrock", "invokeModel createModelCustomizationJob"),
    ("http", "invoke"),
];

/// Services that a Map state reads items from and writes results to.
const STORAGE: (&str, &str) = ("s3", "getObject listObjectsV2 putObject");

impl Builder<'_, '_, '_> {
    /// A resource, and the activity behind it if there is a binding. `function`
    /// are the parameters, in which `lambda:invoke` names its function.
    pub(super) fn resource(
        &mut self,
        node: &Node,
        function: Option<&Node>,
    ) -> Option<(Arc<str>, Option<Bound>)> {
        let text = self.context.text(node, "`Resource`")?;
        if text.starts_with("urn:") {
            let bound = self.own(node, text)?;
            return Some((text.into(), Some(bound)));
        }
        if let Err(reason) = check(text, self.options.machine_type) {
            let code = match reason {
                Refusal::NotForExpress(_) => Code::NotForExpress,
                Refusal::Unknown => Code::InvalidResource,
            };
            let message = match reason {
                Refusal::NotForExpress(what) => {
                    format!("an Express state machine does not support {what}")
                }
                Refusal::Unknown => format!("the resource {} is not recognized", quote(text)),
            };
            self.report(Finding::new(code, node.span, message));
            return None;
        }
        let named = if text.contains(":lambda:invoke") {
            function.and_then(function_name)
        } else {
            None
        };
        let bindings = &self.options.bindings;
        let binding = named
            .and_then(|name| bindings.find(name))
            .or_else(|| bindings.find(text));
        let bound = binding.map(|binding| Bound {
            activity: binding.activity.clone(),
            envelope: binding.envelope,
        });
        if bound.is_none() {
            self.report(
                Finding::new(
                    Code::Unbound,
                    node.span,
                    format!("no activity is bound to {}", quote(text)),
                )
                .help("the state fails when it is entered; bind the resource to an activity"),
            );
        }
        Some((text.into(), bound))
    }

    fn own(&mut self, node: &Node, text: &str) -> Option<Bound> {
        let Yaml::Scalar(scalar) = &node.yaml else {
            return None;
        };
        match urn::parse(text) {
            Ok(urn::Parsed::Activity(activity)) => Some(Bound {
                activity,
                envelope: Envelope::None,
            }),
            Ok(urn::Parsed::Workflow { .. }) => {
                let message = "child workflows are not supported here by this version";
                self.report(Finding::new(Code::NotSupported, node.span, message));
                None
            }
            Err(error) => {
                self.context
                    .syntax(Code::InvalidResource, node, scalar, &error);
                None
            }
        }
    }
}

enum Refusal {
    Unknown,
    NotForExpress(&'static str),
}

/// Whether AWS knows a resource of this name.
fn check(text: &str, machine_type: MachineType) -> Result<(), Refusal> {
    let mut parts = text.splitn(6, ':');
    let mut part = || parts.next().ok_or(Refusal::Unknown);
    let (arn, _partition, service, _region, account, rest) =
        (part()?, part()?, part()?, part()?, part()?, part()?);
    if arn != "arn" || rest.is_empty() {
        return Err(Refusal::Unknown);
    }
    let express = machine_type == MachineType::Express;
    match service {
        "lambda" if rest.starts_with("function:") => Ok(()),
        "states" if rest.starts_with("activity:") => {
            if express {
                return Err(Refusal::NotForExpress("Activity ARNs"));
            }
            Ok(())
        }
        "states" if account.is_empty() => integration(rest, express),
        _ => Err(Refusal::Unknown),
    }
}

/// `service:action[.pattern]`, `aws-sdk:service:action[.pattern]`
fn integration(rest: &str, express: bool) -> Result<(), Refusal> {
    let (call, pattern) = match rest.split_once('.') {
        Some((call, pattern)) => (call, Some(pattern)),
        None => (rest, None),
    };
    match pattern {
        Some("waitForTaskToken") if express => {
            return Err(Refusal::NotForExpress(
                "`.waitForTaskToken` service integrations",
            ));
        }
        Some("sync" | "sync:2") if express => {
            return Err(Refusal::NotForExpress("`.sync` service integrations"));
        }
        None | Some("waitForTaskToken" | "sync" | "sync:2") => {}
        Some(_) => return Err(Refusal::Unknown),
    }
    let known = match call.split(':').collect::<Vec<_>>()[..] {
        ["aws-sdk", service, action] => !service.is_empty() && !action.is_empty(),
        [service, action] => OPTIMIZED
            .iter()
            .chain([&STORAGE])
            .any(|(name, actions)| *name == service && actions.split(' ').any(|a| a == action)),
        _ => false,
    };
    if known { Ok(()) } else { Err(Refusal::Unknown) }
}

/// `FunctionName`, if it is written out.
fn function_name(parameters: &Node) -> Option<&str> {
    let Yaml::Mapping(entries) = &parameters.yaml else {
        return None;
    };
    let entry = entries
        .iter()
        .find(|entry| &*entry.key.text == "FunctionName")?;
    match &entry.value.yaml {
        Yaml::Scalar(scalar) => scalar.as_text().filter(|text| !text.starts_with("{%")),
        _ => None,
    }
}

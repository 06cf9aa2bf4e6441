//! Files that say what there should be: read, checked as a whole, and compared with what there is.

mod files;
mod live;
mod read;
mod spec;

use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::kinds::Kind;

pub(crate) use files::{documents, read as read_text};
pub(crate) use live::{Live, plan};
pub(crate) use read::{manifests, one};
pub(crate) use spec::{SecretFile, UserFile, canonical, full};

/// One object that a document describes.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Every field, defaults included, as the API takes it.
    pub(crate) spec: Value,
    /// What stood in the document before its fields, for messages: `spec.` or nothing.
    pub(crate) prefix: &'static str,
    pub(crate) origin: String,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// `demo.yaml, document 2`.
    pub(crate) origin: String,
    /// `spec.servers[0]`; empty: the document itself.
    pub(crate) field: String,
    pub(crate) why: String,
    pub(crate) kind: Option<Kind>,
}

impl Manifest {
    /// `project/demo`; of a token `mcptoken/demo/ci`.
    pub(crate) fn full_name(&self) -> String {
        match (self.kind, self.project()) {
            (Kind::McpTokens, Some(project)) => format!("mcptoken/{project}/{}", self.name),
            _ => format!("{}/{}", self.kind.singular(), self.name),
        }
    }

    /// The project of a token.
    pub(crate) fn project(&self) -> Option<&str> {
        self.spec["project"].as_str()
    }

    /// A fault of the document as a whole.
    pub(crate) fn fault_of_all(&self, why: impl Into<String>) -> Fault {
        Fault {
            field: String::new(),
            ..self.fault("", why)
        }
    }

    fn fault(&self, field: &str, why: impl Into<String>) -> Fault {
        Fault {
            origin: self.origin.clone(),
            field: format!("{}{field}", self.prefix),
            why: why.into(),
            kind: Some(self.kind),
        }
    }
}

impl Fault {
    /// Without the document, where there is only one.
    pub(crate) fn short(&self) -> String {
        match self.field.as_str() {
            "" => self.why.clone(),
            field => format!("{field}: {}", self.why),
        }
    }

    fn line(&self) -> String {
        match self.field.as_str() {
            "" => format!("{}: {}", self.origin, self.why),
            field => format!("{}: {field}: {}", self.origin, self.why),
        }
    }
}

/// All faults at once. Nothing was changed.
pub(crate) fn faulty(what: &str, faults: &[Fault]) -> Failure {
    let next = match faults.iter().find_map(|fault| fault.kind) {
        Some(kind) => format!("mcpctl explain {}", kind.singular()),
        None => "mcpctl api-resources".to_owned(),
    };
    let failed = |why: String| Failure::new(format!("cannot {what}"), why);
    let failure = match faults {
        [one] => failed(format!("nothing was changed: {}", one.line())),
        many => {
            failed(format!("{} faults, nothing was changed", many.len())).faults(many.iter().map(Fault::line).collect())
        }
    };
    failure.next(next).with_exit(Exit::Error)
}

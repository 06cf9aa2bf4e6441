//! What the caller lacks for what is to be done: asked before the first change, so that none is made that would stop half-way.
//! What a right depends on beside kind and name (what a definition grants, which servers a project gets) the API alone decides.

use mcp_api::auth::CanI;

use super::{Step, step};
use crate::api::{Api, encoded};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::manifest::{Fault, Live, Manifest};

pub(super) async fn lacking(api: &Api, planned: &[(Manifest, Live)], force: bool) -> Result<Vec<Fault>, Failure> {
    let mut faults = Vec::new();
    for (manifest, live) in planned {
        for question in questions(manifest, &step(manifest, live, force)) {
            let answer: CanI = api
                .get("find out what you may do", &format!("auth/can-i?{question}"))
                .await?;
            if !answer.allowed {
                let why = format!("{}: you lack {}", manifest.full_name(), answer.need);
                faults.push(manifest.fault_of_all(why));
            }
        }
    }
    Ok(faults)
}

fn questions(manifest: &Manifest, step: &Step) -> Vec<String> {
    let kind = manifest.kind;
    let verb = match (step, kind) {
        (Step::Leave(_), _) => return Vec::new(),
        // Who writes a definition hands rights on.
        (_, Kind::Rbac) => "grant",
        (Step::Create | Step::Mint, _) => "create",
        (Step::Change, _) => "update",
    };
    let name = match manifest.project() {
        Some(project) if kind == Kind::McpTokens => format!("{project}/{}", manifest.name),
        _ => manifest.name.clone(),
    };
    let mut questions = vec![format!(
        "verb={verb}&resource={}&name={}",
        kind.plural(),
        encoded(&name)
    )];
    // A stdio server is a command that runs on the nodes.
    if kind == Kind::Servers && manifest.spec["transport"] == "stdio" {
        questions.push("action=exec".to_owned());
    }
    questions
}

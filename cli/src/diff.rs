//! `mcpctl diff`: what `apply` would change.

use serde_json::Value;

use crate::api::Api;
use crate::apply::{planned, same};
use crate::args::{DiffArgs, Global};
use crate::failure::{Exit, Failure};
use crate::manifest::{Live, Manifest};
use crate::{out, show};

pub(crate) async fn diff(global: &Global, args: &DiffArgs) -> Result<Exit, Failure> {
    // 1 says that there are differences: what goes wrong says 2.
    let failed = |failure: Failure| match failure.exit() {
        Exit::Error => failure.with_exit(Exit::Usage),
        _ => failure,
    };
    let api = Api::of(global).map_err(failed)?;
    let planned = planned(&api, &args.from, "compare the documents")
        .await
        .map_err(failed)?;
    let mut differ = false;
    for (manifest, live) in &planned {
        let before = match live {
            Live::Missing => None,
            // What is there stays as it is, whatever the file says.
            Live::Active | Live::Revoked => continue,
            Live::Here { spec, .. } if same(manifest, spec) => continue,
            Live::Here { spec, .. } => Some(spec),
        };
        differ = true;
        print_diff(manifest, before).map_err(failed)?;
    }
    Ok(if differ { Exit::Error } else { Exit::Done })
}

fn print_diff(manifest: &Manifest, before: Option<&Value>) -> Result<(), Failure> {
    let text = |spec: &Value| show::manifest(manifest.kind, &manifest.name, &covered(spec));
    let before = before.map(text).transpose()?.unwrap_or_default();
    let after = text(&manifest.spec)?;
    let name = manifest.full_name();
    let diff = similar::TextDiff::from_lines(&before, &after);
    let mut unified = diff.unified_diff();
    let unified = unified
        .context_radius(3)
        .header(&format!("live/{name}"), &format!("{}: {name}", manifest.origin))
        .to_string();
    out::bytes(unified.as_bytes());
    Ok(())
}

/// The same without secret values.
fn covered(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(password) = spec.get_mut("password") {
        *password = "(given)".into();
    }
    for value in spec
        .get_mut("data")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|data| data.values_mut())
    {
        *value = "(given)".into();
    }
    spec
}

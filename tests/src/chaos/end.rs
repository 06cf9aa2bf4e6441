//! The end of a run: everything is healed, and everything that was acknowledged is read through every node.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

use super::history::{Line, Shown, Slot, What};
use super::machine::api_url;
use super::world::World;
use crate::api::Api;

/// Objects on one page.
const PAGE: &str = "limit=500&consistency=linearizable";

/// Reads all of it through one node.
pub(super) async fn read(world: &World, slot: Slot) -> anyhow::Result<()> {
    let mut api = Api::open(&api_url(slot), &world.session).await?;
    let tokens = list(&mut api, "mcptokens", |item| {
        (item["status"] == "active").then(|| item["id"].as_str()).flatten()
    });
    let tokens = tokens.await?;
    let enabled = |item: &Value| item["disabled"] == false;
    let users = list(&mut api, "users", |item| {
        enabled(item).then(|| item["email"].as_str()).flatten()
    })
    .await?;
    let rbac = list(&mut api, "rbac", |item| item["name"].as_str()).await?;
    for made in world.all_made() {
        let show = |what, there| {
            let subject = made.subject;
            world.recorder.record(Line::Shown(Shown {
                slot,
                subject,
                what,
                there,
            }));
        };
        show(What::Token, tokens.contains(&made.token));
        if let Some((user, definition)) = &made.user {
            show(What::User, users.contains(user));
            show(What::Rbac, rbac.contains(definition));
        }
    }
    Ok(())
}

/// What of each object of a kind, page by page.
async fn list(api: &mut Api, kind: &str, of: impl Fn(&Value) -> Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut path = format!("{kind}?{PAGE}");
    loop {
        let listed = api.must("GET", &path, &Value::Null).await?;
        let items = listed["items"].as_array().context("no list")?;
        all.extend(items.iter().filter_map(&of).map(str::to_owned));
        match listed["continue"].as_str() {
            Some(more) => path = format!("{kind}?{PAGE}&continue={more}"),
            None => return Ok(all),
        }
    }
}

//! `mcpctl get all`: everything that files can describe, in the order in which `apply` writes it.

use mcp_api::groups::GroupBody;
use mcp_api::list::List;
use mcp_api::projects::ProjectBody;
use mcp_api::rbac::RbacBody;
use mcp_api::secrets::SecretBody;
use mcp_api::servers::ServerBody;
use mcp_api::serviceaccounts::ServiceAccountBody;
use mcp_api::tokens::McpTokenBody;
use mcp_api::users::UserBody;
use serde_json::{Value, json};

use crate::api::Api;
use crate::args::{Format, Global};
use crate::failure::{Exit, Failure};
use crate::out;
use crate::show::{self, Object, VERSION};

/// The word that stands for all kinds.
pub(crate) const ALL: &str = "all";

pub(crate) async fn get(global: &Global, format: Format) -> Result<Exit, Failure> {
    let api = Api::of(global)?;
    let mut found = Found {
        format,
        parts: 0,
        items: Vec::new(),
    };
    found.add::<SecretBody>(&api).await?;
    found.add::<UserBody>(&api).await?;
    found.add::<GroupBody>(&api).await?;
    found.add::<ServiceAccountBody>(&api).await?;
    found.add::<ServerBody>(&api).await?;
    found.add::<ProjectBody>(&api).await?;
    found.add::<RbacBody>(&api).await?;
    found.add::<McpTokenBody>(&api).await?;
    if matches!(format, Format::Json | Format::JsonPath(_)) {
        show::other(
            format,
            &json!({"apiVersion": VERSION, "kind": "List", "items": found.items}),
        )?;
    } else if found.parts == 0 {
        eprintln!("nothing that you may see");
    }
    Ok(Exit::Done)
}

struct Found {
    format: Format,
    /// How many kinds were printed.
    parts: usize,
    /// For formats that are one document.
    items: Vec<Value>,
}

impl Found {
    async fn add<T: Object>(&mut self, api: &Api) -> Result<(), Failure> {
        let plural = T::KIND.plural();
        let list: Result<List<T>, Failure> = api.list(&format!("list {plural}"), plural, "").await;
        let mut list = match list {
            Ok(list) => list,
            // Part of the truth is said to be a part.
            Err(failure) if failure.exit() == Exit::NotAllowed && self.may_ask(api).await => {
                eprintln!("note: {plural} are left out: {}", failure.why());
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        list.items.retain(Object::is_written_by_hand);
        list.items.sort_by_key(Object::name);
        if list.items.is_empty() {
            return Ok(());
        }
        self.parts += 1;
        let (wide, between) = (self.format == Format::Wide, if self.parts > 1 { "\n" } else { "" });
        match self.format {
            Format::Table | Format::Wide => {
                out::bytes(format!("{between}{}\n", plural.to_uppercase()).as_bytes());
                show::table(&list.items, wide);
            }
            Format::Yaml => {
                let texts: Vec<String> = list.items.iter().map(show::yaml_of).collect::<Result<_, _>>()?;
                let between = if self.parts > 1 { "---\n" } else { "" };
                out::bytes(format!("{between}{}", texts.join("---\n")).as_bytes());
            }
            Format::Name => list.items.iter().for_each(|object| out::line(&object.full_name())),
            Format::Json | Format::JsonPath(_) => self.items.extend(list.items.iter().map(show::whole)),
        }
        Ok(())
    }

    /// Whether the caller is somebody: then it is a right that is missing, not a login.
    async fn may_ask(&self, api: &Api) -> bool {
        api.get::<Value>("find out who you are", "auth/whoami").await.is_ok()
    }
}

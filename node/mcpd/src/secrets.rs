//! Secrets: sealed here before they go anywhere, and never shown again.

use std::collections::BTreeMap;

use http::StatusCode;
use mcp_api::secrets::{SecretBody, SecretChange, SecretSpec};
use mcp_api::show_time;
use mcp_model::command::Command;
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::Secret;
use mcp_model::secrets::{KEYS_MAX, VALUE_BYTES_MAX, is_key, seal_context};
use mcp_model::tables::{Table, Tables};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::limits;
use crate::noun::{self, Noun, changed, renamed};
use crate::projects::removed;
use crate::router::Api;

/// Values in the clear, on their way into the seal.
type Values = BTreeMap<String, Zeroizing<String>>;

impl Noun for Secret {
    const RESOURCE: Resource = Resource::Secrets;
    const NOUN: &'static str = "secret";
    const NAMES: Table = Table::SecretNames;
    type Body = SecretBody;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn version(&self) -> u64 {
        self.origin.version
    }

    fn show(&self, _: &dyn Tables) -> SecretBody {
        SecretBody {
            id: self.id.to_string(),
            name: self.name.to_string(),
            description: self.description.clone(),
            keys: self.values.keys().cloned().collect(),
            created_at: show_time(self.origin.created_ms),
            created_by: self.origin.created_by.clone(),
            resource_version: self.origin.version.to_string(),
        }
    }
}

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    noun::list::<Secret>(it).await
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    noun::get::<Secret>(it).await
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<SecretSpec>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    faults.text("description", &value.description, limits::TEXT_BYTES_MAX);
    let values = read_values(value.data, &mut faults);
    faults.refuse()?;
    let name = name.expect(READ);
    it.caller.rights.need(Verb::Create, Resource::Secrets, name.as_str())?;
    let api = &it.call.api;
    let id = api.new_id();
    let command = Command::CreateSecret {
        id,
        name,
        description: value.description,
        values: api.seal_all(id, &values),
    };
    let written = it.propose(command).await?;
    changed::<Secret>(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<SecretSpec>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add("name", renamed("secret"));
    }
    faults.text("description", &value.description, limits::TEXT_BYTES_MAX);
    let values = read_values(value.data, &mut faults);
    faults.refuse()?;
    let before: Secret = noun::load(&it).await?;
    let command = Command::UpdateSecret {
        id: before.id,
        name: it.object(),
        description: value.description,
        values: it.call.api.seal_all(before.id, &values),
        if_version: it.call.if_version()?,
    };
    let written = it.propose(command).await?;
    changed::<Secret>(&it, written, StatusCode::OK).await
}

/// Changes the keys that are given, and takes away those that are given as `null`.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let written = it.change_of(|| Box::pin(changed_secret(&it))).await?;
    changed::<Secret>(&it, written, StatusCode::OK).await
}

async fn changed_secret(it: &Admitted) -> Result<Command, Fault> {
    let Parsed { value, mut faults } = body::parse::<SecretChange>(&it.call.body)?;
    let mut secret: Secret = noun::load(it).await?;
    let description = value.description.unwrap_or(secret.description);
    faults.text("description", &description, limits::TEXT_BYTES_MAX);
    let mut new = BTreeMap::new();
    for (key, value) in value.data {
        match value {
            Some(value) => drop(new.insert(key, value)),
            None => drop(secret.values.remove(&key)),
        }
    }
    let new = read_values(new, &mut faults);
    faults.refuse()?;
    secret.values.extend(it.call.api.seal_all(secret.id, &new));
    Ok(Command::UpdateSecret {
        id: secret.id,
        name: it.object(),
        description,
        values: secret.values,
        if_version: it.call.if_version()?.or(Some(secret.origin.version)),
    })
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteSecret { name, if_version }).await?;
    removed(&it, &written, "secret").await
}

/// Values that can stand where servers refer to them. A fault names the key and nothing of the value.
fn read_values(data: BTreeMap<String, String>, faults: &mut Faults) -> Values {
    if data.len() > KEYS_MAX {
        faults.add("data", format!("at most {KEYS_MAX} keys"));
    }
    for (key, value) in &data {
        let field = format!("data.{key}");
        if !is_key(key) {
            faults.add(&*field, "a key has 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'");
        }
        faults.text(&field, value, VALUE_BYTES_MAX);
    }
    data.into_iter()
        .map(|(key, value)| (key, Zeroizing::new(value)))
        .collect()
}

impl Api {
    fn seal_all(&self, secret: Id, values: &Values) -> BTreeMap<String, Vec<u8>> {
        let seal = |(key, value): (&String, &Zeroizing<String>)| {
            let sealed = self
                .seal
                .seal(&seal_context(secret, key), value.as_bytes(), self.random());
            (key.clone(), sealed)
        };
        values.iter().map(seal).collect()
    }
}

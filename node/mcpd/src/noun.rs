//! What nouns with a name share: the list of those that the caller may see, one of them, and the answer to a change.

use http::StatusCode;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::tables::{self, Stored, Table, Tables};
use serde::Serialize;

use crate::answer::Answer;
use crate::call::Admitted;
use crate::fault::Fault;
use crate::page;
use crate::port::Written;
use crate::projects::id_of;

/// A record that the API shows under a name.
pub(crate) trait Noun: Stored + Send + 'static {
    /// What rights on it are called.
    const RESOURCE: Resource;
    /// What people call one.
    const NOUN: &'static str;
    /// From name to id.
    const NAMES: Table;
    /// What is shown of it.
    type Body: Serialize + Send + 'static;
    fn name(&self) -> &str;
    fn version(&self) -> u64;
    fn show(&self, tables: &dyn Tables) -> Self::Body;
}

pub(crate) async fn list<T: Noun>(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let rights = it.caller.rights.clone();
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |record: T| {
            let seen = rights.allow(Verb::See, T::RESOURCE, record.name());
            seen.then(|| record.show(t))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get<T: Noun>(it: Admitted) -> Result<Answer, Fault> {
    let record: T = load(&it).await?;
    let version = record.version();
    let body = it.call.api.read(move |t| record.show(t)).await?;
    Ok(Answer::ok(&body).version(&version.to_string()))
}

/// The record that the path names.
pub(crate) async fn load<T: Noun>(it: &Admitted) -> Result<T, Fault> {
    let name = it.name.clone();
    let found = it
        .call
        .api
        .read(move |t| tables::by_name::<T>(t, T::NAMES, name.as_bytes()))
        .await?;
    found.ok_or_else(|| Fault::not_found(T::NOUN, &it.name))
}

/// The answer to a change: the record as it is now.
pub(crate) async fn changed<T: Noun>(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
    let id = id_of(&written)?;
    it.see(&written).await?;
    let shown = it
        .call
        .api
        .read(move |t| tables::by_id::<T>(t, id).map(|record| (record.version(), record.show(t))))
        .await?;
    let (version, body) = shown.ok_or_else(|| Fault::not_found(T::NOUN, &id.to_string()))?;
    Ok(it.answer(&written, status, body).await?.version(&version.to_string()))
}

/// Why a name in a body is not the one in the path.
pub(crate) fn renamed(kind: &str) -> String {
    format!("a {kind} cannot be renamed: leave it out or repeat the one in the path")
}

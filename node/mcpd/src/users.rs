//! Users.

use http::StatusCode;
use mcp_api::show_time;
use mcp_api::users::{NewUser, UserBody, UserChange};
use mcp_model::command::Command;
use mcp_model::names::Email;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::User;
use mcp_model::tables::{self, Table, Tables};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::port::Written;
use crate::projects::id_of;
use crate::{limits, page};

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let rights = it.caller.rights.clone();
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |user: User| {
            let seen = rights.allow(Verb::See, Resource::Users, user.email.as_str());
            seen.then(|| show(&user))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let email = it.name.clone();
    let found = it.call.api.read(move |t| find(t, &email).map(|u| show(&u))).await?;
    let body = found.ok_or_else(|| Fault::not_found("user", &it.name))?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<NewUser>(&it.call.body)?;
    let email = faults.check("email", Email::parse(&value.email));
    faults.text("name", &value.name, limits::TEXT_BYTES_MAX);
    let password = value.password.map(Zeroizing::new);
    if let Some(password) = &password {
        check_new_password(&mut faults, password);
    }
    faults.refuse()?;
    let email = email.expect(READ);
    it.caller.rights.need(Verb::Create, Resource::Users, email.as_str())?;
    let api = &it.call.api;
    let password_hash = match password {
        Some(password) => Some(api.hasher.hash(password, api.random()).await?),
        None => None,
    };
    let command = Command::CreateUser {
        id: api.new_id(),
        email,
        name: value.name,
        password_hash,
    };
    let written = it.propose(command).await?;
    changed(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<UserChange>(&it.call.body)?;
    if value.disabled.is_none() {
        faults.add("disabled", "it is missing: true or false");
    }
    faults.refuse()?;
    let email = Email::parse(&it.name).expect("the route's right has parsed it");
    let disabled = value.disabled.expect(READ);
    let written = it.propose(Command::SetUserDisabled { email, disabled }).await?;
    changed(&it, written, StatusCode::OK).await
}

/// Whether it can be somebody's password.
pub(crate) fn check_new_password(faults: &mut Faults, password: &str) {
    faults.text("password", password, limits::PASSWORD_BYTES_MAX);
    if password.chars().count() < limits::PASSWORD_CHARS_MIN {
        faults.add(
            "password",
            format!("at least {} characters", limits::PASSWORD_CHARS_MIN),
        );
    }
}

async fn changed(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
    let id = id_of(&written)?;
    it.see(&written).await?;
    let body = it
        .call
        .api
        .read(move |t| tables::by_id::<User>(t, id).map(|u| show(&u)))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("user", &id.to_string()))?;
    let version = body.resource_version.clone();
    Ok(it.answer(&written, status, body).await?.version(&version))
}

/// The user with that e-mail.
pub(crate) fn find(tables: &dyn Tables, email: &str) -> Option<User> {
    tables::by_name(tables, Table::UserEmails, email.as_bytes())
}

fn show(user: &User) -> UserBody {
    UserBody {
        id: user.id.to_string(),
        email: user.email.to_string(),
        name: user.name.clone(),
        disabled: user.disabled,
        created_at: show_time(user.origin.created_ms),
        created_by: user.origin.created_by.clone(),
        resource_version: user.origin.version.to_string(),
    }
}

//! Users.

use http::StatusCode;
use mcp_api::show_time;
use mcp_api::users::{NewUser, PasswordReset, UserBody, UserChange, UserSpec};
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
use crate::projects::{id_of, removed};
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
        check_password("password", password, &mut faults);
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

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<UserSpec>(&it.call.body)?;
    if !value.email.is_empty() && !value.email.eq_ignore_ascii_case(&it.name) {
        faults.add(
            "email",
            "an e-mail never changes: leave it out or repeat the one in the path",
        );
    }
    update(&it, Some(value.name), Some(value.disabled), faults).await
}

/// Changes the fields that are given.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<UserChange>(&it.call.body)?;
    if value.name.is_none() && value.disabled.is_none() {
        faults.add("disabled", "nothing is given that could be changed: name or disabled");
    }
    update(&it, value.name, value.disabled, faults).await
}

async fn update(
    it: &Admitted,
    name: Option<String>,
    disabled: Option<bool>,
    mut faults: Faults,
) -> Result<Answer, Fault> {
    faults.text("name", name.as_deref().unwrap_or(""), limits::TEXT_BYTES_MAX);
    faults.refuse()?;
    let command = Command::UpdateUser {
        email: email_of(it),
        name,
        disabled,
        if_version: it.call.if_version()?,
    };
    let written = it.propose(command).await?;
    changed(it, written, StatusCode::OK).await
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (email, if_version) = (email_of(&it), it.call.if_version()?);
    let written = it.propose(Command::DeleteUser { email, if_version }).await?;
    removed(&it, &written, "user").await
}

pub(crate) async fn reset_password(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<PasswordReset>(&it.call.body)?;
    let password = Zeroizing::new(value.password);
    check_password("password", &password, &mut faults);
    faults.refuse()?;
    let api = &it.call.api;
    let command = Command::ResetPassword {
        email: email_of(&it),
        password_hash: api.hasher.hash(password, api.random()).await?,
    };
    let written = it.propose(command).await?;
    tracing::info!(
        user = it.name,
        index = written.index,
        by = it.caller.rights.who(),
        "password reset"
    );
    changed(&it, written, StatusCode::OK).await
}

/// Notes what is wrong with a new password.
pub(crate) fn check_password(field: &str, password: &str, faults: &mut Faults) {
    faults.text(field, password, limits::PASSWORD_BYTES_MAX);
    if password.chars().count() < limits::PASSWORD_CHARS_MIN {
        faults.add(field, format!("at least {} characters", limits::PASSWORD_CHARS_MIN));
    }
}

fn email_of(it: &Admitted) -> Email {
    Email::parse(&it.name).expect("the route's right has parsed it")
}

pub(crate) async fn changed(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
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

//! Logging in and out, and who one is.

use http::StatusCode;
use mcp_api::auth::{LoginAnswer, LoginRequest, SetupRequest, UserRef, WhoAmI};
use mcp_api::problem::Code;
use mcp_api::rbac::RoleBindingBody;
use mcp_api::show_time;
use mcp_api::users::PasswordChange;
use mcp_api::write::Removed;
use mcp_model::authority::Principal;
use mcp_model::command::{Actor, Command};
use mcp_model::names::Email;
use mcp_model::records::{SetupSecret, User};
use mcp_model::tables;
use mcp_model::token::{PlainSession, PlainSetup, SETUP_PREFIX};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Parsed, READ};
use crate::call::{Admitted, Call};
use crate::caller::Credential;
use crate::fault::Fault;
use crate::port::WaitFor;
use crate::router::Api;
use crate::{limits, users};

/// Opens a session for whoever knows the password. The same is said, after the same work, to a wrong password, an unknown user
/// and a disabled one.
pub(crate) async fn login(call: Call) -> Result<Answer, Fault> {
    let Parsed {
        value: LoginRequest { email, password },
        mut faults,
    } = body::parse(&call.body)?;
    let password = Zeroizing::new(password);
    let email = faults.check("email", Email::parse(&email));
    faults.text("password", &password, limits::PASSWORD_BYTES_MAX);
    faults.refuse()?;
    let email = email.expect(READ);
    let api = &call.api;
    slow_down(&call, &email)?;

    for _ in 0..limits::OVERTAKEN_MAX {
        let user = verified(api, &email, &password).await?;
        match open_session(&call, user).await {
            // The record has changed since the password was verified on it: it may be another one now.
            Err(fault) if fault.code() == Code::VersionMismatch => {}
            done => {
                api.throttle.succeeded(email.as_str(), call.peer);
                return done;
            }
        }
    }
    Err(wrong())
}

/// Sets the first password of the first administrator, once, and opens a session. Whoever knows the secret of `init` may.
pub(crate) async fn setup(call: Call) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<SetupRequest>(&call.body)?;
    let (secret, password) = (Zeroizing::new(value.setup_secret), Zeroizing::new(value.password));
    let email = faults.check("email", Email::parse(&value.email));
    users::check_password("password", &password, &mut faults);
    let secret = PlainSetup::parse(secret.trim());
    if secret.is_none() {
        faults.add(
            "setupSecret",
            format!("it is the line in the file that mcpnode init wrote: {SETUP_PREFIX}…"),
        );
    }
    faults.refuse()?;
    let (email, secret) = (email.expect(READ), secret.expect(READ));
    let api = &call.api;
    slow_down(&call, &email)?;
    api.catch_up().await?;
    let hash = secret.hash();
    let lease = api.lease();
    let known = api.read(move |t| tables::load::<SetupSecret>(t, &hash.0)).await?;
    api.vouch(lease)?;
    known.filter(|known| known.hash.same_as(&hash)).ok_or_else(used_up)?;
    let command = Command::UseSetup {
        hash,
        user: email.clone(),
        password_hash: api.hasher.hash(password, api.random()).await?,
    };
    let id = api.random_command_id();
    let written = api
        .propose(id, Actor::System, command, (WaitFor::Committed, limits::WRITE_WAIT))
        .await;
    let written = written.map_err(|fault| match fault.code() {
        Code::NotAuthenticated => used_up(),
        _ => fault,
    })?;
    api.throttle.succeeded(email.as_str(), call.peer);
    tracing::info!(user = %email, index = written.index, "first password set: the setup secret is dead");
    api.reach(written.index, limits::INDEX_WAIT).await?;
    let name = email.to_string();
    let user = api.read(move |t| users::find(t, &name)).await?;
    open_session(&call, user.ok_or_else(used_up)?).await
}

fn used_up() -> Fault {
    Fault::new(
        Code::BadCredentials,
        "the setup secret is not that of this user in this cluster, or it was used already",
    )
    .hint("if it was used: mcpctl login --email EMAIL, with the password that was set then")
}

/// Opens a session on the record on which the password was verified: a new password closes sessions, and a login that was
/// under way must not open one behind its back.
async fn open_session(call: &Call, user: User) -> Result<Answer, Fault> {
    let api = &call.api;
    let session = PlainSession::from_bytes(&Zeroizing::new(api.random()));
    let expires_ms = api.clock.wall_ms() + limits::SESSION_MS;
    let command = Command::LogIn {
        hash: session.hash(),
        user: user.id,
        expires_ms,
        seen_version: user.origin.version,
    };
    let id = api.random_command_id();
    let written = api
        .propose(id, Actor::System, command, (WaitFor::Committed, limits::WRITE_WAIT))
        .await?;
    tracing::info!(user = %user.email, index = written.index, "session opened");
    let answer = LoginAnswer {
        token: session.expose().to_owned(),
        expires_at: show_time(expires_ms),
        user: user_ref(&Principal::User(user)),
    };
    Ok(Answer::ok(&answer).index(written.index))
}

/// The user of this e-mail, if this is their password. A user who was made a moment ago through another node is known here
/// too, and one who was disabled is refused.
async fn verified(api: &Api, email: &Email, password: &Zeroizing<String>) -> Result<User, Fault> {
    api.catch_up().await?;
    let name = email.to_string();
    let lease = api.lease();
    let user = api.read(move |t| users::find(t, &name)).await?;
    let hash = user.as_ref().and_then(|u| u.password_hash.clone());
    let right = api.hasher.verify(password.clone(), hash).await?;
    api.vouch(lease)?;
    user.filter(|u| right && !u.disabled).ok_or_else(wrong)
}

/// Replaces the caller's password. Guessing the old one is slowed down like guessing at a login: a borrowed session must not
/// be a way around that.
pub(crate) async fn change_password(it: Admitted) -> Result<Answer, Fault> {
    let (Principal::User(user), Credential::Session(session)) = (&it.caller.principal, &it.caller.credential) else {
        return Err(Fault::new(
            Code::Forbidden,
            "only a user in a session has a password to change",
        ));
    };
    let Parsed { value, mut faults } = body::parse::<PasswordChange>(&it.call.body)?;
    let (old, new) = (Zeroizing::new(value.old_password), Zeroizing::new(value.new_password));
    faults.text("oldPassword", &old, limits::PASSWORD_BYTES_MAX);
    users::check_password("newPassword", &new, &mut faults);
    faults.refuse()?;
    let api = &it.call.api;
    let seen = if it.is_repeated().await? {
        // The old one is no longer right, and was verified before.
        user.clone()
    } else {
        slow_down(&it.call, &user.email)?;
        let seen = verified(api, &user.email, &old)
            .await
            .map_err(|fault| match fault.code() {
                Code::BadCredentials => Fault::new(Code::BadCredentials, "the old password is wrong"),
                _ => fault,
            })?;
        api.throttle.succeeded(user.email.as_str(), it.call.peer);
        seen
    };
    let command = Command::ChangePassword {
        password_hash: api.hasher.hash(new, api.random()).await?,
        seen_version: seen.origin.version,
        keep: session.hash,
    };
    let written = it.propose(command).await?;
    tracing::info!(user = %user.email, index = written.index, "password changed");
    users::changed(&it, written, StatusCode::OK).await
}

fn slow_down(call: &Call, email: &Email) -> Result<(), Fault> {
    let now_ms = call.api.clock.reading().boot_ns / 1_000_000;
    call.api
        .throttle
        .attempt(email.as_str(), call.peer, now_ms)
        .map_err(|wait_ms| {
            let seconds = wait_ms.div_ceil(1_000);
            Fault::new(Code::TooManyRequests, "too many failed logins")
                .retry_after_s(seconds)
                .hint(format!("try again in {seconds} s"))
        })
}

fn wrong() -> Fault {
    Fault::new(
        Code::BadCredentials,
        "the e-mail or the password is wrong, or the user is disabled",
    )
}

/// Ends the session that the caller came with.
pub(crate) async fn logout(it: Admitted) -> Result<Answer, Fault> {
    let hash = match &it.caller.credential {
        Credential::Session(session) => session.hash,
        Credential::Token { .. } => {
            return Err(Fault::new(Code::Forbidden, "a token has no session to end")
                .hint("revoke it instead: mcpctl revoke mcptoken NAME -p PROJECT"));
        }
    };
    let written = it.propose(Command::CloseSession { hash }).await?;
    let object = Removed {
        kind: "session".to_owned(),
        name: it.caller.principal.who(),
        id: String::new(),
        already: false,
    };
    it.answer(&written, StatusCode::OK, object).await
}

pub(crate) async fn whoami(it: Admitted) -> Result<Answer, Fault> {
    let caller = &it.caller;
    let (kind, token, project, expires_ms) = match &caller.credential {
        Credential::Session(session) => {
            let kind = match caller.principal {
                Principal::User(_) => "user",
                Principal::ServiceAccount(_) => "serviceaccount",
            };
            (kind, None, None, Some(session.expires_ms))
        }
        Credential::Token { token, project } => (
            "mcptoken",
            Some(token.name.to_string()),
            Some(project.clone()),
            token.expires_ms,
        ),
    };
    Ok(Answer::ok(&WhoAmI {
        kind: kind.to_owned(),
        user: user_ref(&caller.principal),
        token,
        project,
        expires_at: expires_ms.map(show_time),
        role_bindings: caller.rights.bindings().iter().map(RoleBindingBody::from).collect(),
    }))
}

fn user_ref(principal: &Principal) -> UserRef {
    let name = match principal {
        Principal::User(user) => &user.name,
        Principal::ServiceAccount(account) => &account.description,
    };
    UserRef {
        id: principal.id().to_string(),
        email: principal.who(),
        name: name.clone(),
    }
}

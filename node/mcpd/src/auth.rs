//! Logging in and out, and who one is.

use http::StatusCode;
use mcp_api::auth::{LoginAnswer, LoginRequest, SetupRequest, UserRef, WhoAmI};
use mcp_api::problem::Code;
use mcp_api::rbac::RoleBindingBody;
use mcp_api::show_time;
use mcp_api::write::Removed;
use mcp_model::command::{Actor, Command};
use mcp_model::names::Email;
use mcp_model::records::{SetupSecret, User};
use mcp_model::tables;
use mcp_model::token::{PlainSession, PlainSetup, SETUP_PREFIX};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Parsed, READ};
use crate::call::{Admitted, Call};
use crate::caller::{CallerUser, Credential};
use crate::fault::Fault;
use crate::port::WaitFor;
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

    // A user who was made a moment ago through another node is known here too, and one who was disabled is refused.
    api.catch_up().await?;
    let name = email.to_string();
    let user = api.read(move |t| users::find(t, &name)).await?;
    let hash = user.as_ref().and_then(|u| u.password_hash.clone());
    let right = api.hasher.verify(password, hash).await?;
    api.vouch()?;
    let user = user.filter(|u| right && !u.disabled).ok_or_else(wrong)?;
    api.throttle.succeeded(email.as_str(), call.peer);

    open_session(&call, user).await
}

/// Sets the first password of the first administrator, once, and opens a session. Whoever knows the secret of `init` may.
pub(crate) async fn setup(call: Call) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<SetupRequest>(&call.body)?;
    let (secret, password) = (Zeroizing::new(value.setup_secret), Zeroizing::new(value.password));
    let email = faults.check("email", Email::parse(&value.email));
    users::check_new_password(&mut faults, &password);
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
    let known = api.read(move |t| tables::load::<SetupSecret>(t, &hash.0)).await?;
    api.vouch()?;
    known.filter(|known| known.hash.same_as(&hash)).ok_or_else(used_up)?;
    let command = Command::UseSetup {
        hash,
        user: email.clone(),
        password_hash: api.hasher.hash(password, api.random()).await?,
    };
    let id = api.random_command_id();
    let written = api.propose(id, Actor::System, command, WaitFor::Committed).await;
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

async fn open_session(call: &Call, user: User) -> Result<Answer, Fault> {
    let api = &call.api;
    let session = PlainSession::from_bytes(&Zeroizing::new(api.random()));
    let expires_ms = api.clock.wall_ms() + limits::SESSION_MS;
    let command = Command::OpenSession {
        hash: session.hash(),
        user: user.id,
        expires_ms,
    };
    let id = api.random_command_id();
    let written = api.propose(id, Actor::System, command, WaitFor::Committed).await?;
    tracing::info!(user = %user.email, index = written.index, "session opened");
    let answer = LoginAnswer {
        token: session.expose().to_owned(),
        expires_at: show_time(expires_ms),
        user: UserRef {
            id: user.id.to_string(),
            email: user.email.to_string(),
            name: user.name,
        },
    };
    Ok(Answer::ok(&answer).index(written.index))
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
        name: it.caller.user.email.to_string(),
        id: String::new(),
        already: false,
    };
    it.answer(&written, StatusCode::OK, object).await
}

pub(crate) async fn whoami(it: Admitted) -> Result<Answer, Fault> {
    let caller = &it.caller;
    let (kind, token, project, expires_ms) = match &caller.credential {
        Credential::Session(session) => ("user", None, None, Some(session.expires_ms)),
        Credential::Token { token, project } => (
            "mcptoken",
            Some(token.name.to_string()),
            Some(project.clone()),
            token.expires_ms,
        ),
    };
    Ok(Answer::ok(&WhoAmI {
        kind: kind.to_owned(),
        user: user_ref(&caller.user),
        token,
        project,
        expires_at: expires_ms.map(show_time),
        role_bindings: caller.rights.bindings().iter().map(RoleBindingBody::from).collect(),
    }))
}

fn user_ref(user: &CallerUser) -> UserRef {
    UserRef {
        id: user.id.to_string(),
        email: user.email.to_string(),
        name: user.name.clone(),
    }
}

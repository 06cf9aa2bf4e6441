//! `mcpctl login`, `logout`, `whoami`, `auth can-i`.

use std::path::Path;

use mcp_api::auth::{CanI, LoginAnswer, LoginRequest, SetupRequest, WhoAmI};
use mcp_api::users::{PasswordChange, PasswordReset};
use mcp_api::write::{Removed, Written};
use reqwest::Method;
use zeroize::Zeroizing;

use crate::api::{Answer, Api, encoded};
use crate::args::{CanIArgs, Format, Global, LoginArgs, LogoutArgs, OutputArg, PasswdArgs};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::show::{self, ago};
use crate::{clock, out, password};

/// Actions, which stand where a verb would.
const ACTIONS: [&str; 5] = ["logs", "backup", "restore", "cluster", "exec"];

pub(crate) async fn login(global: &Global, args: &LoginArgs) -> Result<Exit, Failure> {
    let mut settings = Settings::of(global, &args.server)?;
    settings.session = None;
    warn_about_plain_http(&settings);
    let email = match &args.email {
        Some(email) => email.clone(),
        None => password::ask_line("E-mail: ")?,
    };
    let api = Api::with(&settings)?;
    let answer = match &args.setup_secret_file {
        None => open_session(&api, &email, args.password_stdin).await?,
        Some(file) => set_up(&api, &email, file, args.password_stdin).await?,
    };

    let mut config = Config::load()?;
    let context = config.context_mut(&settings.context);
    context.servers.clone_from(&settings.servers);
    context.user = Some(answer.user.email.clone());
    context.session = Some(answer.token.clone());
    context.session_expires_at = Some(answer.expires_at.clone());
    if let Some(file) = &settings.cacert {
        // The next command may be run elsewhere.
        context.cacert = Some(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    }
    config.current_context.get_or_insert_with(|| settings.context.clone());
    config.save()?;
    let ends = ago(&answer.expires_at, clock::wall_ms());
    eprintln!(
        "logged in as {} in context {:?}; the session ends {ends}",
        answer.user.email, settings.context
    );
    if std::env::var_os("MCPCTL_SESSION").is_some_and(|s| !s.is_empty()) {
        eprintln!("note: MCPCTL_SESSION is set and goes before this session; unset it to use the new one");
    }
    Ok(Exit::Done)
}

async fn open_session(api: &Api, email: &str, from_stdin: bool) -> Result<LoginAnswer, Failure> {
    let password = match from_stdin {
        true => password::from_stdin()?,
        false => password::ask(
            &format!("Password of {email}: "),
            &piped(&format!("login --email {email}")),
        )?,
    };
    let request = LoginRequest {
        email: email.to_owned(),
        password: password.to_string(),
    };
    let what = format!("log in as {email}");
    let answer = api
        .post::<LoginAnswer>(&what, Method::POST, "auth/login", &request)
        .await?;
    Ok(answer.map_err(|problem| Failure::of_problem(&what, &problem))?.body)
}

/// Sets the first password. The secret is dead afterwards.
async fn set_up(api: &Api, email: &str, file: &Path, from_stdin: bool) -> Result<LoginAnswer, Failure> {
    let secret = password::from_file(file)?;
    let password = match from_stdin {
        true => password::from_stdin()?,
        false => password::ask_new(
            email,
            &piped(&format!("login --email {email} --setup-secret-file FILE")),
        )?,
    };
    let request = SetupRequest {
        email: email.to_owned(),
        setup_secret: secret.to_string(),
        password: password.to_string(),
    };
    let what = format!("set the first password of {email}");
    let answer = api
        .post::<LoginAnswer>(&what, Method::POST, "auth/setup", &request)
        .await?;
    let answer = answer.map_err(|problem| Failure::of_problem(&what, &problem))?.body;
    eprintln!(
        "the password is set, and the setup secret is dead: {} can go",
        file.display()
    );
    Ok(answer)
}

fn warn_about_plain_http(settings: &Settings) {
    let open = |url: &&String| {
        url.starts_with("http://") && !["localhost", "127.", "[::1]"].iter().any(|l| url[7..].starts_with(l))
    };
    if let Some(url) = settings.servers.iter().find(open) {
        eprintln!("warning: {url} is not encrypted: the password can be read on the way");
    }
}

pub(crate) async fn logout(global: &Global, args: &LogoutArgs) -> Result<Exit, Failure> {
    let settings = Settings::of(global, &[])?;
    let api = Api::with(&settings)?.waiting(&args.waiting);
    let what = "log out";
    let ended = api
        .try_write::<Written<Removed>>(what, Method::POST, "auth/logout", &serde_json::json!({}))
        .await?;
    match ended {
        // A session that is over already needs no end.
        Err(problem) if problem.status != 401 => return Err(Failure::of_problem(what, &problem)),
        Err(_) | Ok(_) => {}
    }
    if std::env::var_os("MCPCTL_SESSION").is_none() {
        let mut config = Config::load()?;
        let context = config.context_mut(&settings.context);
        (context.session, context.session_expires_at) = (None, None);
        config.save()?;
    }
    if let Ok(Answer { status: 202, .. }) = ended {
        let why = "not every replica has confirmed that it refuses the session";
        return Err(Failure::new("logged out, but not yet effective everywhere", why)
            .next("mcpctl get nodes")
            .with_exit(Exit::Uncertain));
    }
    match api.waits() {
        true => eprintln!("logged out"),
        false => eprintln!("logged out: committed, and not waited for"),
    }
    Ok(Exit::Done)
}

pub(crate) async fn whoami(global: &Global, args: &OutputArg) -> Result<Exit, Failure> {
    let who: WhoAmI = Api::of(global)?.get("find out who you are", "auth/whoami").await?;
    match args.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output, &who)?,
        Format::Name => out::line(&format!("user/{}", who.user.email)),
        Format::Table | Format::Wide => {
            let bindings: Vec<String> = who.role_bindings.iter().map(ToString::to_string).collect();
            let ends = show::ago_or(who.expires_at.as_ref(), clock::wall_ms(), "never");
            let mut pairs = vec![("User", who.user.email.clone()), ("Name", who.user.name.clone())];
            if let (Some(token), Some(project)) = (&who.token, &who.project) {
                pairs.push(("Token", format!("{project}/{token}")));
            }
            pairs.extend([("Ends", ends), ("Bindings", bindings.join("\n"))]);
            show::pairs(&pairs);
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn can_i(global: &Global, args: &CanIArgs) -> Result<Exit, Failure> {
    if args.list {
        return granted(global).await;
    }
    let verb = args.verb.as_deref().unwrap_or_default();
    // RESOURCE/NAME; names of tools and tokens have a slash of their own.
    let (resource, name) = match args.resource.as_deref().map(|r| r.split_once('/').unwrap_or((r, ""))) {
        Some((resource, "")) => (Some(resource), args.name.clone()),
        Some((resource, name)) if args.name.is_none() => (Some(resource), Some(name.to_owned())),
        Some(_) => {
            let why = "the name is given twice: as RESOURCE/NAME and beside it";
            return Err(Failure::usage("cannot ask", why).next(format!("mcpctl auth can-i {verb} servers/git")));
        }
        None => (None, None),
    };
    let mut query = match resource {
        Some(resource) => format!("verb={}&resource={}", encoded(verb), encoded(resource)),
        None if ACTIONS.contains(&verb) => format!("action={verb}"),
        None => {
            return Err(Failure::usage("cannot ask", format!("{verb:?} of what?"))
                .next(format!("mcpctl auth can-i {verb} servers")));
        }
    };
    if let Some(name) = &name {
        query.push_str(&format!("&name={}", encoded(name)));
    }
    let answer: CanI = Api::of(global)?.get("ask", &format!("auth/can-i?{query}")).await?;
    out::line(if answer.allowed { "yes" } else { "no" });
    if answer.allowed {
        return Ok(Exit::Done);
    }
    eprintln!("it takes {}", answer.need);
    Ok(Exit::Error)
}

/// Everything that one was granted, a line each.
async fn granted(global: &Global) -> Result<Exit, Failure> {
    let who: WhoAmI = Api::of(global)?.get("list what you may do", "auth/whoami").await?;
    for binding in &who.role_bindings {
        out::line(&binding.to_string());
    }
    match (who.role_bindings.is_empty(), who.kind.as_str()) {
        (true, _) => eprintln!("{} was granted nothing", who.user.email),
        (false, "mcptoken") => eprintln!("limited by what {} holds now", who.user.email),
        (false, _) => {}
    }
    Ok(Exit::Done)
}

/// One's own password, or somebody else's.
pub(crate) async fn passwd(global: &Global, args: &PasswdArgs) -> Result<Exit, Failure> {
    let api = Api::of(global)?.waiting(&args.waiting);
    let what = match &args.email {
        Some(email) => format!("set the password of {email}"),
        None => "change the password".to_owned(),
    };
    api.logged_in(&what)?;
    let (path, body) = match (&args.email, args.password_stdin) {
        (Some(email), true) => reset(email, password::from_stdin()?.to_string()),
        (Some(email), false) => reset(
            email,
            password::ask_new(email, &piped(&format!("passwd {email}")))?.to_string(),
        ),
        (None, true) => own(password::two_from_stdin()?),
        (None, false) => {
            let otherwise = "printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | mcpctl passwd --password-stdin";
            let old = password::ask("Present password: ", otherwise)?;
            own((old, password::ask_new("your own", otherwise)?))
        }
    };
    let answer: Answer<serde_json::Value> = api.write(&what, Method::POST, &path, &body).await?;
    if answer.status == 202 {
        let why = "not every replica has confirmed that it refuses the sessions from before";
        return Err(
            Failure::new("the password is set, but not yet effective everywhere", why)
                .next("mcpctl get nodes")
                .with_exit(Exit::Uncertain),
        );
    }
    match api.waits() {
        true => eprintln!("the password is set; sessions from before are over"),
        false => eprintln!(
            "the password is set: committed, and not waited for; sessions from before may be let in for up to a lease more"
        ),
    }
    Ok(Exit::Done)
}

/// A command that takes the password from a pipe.
fn piped(command: &str) -> String {
    format!("printf %s \"$PASSWORD\" | mcpctl {command} --password-stdin")
}

fn reset(email: &str, password: String) -> (String, serde_json::Value) {
    let body = PasswordReset { password };
    (format!("users/{}/password", encoded(email)), serde_json::json!(body))
}

fn own((old, new): (Zeroizing<String>, Zeroizing<String>)) -> (String, serde_json::Value) {
    let body = PasswordChange {
        old_password: old.to_string(),
        new_password: new.to_string(),
    };
    ("auth/password".to_owned(), serde_json::json!(body))
}

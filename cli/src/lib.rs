//! `mcpctl`: the command line of the gateway. It talks to any node and knows no cluster behind it.
//!
//! In the order in which a command runs: [`args`] reads it, [`settings`] says which nodes it is for and on whose behalf,
//! [`api`] talks to them, one module per verb does the work, [`show`] prints what came, [`failure`] says what did not.
//! [`manifest`] reads files that say what there should be; [`complete`] answers shells.

mod all;
mod api;
mod apply;
mod args;
mod auth;
mod backup;
mod clock;
mod cluster;
mod complete;
mod config;
mod connect;
mod contexts;
mod create;
#[doc(hidden)]
pub mod decoders;
mod describe;
mod diff;
mod edit;
mod explain;
mod failure;
mod get;
mod join_tokens;
mod jsonpath;
mod kinds;
mod logs;
mod manifest;
mod mcp;
mod out;
mod password;
mod receipts;
mod remove;
mod rotate;
mod settings;
mod show;
mod test_mcp;
mod tools;
mod version;
mod wait;

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::args::{Auth, Cli, Command, Mcp, Test};
use crate::failure::{Exit, Failure};

/// The program.
pub fn main() -> ExitCode {
    complete::answer();
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(Box::pin(run(cli)));
            // A read of standard input that nobody waits for any more ends with the program.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::new("cannot start", error.to_string()).next("ulimit -a")),
    };
    let exit = done.unwrap_or_else(|failure| {
        failure.print();
        failure.exit()
    });
    ExitCode::from(exit.code())
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Login(args) => auth::login(global, args).await,
        Command::Logout(args) => auth::logout(global, args).await,
        Command::Passwd(args) => auth::passwd(global, args).await,
        Command::Whoami(args) => auth::whoami(global, args).await,
        Command::Auth(Auth::CanI(args)) => auth::can_i(global, args).await,
        Command::Get(args) => get::get(global, args).await,
        Command::Describe(args) => describe::describe(global, args).await,
        Command::Create(what) => create::create(global, what).await,
        Command::Apply(args) => apply::documents(global, args).await,
        Command::Diff(args) => diff::diff(global, args).await,
        Command::Edit(args) => edit::edit(global, args).await,
        Command::Logs(args) => logs::logs(global, args).await,
        Command::Wait(args) => wait::wait(global, args).await,
        Command::Delete(args) => remove::delete(global, args).await,
        Command::Revoke(args) => remove::revoke(global, args).await,
        Command::Rotate(args) => rotate::rotate(global, args).await,
        Command::Approve(args) => tools::approve(global, args).await,
        Command::Explain(args) => explain::explain(args),
        Command::ApiResources(args) => explain::api_resources(args),
        Command::Mcp(Mcp::Stdio(args)) => mcp::stdio::stdio(global, args).await,
        Command::Connect(args) => connect::connect(global, args).await,
        Command::Call(args) => mcp::call::call(global, args).await,
        Command::Test(Test::Mcp(args)) => test_mcp::test_mcp(global, args).await,
        Command::Cluster(what) => cluster::cluster(global, what).await,
        Command::Backup(what) => backup::backup(global, what).await,
        Command::Config(what) => contexts::config(global, what),
        Command::Completion(args) => complete::script(&args.shell),
        Command::Version(args) => version::version(global, args).await,
    }
}

/// Usage errors leave with 2, and with 64 from `test`, where 2 says that the server broke the contract.
fn usage(error: &clap::Error) -> ExitCode {
    let mut root = Cli::command();
    let (path, meant) = meant(&mut root, std::env::args().skip(1));
    match error.kind() {
        _ if !error.use_stderr() => {
            let shown = error.print();
            drop(shown);
            return ExitCode::SUCCESS;
        }
        // The program alone, or a group of commands alone, asks what there is: an answer, as from kubectl.
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            out::bytes(meant.render_help().to_string().as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let exit = if path.starts_with("mcpctl test") {
        Exit::TestUsage
    } else {
        Exit::Usage
    };
    let failure = Failure::usage("cannot read the command line", sentence(&error.render().to_string()));
    failure.next(format!("{path} --help")).print();
    ExitCode::from(exit.code())
}

/// What clap says in several lines, in one: without the usage, which the next step shows, and with its tips in brackets.
fn sentence(rendered: &str) -> String {
    let said = rendered.split("\n\nUsage:").next().unwrap_or_default().trim();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let (mut why, mut tips) = (Vec::new(), Vec::new());
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("tip: ") {
            Some(tip) => tips.push(tip),
            None if line.starts_with("For more information") => {}
            None => why.push(line),
        }
    }
    match tips.as_slice() {
        [] => why.join(" "),
        tips => format!("{} ({})", why.join(" "), tips.join("; ")),
    }
}

/// The command of this run, without what follows it.
pub(crate) fn command() -> String {
    meant(&mut Cli::command(), std::env::args().skip(1)).0
}

/// The command that was meant: as many words of the line as are names of commands.
fn meant(root: &mut clap::Command, words: impl Iterator<Item = String>) -> (String, &mut clap::Command) {
    root.build();
    let (mut at, mut path) = (root, "mcpctl".to_owned());
    for word in words.filter(|word| !word.starts_with('-')) {
        if at.find_subcommand(&word).is_none() {
            continue;
        }
        at = at.find_subcommand_mut(&word).expect("it was found a moment ago");
        path = format!("{path} {}", at.get_name());
    }
    (path, at)
}

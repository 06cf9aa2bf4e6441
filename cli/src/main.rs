//! `mcpctl`: the command line of the gateway. It talks to any node and knows no cluster behind it.
//!
//! In the order in which a command runs: [`args`] reads it, [`settings`] says which nodes it is for and on whose behalf,
//! [`api`] talks to them, one module per verb does the work, [`show`] prints what came, [`failure`] says what did not.

mod api;
mod args;
mod auth;
mod clock;
mod cluster;
mod config;
mod contexts;
mod create;
mod describe;
mod failure;
mod get;
mod kinds;
mod out;
mod password;
mod receipts;
mod remove;
mod settings;
mod show;
mod test_mcp;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Auth, Cli, Command, Test};
use crate::failure::{Exit, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(run(cli))),
        Err(error) => Err(Failure::new("cannot start", error.to_string())),
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
        Command::Logout => auth::logout(global).await,
        Command::Whoami(args) => auth::whoami(global, args).await,
        Command::Auth(Auth::CanI(args)) => auth::can_i(global, args).await,
        Command::Get(args) => get::get(global, args).await,
        Command::Describe(args) => describe::describe(global, args).await,
        Command::Create(what) => create::create(global, what).await,
        Command::Delete(args) => remove::delete(global, args).await,
        Command::Revoke(args) => remove::revoke(global, args).await,
        Command::Test(Test::Mcp(args)) => test_mcp::test_mcp(global, args).await,
        Command::Cluster(what) => cluster::cluster(global, what).await,
        Command::Config(what) => contexts::config(global, what),
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "mcpctl", &mut script);
            out::bytes(&script);
            Ok(Exit::Done)
        }
        Command::Version(args) => version::version(global, args).await,
    }
}

/// Usage errors leave with 2, and with 64 from `test mcp`, where 2 says that the server broke the contract.
fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    drop(shown);
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let mut words = std::env::args_os()
        .skip(1)
        .filter(|word| !word.to_string_lossy().starts_with('-'));
    let tests = words.next().is_some_and(|word| word == "test") && words.next().is_some_and(|word| word == "mcp");
    ExitCode::from(if tests {
        Exit::TestUsage.code()
    } else {
        Exit::Usage.code()
    })
}

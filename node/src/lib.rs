//! `mcpnode`: gateway, replica and control plane of an MCP gateway cluster, in one program.
//!
//! In the order in which one would tell it: `args` and `config` say what an operator wants; `init` makes the first node of a
//! cluster and `founding` begins it, `join` makes another, `home` is the directory of either; `identity` and `certs` are who a
//! node is, `certificates` and `tls` how it goes on showing it; `serve` starts everything and stops it again; `ports` connect what must not know each other; `upkeep` is what a
//! cluster does for itself; `ready` and `metrics` say how it is; `listen` accepts clients, as
//! many as there are `places` within the `limits` of the process, some of them through `proxies`; what they send is `guarded`, and its
//! `framing` looked at, before hyper reads it, their tasks are kept where they are by `calm`, and `linger` waits for the last answer; `dev` runs a whole cluster; `demo`
//! and `child` are what stands behind the gateway there; `clock` and `random` are where time and chance come from.

mod args;
mod calm;
mod certificates;
mod certs;
mod child;
mod clock;
mod config;
mod crew;
#[doc(hidden)]
pub mod decoders;
mod demo;
mod dev;
mod founding;
mod framing;
mod guarded;
mod home;
mod identity;
mod init;
mod join;
mod limits;
mod linger;
mod listen;
mod metrics;
mod places;
mod ports;
mod proxies;
mod random;
mod ready;
mod serve;
mod signals;
mod stores;
mod tls;
mod upkeep;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Cli, Command};
use crate::config::Config;

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are threads: a child must be told of the death of the one that started it.
    if let Command::Child { argv, open_files } = &cli.command {
        return child::run(argv, *open_files).unwrap_or_else(|error| complain(&error));
    }
    if !matches!(cli.command, Command::DemoServer) {
        log();
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return complain(&anyhow::anyhow!("another TLS provider is installed"));
    }
    limits::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into()),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => Box::pin(serve_until_stopped(Config::load(&args)?)).await,
        Command::Init(args) => init::run(&args),
        Command::Join(args) => {
            let Some(config) = Box::pin(join::guest::run(&args)).await? else {
                return Ok(());
            };
            Box::pin(serve_until_stopped(config)).await
        }
        Command::Dev(args) => Box::pin(dev::run(args)).await,
        Command::DemoServer => demo::run().await,
        Command::Child { .. } => Ok(()),
    }
}

async fn serve_until_stopped(config: Config) -> anyhow::Result<()> {
    let stop = tokio::sync::watch::Sender::new(false);
    let stopped = stop.subscribe();
    tokio::spawn(async move {
        signals::stop().await;
        stop.send_replace(true);
        // The sender must outlive the node.
        std::future::pending::<()>().await;
    });
    Box::pin(serve::run(config, stopped)).await
}

/// What an operator wants to know. That a peer does not answer openraft says ten times a second; we say it once.
const LOGGED: &str = "info,openraft=error,openraft::replication=off,openraft::core::raft_core=off,rustls=error";

/// `RUST_LOG` chooses (`warn`, or `info,mcp_raft=debug`); otherwise, or when it cannot be read, [`LOGGED`].
fn log() {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, fault) = log_filter(&asked);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Some(error) = fault {
        tracing::warn!(
            RUST_LOG = asked,
            %error,
            "RUST_LOG cannot be read and is ignored: write a level (error, warn, info, debug, trace, off), or MODULE=LEVEL, separated by commas"
        );
    }
}

/// Targets and levels, without the fields and patterns of an `EnvFilter`: those would bring an engine for regular expressions.
fn log_filter(asked: &str) -> (Targets, Option<String>) {
    let usual = || {
        LOGGED
            .parse()
            .unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
    };
    match asked.parse::<Targets>() {
        _ if asked.trim().is_empty() => (usual(), None),
        Ok(filter) => (filter, None),
        Err(error) => (usual(), Some(error.to_string())),
    }
}

/// Says what failed and why; the innermost cause says what to do.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("mcpnode: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_logged_is_chosen_by_target_and_level_and_a_fault_changes_nothing() {
        let (usual, fault) = log_filter(" ");
        assert!(fault.is_none());
        assert!(usual.would_enable("mcp_raft", &Level::INFO) && !usual.would_enable("mcp_raft", &Level::DEBUG));
        assert!(
            !usual.would_enable("openraft::replication", &Level::ERROR)
                && !usual.would_enable("openraft", &Level::WARN)
        );
        let (chosen, fault) = log_filter("warn,mcp_raft=debug");
        assert!(fault.is_none());
        assert!(chosen.would_enable("mcp_raft::renew", &Level::DEBUG) && !chosen.would_enable("mcpd", &Level::INFO));
        let (kept, fault) = log_filter("mcp_raft=loud");
        assert!(
            fault.is_some() && kept.would_enable("mcpd", &Level::INFO) && !kept.would_enable("mcpd", &Level::DEBUG)
        );
    }
}

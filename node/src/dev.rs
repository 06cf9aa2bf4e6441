//! `mcpnode dev`: a whole cluster on this machine, real in everything but its addresses, with something to try it on.
//!
//! Real replicas, real sockets, TLS among peers, files on disk. Loopback only, plain HTTP towards clients, and an
//! administrator whose password lies in the data directory: for trying out and for developing.

mod api;
mod layout;
mod show;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::api::Api;
use self::layout::{Layout, Replica};
use crate::args::DevArgs;
use crate::config::Config;
use crate::identity::write_private;
use crate::{serve, signals};

/// How long the replicas may take to hold their leases.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long the demo server may take to be listed everywhere. Nothing depends on it but the first impression.
const LISTED_WAIT: Duration = Duration::from_secs(15);
/// How long a replica may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What a person needs to use the cluster.
pub(crate) struct Handed {
    pub(crate) api_urls: Vec<String>,
    pub(crate) mcp_urls: Vec<String>,
    pub(crate) session: String,
    pub(crate) token: String,
    pub(crate) pids: Vec<u32>,
}

/// Runs the cluster until it is told to stop.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let temporary = args
        .data_dir
        .is_none()
        .then(|| tempfile::Builder::new().prefix("mcpnode-dev-").tempdir());
    let temporary = temporary.transpose().context("no temporary directory can be made")?;
    let dir = match (&args.data_dir, &temporary) {
        (Some(dir), _) => std::path::absolute(dir)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("no data directory"),
    };
    // A file left over from the last run must not say that this one is ready.
    if let Some(file) = &args.ready_file {
        remove_if_there(file)?;
    }
    let layout = Layout::open_or_create(&dir, args.replicas)?;
    show::starting(&layout, args.processes);
    let mut running = Running::start(&layout, args.processes)?;
    let pids = running.pids();
    let brought_up = tokio::select! {
        brought_up = bring_up(&args, &layout, pids) => brought_up,
        ended = running.first_end() => ended,
        () = signals::stop() => Ok(()),
    };
    if brought_up.is_ok() {
        running.until_stopped().await;
    }
    if let Some(file) = &args.ready_file {
        remove_if_there(file)?;
    }
    running.stop().await;
    brought_up
}

async fn bring_up(args: &DevArgs, layout: &Layout, pids: Vec<u32>) -> anyhow::Result<()> {
    let api = Api::new();
    tokio::time::timeout(READY_WAIT, all_ready(&api, layout))
        .await
        .map_err(|_| {
            anyhow::anyhow!(
                "not every replica got a lease within {READY_WAIT:?}: see {}",
                layout.dir.display()
            )
        })?;
    let handed = hand_over(&api, layout, pids).await?;
    if tokio::time::timeout(LISTED_WAIT, all_listed(&api, layout, &handed.session))
        .await
        .is_err()
    {
        tracing::warn!("the demo server is not listed on every replica yet");
    }
    if let Some(file) = &args.env_file {
        write_private(file, show::env_file(&handed).as_bytes())?;
    }
    show::ready(layout, &handed, args.processes);
    if let Some(file) = &args.ready_file {
        std::fs::write(file, "ready\n").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

async fn all_ready(api: &Api, layout: &Layout) {
    for replica in &layout.replicas {
        while !api.is_ready(&replica.api_url()).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn all_listed(api: &Api, layout: &Layout, session: &str) {
    for replica in &layout.replicas {
        while !api.demo_is_listed(&replica.api_url(), session).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Logs in and makes what is not there yet: the demo server, the project, the token.
async fn hand_over(api: &Api, layout: &Layout, pids: Vec<u32>) -> anyhow::Result<Handed> {
    let api_urls: Vec<String> = layout.replicas.iter().map(Replica::api_url).collect();
    let session = log_in(api, layout, &api_urls[0]).await?;
    let kept = layout.kept_token()?;
    let token = match kept {
        Some(token) => token,
        None => {
            let token = api.make_demo(&api_urls[0], &session).await?;
            layout.keep_token(&token)?;
            token
        }
    };
    let mcp_urls = layout
        .replicas
        .iter()
        .map(|r| format!("{}/projects/demo/mcp", r.gateway_url()))
        .collect();
    Ok(Handed {
        api_urls,
        mcp_urls,
        session,
        token,
        pids,
    })
}

/// The first time with the setup secret, as an operator would, and from then on with the password that this sets.
async fn log_in(api: &Api, layout: &Layout, base: &str) -> anyhow::Result<String> {
    let password = layout.admin_secret()?;
    if let Some(secret) = layout.setup_secret() {
        let session = api.set_up(base, layout::ADMIN_EMAIL, &secret, &password).await?;
        layout.setup_done()?;
        if let Some(session) = session {
            return Ok(session);
        }
    }
    api.login(base, layout::ADMIN_EMAIL, &password).await
}

/// The replicas, in this process or in their own.
enum Running {
    Tasks {
        tasks: JoinSet<anyhow::Result<()>>,
        stop: watch::Sender<bool>,
        replicas: usize,
    },
    Processes {
        children: Vec<(Replica, Child)>,
    },
}

impl Running {
    fn start(layout: &Layout, processes: bool) -> anyhow::Result<Running> {
        if processes {
            let children = layout.replicas.iter().map(|r| Ok((r.clone(), spawn(r)?)));
            return Ok(Running::Processes {
                children: children.collect::<anyhow::Result<_>>()?,
            });
        }
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for replica in &layout.replicas {
            let config = Config::read(&replica.config_file())?;
            tasks.spawn(serve::run(config, stop.subscribe()));
        }
        Ok(Running::Tasks {
            tasks,
            stop,
            replicas: layout.replicas.len(),
        })
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Running::Tasks { replicas, .. } => vec![std::process::id(); *replicas],
            Running::Processes { children } => children.iter().filter_map(|(_, child)| child.id()).collect(),
        }
    }

    /// Resolves when a replica ends by itself before the cluster is up.
    async fn first_end(&mut self) -> anyhow::Result<()> {
        match self {
            Running::Tasks { tasks, .. } => match tasks.join_next().await {
                Some(Ok(Err(error))) => Err(error),
                _ => bail!("a replica stopped while the cluster was starting"),
            },
            Running::Processes { children } => {
                let ends = children.iter_mut().map(|(replica, child)| {
                    Box::pin(async move { (replica.name(), child.wait().await.map(|s| s.to_string())) })
                });
                let ((name, status), ..) = futures_util::future::select_all(ends).await;
                bail!(
                    "replica {name} ended while the cluster was starting ({}): see its log",
                    status.unwrap_or_default()
                )
            }
        }
    }

    async fn until_stopped(&mut self) {
        match self {
            Running::Tasks { tasks, .. } => tokio::select! {
                () = signals::stop() => {}
                ended = tasks.join_next() => tracing::error!(?ended, "a replica stopped"),
            },
            // That a replica is killed is what they are processes for.
            Running::Processes { .. } => signals::stop().await,
        }
    }

    async fn stop(self) {
        match self {
            Running::Tasks { mut tasks, stop, .. } => {
                stop.send_replace(true);
                let all = async { while tasks.join_next().await.is_some() {} };
                if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
                    tracing::warn!("a replica did not stop in time");
                }
            }
            Running::Processes { mut children } => {
                for (_, child) in &children {
                    terminate(child);
                }
                let all = async {
                    for (_, child) in &mut children {
                        if let Err(error) = child.wait().await {
                            tracing::debug!(%error, "waiting for a replica");
                        }
                    }
                };
                if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
                    tracing::warn!("a replica did not stop in time and is killed");
                }
            }
        }
    }
}

fn spawn(replica: &Replica) -> anyhow::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(replica.log_file())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").arg("--config").arg(replica.config_file());
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    command
        .spawn()
        .with_context(|| format!("replica {} cannot be started", replica.name()))
}

fn terminate(child: &Child) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return;
    };
    let pid = nix::unistd::Pid::from_raw(pid);
    // A paused replica cannot stop; whoever is gone already need not.
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGCONT] {
        nix::sys::signal::kill(pid, signal).unwrap_or(());
    }
}

fn remove_if_there(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", PathBuf::from(file).display()))
        }
        _ => Ok(()),
    }
}

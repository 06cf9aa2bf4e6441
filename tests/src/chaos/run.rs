//! One run: the network, the nodes, clients and writers, faults, and the reading at the end.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::end;
use super::field::Field;
use super::history::{Line, Recorder, Run, Slot, Span};
use super::machine::{Machine, PASSWORD, Place, admin, api_url, ready};
use super::options::Options;
use super::probes::{VOLLEY_WAIT, keep_probing};
use super::world::World;
use super::writers::Writer;
use super::{kills, net, schedule, stalls};
use crate::api::Api;
use crate::clock::now_ns;
use crate::random::Random;

const READY_WAIT: Duration = Duration::from_secs(60);
/// How long the cluster is left alone before the first fault: what is healthy is measured here too.
const QUIET: Duration = Duration::from_secs(10);
/// Tokens that are never revoked.
const LASTING: usize = 3;
const WRITERS: u64 = 10;
const TOGGLERS: u64 = 2;
const WRITE_PAUSE: Duration = Duration::from_millis(400);
const TOGGLE_PAUSE: Duration = Duration::from_millis(300);
/// Clients per node, and their pause between two probes.
const CLIENTS: u64 = 2;
const PROBE_PAUSE: Duration = Duration::from_millis(25);
const UPSTREAM: u16 = 9000;
/// The lease of a node whose configuration says nothing else, ms.
const LEASE_MS: u64 = 2_000;

/// Makes everything, runs it, and writes the history.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let (recorder, writing) = Recorder::create(&options.history)?;
    let ran = all(options, recorder).await;
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the history could not be written"))??;
    ran
}

async fn all(options: &Options, recorder: Recorder) -> anyhow::Result<()> {
    net::refuse_outside()?;
    let slots = options.nodes + 1;
    let place = Place {
        program: options.program.clone(),
        faketime: options.faketime.clone(),
        dir: options.dir.clone(),
    };
    println!(
        "chaos: {} minutes, {} nodes, seed {}",
        options.minutes, options.nodes, options.seed
    );
    net::make(slots).await?;
    let mut machines = Vec::new();
    for slot in 0..slots {
        machines.push(Machine::make(slot, &place).await?);
    }
    let fdatasync_us = fdatasync_us(&place.dir.join(machines[0].name()))?;
    recorder.record(Line::Run(Run {
        seed: options.seed,
        minutes: options.minutes,
        nodes: options.nodes,
        lease_ms: LEASE_MS,
        fdatasync_us,
        only_leader_kills: options.leader_kills.is_some(),
    }));
    let began = now_ns();
    let _upstream = upstream(&recorder).await?;
    let session = cluster(&mut machines, options.nodes).await?;
    let world = Arc::new(World::new(slots, options.nodes, recorder, session));
    let field = Arc::new(Field::new(&world, machines));
    let mut writer = Writer::new(&world, "lasting", 0);
    for n in 0..LASTING {
        let token = writer.mint(&format!("lasting-{n}"), &world.session, None).await;
        world.lasts(token.context("no token was minted")?);
    }
    wait_until_served(&world, options.nodes).await?;
    let mut random = Random::from_seed(options.seed);
    let mut busy = clients(&world, &mut random, options.leader_kills.is_some());
    tokio::time::sleep(QUIET).await;
    let faults = async {
        match options.leader_kills {
            Some(rounds) => kills::run(&world, &field, rounds).await,
            None => field.run(schedule::plan(options.seed, options.minutes * 60_000)).await,
        }
    };
    let ran = faults.await;
    let healed = field.healed().await;
    world.stop();
    while let Some(ended) = busy.join_next().await {
        ended?;
    }
    // The last volleys come to their end.
    tokio::time::sleep(VOLLEY_WAIT).await;
    ran?;
    healed?;
    for slot in world.members() {
        end::read(&world, slot)
            .await
            .with_context(|| format!("place {}", slot + 1))?;
    }
    let end = now_ns();
    world.recorder.record(Line::End(Span { begin: began, end }));
    Ok(())
}

/// The median of a few, on a node's disk that nothing else uses yet.
fn fdatasync_us(disk: &Path) -> anyhow::Result<u64> {
    use std::io::Write;
    const SYNCS: usize = 51;
    let path = disk.join("synced");
    let mut file = std::fs::File::create(&path)?;
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[1; 4_096])?;
        let begin = now_ns();
        file.sync_data()?;
        took.push((now_ns() - begin) / 1_000);
    }
    std::fs::remove_file(path)?;
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

/// Starts the MCP server, and writes down whom it hears of.
async fn upstream(recorder: &Recorder) -> anyhow::Result<Child> {
    let address = format!("{}:{UPSTREAM}", net::HOST);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--upstream", &address]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("it has no output")?;
    let recorder = recorder.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(hit) = serde_json::from_str(&line) {
                recorder.record(Line::Hit(hit));
            }
        }
    });
    Ok(child)
}

/// Founds the cluster, lets the others join one after the other, and tells it about the MCP server. Gives the session.
async fn cluster(machines: &mut [Machine], nodes: Slot) -> anyhow::Result<String> {
    let (first, others) = machines.split_first_mut().context("no nodes")?;
    let secret = first.init().await?;
    first.start()?;
    // It is ready once it has an administrator.
    let body = json!({ "email": admin(), "setupSecret": secret, "password": PASSWORD });
    let opened = until_done("", "auth/setup", &body).await?;
    let session = opened["token"].as_str().context("no session")?.to_owned();
    ready(0, READY_WAIT).await?;
    for (machine, slot) in others.iter_mut().zip(1..nodes) {
        let token = until_done(&session, "cluster/join-tokens", &json!({})).await?;
        machine.join(0, token["token"].as_str().context("no join token")?)?;
        ready(slot, READY_WAIT).await?;
    }
    let url = format!("http://{}:{UPSTREAM}/mcp", net::HOST);
    let server = json!({ "name": "chaos", "transport": "http", "url": url });
    until_done(&session, "servers", &server).await?;
    let project = json!({ "name": "chaos", "servers": ["chaos"], "toolNaming": "plain" });
    until_done(&session, "projects", &project).await?;
    Ok(session)
}

/// Posts to the first node until it succeeds.
async fn until_done(session: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let mut said = anyhow::anyhow!("{path} was never asked");
    let began = now_ns();
    while Duration::from_nanos(now_ns() - began) < READY_WAIT {
        let asked = async { Api::open(&api_url(0), session).await?.must("POST", path, body).await };
        match asked.await {
            Ok(answer) => return Ok(answer),
            Err(error) => said = error,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(said)
}

/// Every member admits, and the MCP server answers through each.
async fn wait_until_served(world: &Arc<World>, nodes: Slot) -> anyhow::Result<()> {
    let mut random = Random::from_seed(0);
    let token = world.token(&mut random).context("no token")?;
    for slot in 0..nodes {
        let mut client = super::probes::Client::new(slot);
        let began = now_ns();
        while !client.probe(world, &token, VOLLEY_WAIT).await.served {
            let passed = Duration::from_nanos(now_ns() - began);
            ensure!(passed < READY_WAIT, "place {} does not serve", slot + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Everybody who works until the run stops.
fn clients(world: &Arc<World>, random: &mut Random, probes_only: bool) -> JoinSet<()> {
    let mut busy = JoinSet::new();
    busy.spawn(stalls::watch(Arc::clone(world)));
    let (clients, pause) = match probes_only {
        true => (CLIENTS * 2, PROBE_PAUSE / 2),
        false => (CLIENTS, PROBE_PAUSE),
    };
    for slot in 0..world.slots {
        for _ in 0..clients {
            busy.spawn(keep_probing(Arc::clone(world), slot, pause, random.number()));
        }
    }
    if probes_only {
        return busy;
    }
    for n in 0..WRITERS {
        let writer = Writer::new(world, &format!("w{n}"), random.number());
        busy.spawn(writer.revoke_all_the_time(WRITE_PAUSE));
    }
    for n in 0..TOGGLERS {
        let writer = Writer::new(world, &format!("u{n}"), random.number());
        busy.spawn(writer.toggle_all_the_time(TOGGLE_PAUSE));
    }
    busy
}

//! The load generator: a fixed number of connections, each sending the same prepared bytes as soon as it has its answer.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::histogram::Histogram;
use crate::api::request;
use crate::clock::now_ns;
use crate::connection::Connection;
use crate::process::cpu_us;

/// Requests of each connection that are not counted: the first ones open connections further on.
const WARM_UP: usize = 20;
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// What stands for the request's id in the body; each connection has its own.
pub(super) const ID: &str = "$ID";

/// What to send, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) address: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) connections: usize,
    pub(super) run_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Answered within the measured time.
    pub(super) latencies: Histogram,
    /// Answered in all, with those that only warmed up.
    pub(super) answered: u64,
    /// The measured time.
    pub(super) wall_ns: u64,
    /// What the generator itself used, over its whole life.
    pub(super) cpu_us: u64,
    /// How long it lived.
    pub(super) life_ns: u64,
}

/// Carries out a job given as JSON, and prints the report as JSON.
pub(super) async fn run(job: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let born = now_ns();
    let local = LocalSet::new();
    let mut report = local.run_until(generate(&job)).await?;
    report.life_ns = now_ns() - born;
    report.cpu_us = cpu_us(std::process::id())?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn generate(job: &Job) -> anyhow::Result<Report> {
    let mut connections = Vec::new();
    for number in 1..=job.connections {
        let body = job.body.replace(ID, &number.to_string());
        let headers: Vec<(&str, &str)> = job
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let bytes = request("POST", &job.address, &job.path, &headers, body.as_bytes());
        connections.push((Connection::open(&job.address).await?, bytes));
    }
    let warm = connections
        .into_iter()
        .map(|(connection, bytes)| tokio::task::spawn_local(warm_up(connection, bytes)));
    let mut ready = Vec::new();
    for connection in warm.collect::<Vec<_>>() {
        ready.push(connection.await??);
    }
    let began = now_ns();
    let until = began + job.run_ms * 1_000_000;
    let running = ready
        .into_iter()
        .map(|(connection, bytes)| tokio::task::spawn_local(drive(connection, bytes, until)));
    let mut report = Report::default();
    for latencies in running.collect::<Vec<_>>() {
        report.latencies.add(&latencies.await??);
    }
    report.wall_ns = now_ns() - began;
    report.answered = report.latencies.count() + (WARM_UP * job.connections) as u64;
    Ok(report)
}

async fn warm_up(mut connection: Connection, bytes: Vec<u8>) -> anyhow::Result<(Connection, Vec<u8>)> {
    for _ in 0..WARM_UP {
        ask(&mut connection, &bytes).await?;
    }
    Ok((connection, bytes))
}

async fn drive(mut connection: Connection, bytes: Vec<u8>, until: u64) -> anyhow::Result<Histogram> {
    let mut latencies = Histogram::default();
    let mut sent = now_ns();
    while sent < until {
        ask(&mut connection, &bytes).await?;
        let answered = now_ns();
        latencies.record(answered - sent);
        sent = answered;
    }
    Ok(latencies)
}

async fn ask(connection: &mut Connection, bytes: &[u8]) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(ANSWER_WAIT, connection.ask(bytes))
        .await
        .context("no answer in time")??;
    if answer.status != 200 || !answer.holds(b"\"result\"") {
        bail!("HTTP {}: {:.300}", answer.status, String::from_utf8_lossy(answer.body));
    }
    Ok(())
}

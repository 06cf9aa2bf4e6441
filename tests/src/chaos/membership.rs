//! Members that come and go.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::faults::{Broken, Done};
use super::field::Field;
use super::history::{Line, Member, Outcome, Slot};
use super::machine::{api_url, name, ready};
use crate::api::Api;
use crate::clock::now_ns;
use crate::random::Random;

/// How long a member may take to be let in or let go.
const MEMBER_WAIT: Duration = Duration::from_secs(60);
const TRY_WAIT: Duration = Duration::from_secs(18);
const STEP: Duration = Duration::from_millis(50);

impl Field {
    pub(super) async fn add(&self, slot: Slot, random: &mut Random) -> anyhow::Result<Done> {
        let begin = now_ns();
        let body = json!({});
        let (other, answer) = self
            .through_anybody("POST", "cluster/join-tokens", &body, slot, random)
            .await?;
        let token = answer["token"].as_str().context("no join token")?;
        let mut machine = self.machine(slot).lock().await;
        let world = &self.world;
        let member = |outcome| {
            let end = now_ns();
            Line::Member(Member {
                slot,
                joins: true,
                begin,
                end,
                outcome,
            })
        };
        machine.join(other, token)?;
        let joined = ready(slot, MEMBER_WAIT).await;
        if joined.is_err() && machine.has_ended().is_some() {
            machine.kill().await?;
            machine.wipe()?;
            // It may have been let in before it gave up.
            let path = format!("cluster/nodes/{}", name(slot));
            let gone = self.through_anybody("DELETE", &path, &Value::Null, slot, random).await;
            let log = machine.log();
            bail!("it ended; let go again: {}: {}", gone.is_ok(), log.display());
        }
        joined.map_err(Broken::of)?;
        world.has_joined(slot);
        world.recorder.record(member(Outcome::Done));
        Ok(Done::now(format!("by way of {}", name(other))))
    }

    pub(super) async fn remove(&self, slot: Slot, random: &mut Random) -> anyhow::Result<Done> {
        let begin = now_ns();
        self.world.has_left(slot);
        let path = format!("cluster/nodes/{}", name(slot));
        let removed = self.through_anybody("DELETE", &path, &Value::Null, slot, random).await;
        let effective = removed
            .as_ref()
            .is_ok_and(|(_, body)| body["receipt"]["effective"] == true);
        let outcome = match (&removed, effective) {
            (_, true) => Outcome::Effective,
            (Ok(_), false) => Outcome::Pending,
            (Err(_), false) => Outcome::Unknown,
        };
        let end = now_ns();
        self.world.recorder.record(Line::Member(Member {
            slot,
            joins: false,
            begin,
            end,
            outcome,
        }));
        let (other, _) = removed.map_err(Broken::of)?;
        let mut machine = self.machine(slot).lock().await;
        let ended = machine.ended().await;
        machine.kill().await?;
        machine.wipe().map_err(Broken::of)?;
        ensure!(
            ended.is_some(),
            "it did not end by itself after its removal: {}",
            machine.log().display()
        );
        Ok(Done::now(format!("by way of {}", name(other))))
    }

    /// A change of the cluster through any other member, repeated until one says that it was made.
    async fn through_anybody(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        but: Slot,
        random: &mut Random,
    ) -> anyhow::Result<(Slot, Value)> {
        let mut said = String::new();
        let began = now_ns();
        while now_ns() - began < u64::try_from(MEMBER_WAIT.as_nanos())? {
            let others: Vec<Slot> = self.world.members().into_iter().filter(|slot| *slot != but).collect();
            let other = others[random.below(others.len())];
            let asked = async {
                Api::open(&api_url(other), &self.world.session)
                    .await?
                    .send(method, path, body)
                    .await
            };
            match tokio::time::timeout(TRY_WAIT, asked).await {
                Ok(Ok((200 | 201, answer))) => return Ok((other, answer)),
                Ok(Ok((404, answer))) if method == "DELETE" && !said.is_empty() => return Ok((other, answer)),
                Ok(Ok((status, answer))) => said = format!("{status}: {answer}"),
                Ok(Err(error)) => said = format!("{error:#}"),
                Err(_) => said = "no answer in time".to_owned(),
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("{method} {path} was not done in time: {said}")
    }
}

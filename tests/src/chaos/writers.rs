//! Writers: tokens are minted and revoked, users disabled and enabled, definitions deleted and written again, through random nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::history::{Line, Op, Outcome, Proofs, Slot, Subject, Write};
use super::machine::{PASSWORD, api_url};
use super::probes::volley;
use super::world::{Made, Token, World};
use crate::api::Api;
use crate::clock::now_ns;
use crate::random::Random;

/// How long one attempt may take: it may hang at a node that is paused.
const TRY_WAIT: Duration = Duration::from_secs(8);
/// The pause after one that failed.
const RETRY: Duration = Duration::from_millis(50);
/// Longest life of a token before it is revoked, ms.
const LIFE_MS: u64 = 400;
/// Attempts at setting something up before it is begun anew.
const TRIES: usize = 20;

/// An answer of the API.
struct Answered {
    outcome: Outcome,
    status: u16,
    body: Value,
    begin: u64,
    end: u64,
}

/// One request through one node, once.
async fn ask(slot: Slot, session: &str, method: &str, path: &str, body: &Value) -> Answered {
    let begin = now_ns();
    let asked = async { Api::open(&api_url(slot), session).await?.send(method, path, body).await };
    let answer = tokio::time::timeout(TRY_WAIT, asked).await;
    let end = now_ns();
    let (status, body) = match answer {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) | Err(_) => (0, Value::Null),
    };
    Answered {
        outcome: outcome(status, &body),
        status,
        body,
        begin,
        end,
    }
}

/// What an answer promises. A refusal counts as one only where the API says that nothing was changed.
fn outcome(status: u16, body: &Value) -> Outcome {
    let unchanged = ["no_leader", "no_lease", "not_proposed"];
    match status {
        202 => Outcome::Pending,
        200..300 if body["receipt"]["effective"] == true => Outcome::Effective,
        200..300 => Outcome::Done,
        400..500 => Outcome::Refused,
        503 if unchanged.iter().any(|code| body["code"] == *code) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

fn proofs(body: &Value) -> Option<Proofs> {
    let mut proofs = Proofs::default();
    for replica in body["receipt"]["replicas"].as_array()? {
        match replica["proof"].as_str() {
            Some("applied") => proofs.applied += 1,
            Some("lease_ran_out") => proofs.ran_out += 1,
            _ => proofs.pending += 1,
        }
    }
    Some(proofs)
}

/// One who writes, and writes down what it was told.
pub(super) struct Writer {
    world: Arc<World>,
    random: Random,
    label: String,
}

impl Writer {
    pub(super) fn new(world: &Arc<World>, label: &str, seed: u64) -> Writer {
        Writer {
            world: Arc::clone(world),
            random: Random::from_seed(seed),
            label: label.to_owned(),
        }
    }

    fn member(&mut self) -> Slot {
        self.world.random_member(&mut self.random)
    }

    async fn write(&mut self, op: Op, subject: Subject, session: &str, request: (&str, &str, &Value)) -> Answered {
        let slot = self.member();
        let (method, path, body) = request;
        let answered = ask(slot, session, method, path, body).await;
        // What takes away promises by its receipt alone.
        let outcome = match answered.outcome {
            Outcome::Done if op.restricts() => Outcome::Pending,
            Outcome::Effective if !op.restricts() => Outcome::Done,
            outcome => outcome,
        };
        self.world.recorder.record(Line::Write(Write {
            subject,
            op,
            slot,
            begin: answered.begin,
            end: answered.end,
            outcome,
            status: answered.status,
            proofs: proofs(&answered.body),
        }));
        Answered { outcome, ..answered }
    }

    /// Mints a token once. `None`: nothing came of it that anybody could use.
    pub(super) async fn mint(&mut self, name: &str, session: &str, of: Option<&User>) -> Option<Token> {
        let subject = self.world.next_subject();
        let bindings = json!([{ "role": "run", "resource": "servers" }]);
        let body = json!({ "name": name, "project": "chaos", "roleBindings": bindings });
        let minted = self
            .write(Op::Mint, subject, session, ("POST", "mcptokens", &body))
            .await;
        let (id, bearer) = (minted.body["id"].as_str(), minted.body["token"].as_str());
        if minted.outcome != Outcome::Done {
            return None;
        }
        let token = Token {
            subject,
            id: id?.to_owned(),
            bearer: bearer?.into(),
        };
        self.world.made(Made {
            subject,
            token: token.id.clone(),
            user: of.map(|user| (user.email.clone(), user.definition())),
        });
        Some(token)
    }

    /// Mints and revokes until the run stops.
    pub(super) async fn revoke_all_the_time(mut self, pause: Duration) {
        for n in 0_u64.. {
            if self.world.is_stopping() {
                return;
            }
            let name = format!("{}-{n}", self.label);
            let session = self.world.session.clone();
            let Some(token) = self.mint(&name, &session, None).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            self.world.minted(token.clone());
            tokio::time::sleep(Duration::from_millis(self.random.number() % LIFE_MS)).await;
            self.world.is_going(&token);
            self.revoke(&token).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks until a receipt says that it is effective, and then tries it everywhere at once.
    async fn revoke(&mut self, token: &Token) {
        let path = format!("mcptokens/{}/revoke", token.id);
        let session = self.world.session.clone();
        while !self.world.is_stopping() {
            let request = ("POST", path.as_str(), &json!({}));
            let revoked = self.write(Op::Revoke, token.subject, &session, request).await;
            if revoked.outcome == Outcome::Effective {
                volley(&self.world, token);
                self.world.revoked(token.clone());
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Disables and enables users, or deletes and writes what grants them their right, until the run stops.
    pub(super) async fn toggle_all_the_time(mut self, pause: Duration) {
        for n in 0_u64.. {
            if self.world.is_stopping() {
                return;
            }
            let user = User::new(&format!("{}-{n}", self.label));
            match self.make(&user).await {
                Ok(token) => self.toggle(&user, &token, pause).await,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// A user with a right, and a token of theirs.
    async fn make(&mut self, user: &User) -> anyhow::Result<Token> {
        let session = self.world.session.clone();
        let body = json!({ "email": user.email, "password": PASSWORD });
        self.must(&session, "POST", "users", &body).await?;
        self.must(&session, "POST", "rbac", &user.base()).await?;
        self.must(&session, "POST", "rbac", &user.right()).await?;
        let body = json!({ "email": user.email, "password": PASSWORD });
        let opened = self.must("", "POST", "auth/login", &body).await?;
        let own = opened["token"].as_str().context("no session")?.to_owned();
        let token = self.mint(&user.name, &own, Some(user)).await.context("no token")?;
        self.world.minted(token.clone());
        Ok(token)
    }

    async fn must(&mut self, session: &str, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        for _ in 0..TRIES {
            let answered = ask(self.member(), session, method, path, body).await;
            match answered.outcome {
                Outcome::Done | Outcome::Effective | Outcome::Pending => return Ok(answered.body),
                Outcome::Refused if answered.status != 503 => break,
                Outcome::Refused | Outcome::Unknown => tokio::time::sleep(RETRY).await,
            }
        }
        anyhow::bail!("{method} {path} did not succeed")
    }

    /// Takes the right away and gives it back, in one of two ways, until an answer is missing: then nobody can say any more
    /// what is in force, and another user is made.
    async fn toggle(&mut self, user: &User, token: &Token, pause: Duration) {
        let session = self.world.session.clone();
        while !self.world.is_stopping() {
            tokio::time::sleep(pause).await;
            let by_user = self.random.below(2) == 0;
            self.world.is_going(token);
            let (off, on) = match by_user {
                true => (Op::DisableUser, Op::EnableUser),
                false => (Op::DeleteRbac, Op::WriteRbac),
            };
            if !self.until_said(off, user, token, &session).await {
                return;
            }
            volley(&self.world, token);
            self.world.revoked(token.clone());
            tokio::time::sleep(pause).await;
            if !self.until_said(on, user, token, &session).await {
                return;
            }
            self.world.minted(token.clone());
        }
    }

    /// Repeats what was refused. False: it was not carried out for certain.
    async fn until_said(&mut self, op: Op, user: &User, token: &Token, session: &str) -> bool {
        let (users, rbac) = (format!("users/{}", user.email), format!("rbac/{}", user.definition()));
        let (right, none) = (user.right(), Value::Null);
        let flag = json!({ "disabled": op == Op::DisableUser });
        let request = match op {
            Op::DisableUser | Op::EnableUser => ("PATCH", users.as_str(), &flag),
            Op::DeleteRbac => ("DELETE", rbac.as_str(), &none),
            Op::WriteRbac | Op::Mint | Op::Revoke => ("POST", "rbac", &right),
        };
        while !self.world.is_stopping() {
            match self.write(op, token.subject, session, request).await.outcome {
                Outcome::Effective | Outcome::Done => return true,
                Outcome::Pending | Outcome::Unknown => return false,
                Outcome::Refused => tokio::time::sleep(RETRY).await,
            }
        }
        false
    }
}

/// A user whose right comes and goes.
pub(super) struct User {
    name: String,
    email: String,
}

impl User {
    fn new(name: &str) -> User {
        User {
            name: name.to_owned(),
            email: format!("{name}@chaos.example"),
        }
    }

    fn definition(&self) -> String {
        format!("{}-right", self.name)
    }

    /// What they need to have a token at all.
    fn base(&self) -> Value {
        let bindings = json!([{ "role": "create", "resource": "mcptokens" }]);
        self.grant(&format!("{}-base", self.name), &bindings)
    }

    /// What comes and goes.
    fn right(&self) -> Value {
        self.grant(&self.definition(), &json!([{ "role": "run", "resource": "servers" }]))
    }

    fn grant(&self, name: &str, bindings: &Value) -> Value {
        let subjects = json!([{ "kind": "User", "name": self.email }]);
        json!({ "name": name, "subjects": subjects, "roleBindings": bindings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_api_vouches_for_counts() {
        let receipt = |effective: bool| json!({ "receipt": { "effective": effective } });
        for (status, body, expected) in [
            (200, receipt(true), Outcome::Effective),
            (200, json!({}), Outcome::Done),
            (202, receipt(false), Outcome::Pending),
            (409, json!({}), Outcome::Refused),
            (503, json!({ "code": "no_leader" }), Outcome::Refused),
            (503, json!({ "code": "index_not_reached" }), Outcome::Unknown),
            (503, Value::Null, Outcome::Unknown),
            (504, json!({}), Outcome::Unknown),
            (0, Value::Null, Outcome::Unknown),
        ] {
            assert_eq!(outcome(status, &body), expected, "{status} {body}");
        }
    }
}

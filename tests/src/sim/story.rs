//! What the clients do: tokens are minted and revoked, owners disabled and enabled, and every token is tried everywhere, most of all when
//! its right has just gone.

use std::rc::Rc;

use mcp_model::apply::{Effects, apply};
use mcp_model::command::{Actor, Command, Envelope, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::Subject;
use mcp_model::receipt::Receipt;
use mcp_model::records::{ProjectSpec, ToolNaming};
use mcp_model::tables::MemTables;
use mcp_model::token::TokenHash;

use super::backup::Backup;
use super::machine::{Answer, Config, Entry, Kind, MS, Machine, Msg, WALL_MS};
use super::upkeep::Due;
use super::world::{CALM, Event, HEALED, LASTS, World};
use crate::random::Random;

/// Revokes of one seed, at least.
pub(crate) const REVOKES: usize = 21;
/// Tokens behind those: that stay, but for some that are revoked when nobody leads; that expire; and a bearer that was never minted.
const STAYING: usize = 12;
const EXPIRING: usize = 6;
const STRANGER: usize = REVOKES + STAYING + EXPIRING;
/// Those that may be revoked when nobody leads.
pub(crate) const SPARE: std::ops::Range<usize> = REVOKES + 4..REVOKES + STAYING;
/// Strangers that come at a time.
const CROWD: usize = 24;
/// The cluster.
pub(crate) const CLUSTER: Id = Id::from_u128(9);
const TOKEN: u128 = 1_000;
/// Owners of tokens, the administrator not counted.
const OWNERS: usize = 2;
const ADMIN: Id = Id::from_u128(1);
/// Clients speak as nobody of the cluster.
const CLIENT: NodeId = NodeId(0);

/// One token.
pub(crate) struct Token {
    pub(crate) hash: TokenHash,
    pub(crate) owner: usize,
    /// When it was acknowledged as minted.
    pub(crate) minted: Option<u64>,
    /// When somebody first asked to mint it.
    pub(crate) mint_asked: Option<u64>,
    /// When somebody first asked to revoke it.
    pub(crate) revoke_asked: Option<u64>,
    /// When its revoke was acknowledged as effective.
    pub(crate) gone: Option<u64>,
    /// When it expires by the cluster's time, ms since 1970.
    pub(crate) expires_ms: Option<u64>,
    /// From when on it must have expired everywhere.
    pub(crate) expired: Option<u64>,
}

/// Whose tokens may be refused because of whom.
#[derive(Default, Clone)]
pub(crate) struct Owner {
    /// The last change of it that was carried out, by its index: whether it disables, and when that was.
    pub(crate) last: (u64, bool),
    pub(crate) changed: u64,
    /// When the disabling was acknowledged as effective, until somebody proposes to take it back.
    pub(crate) gone: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    Mint(usize),
    Revoke(usize),
    Disable(usize),
    Enable(usize),
    Retire(NodeId),
    /// The pieces of the backup are laid down.
    Stage,
    /// It is restored.
    Restore,
}

/// One command, with all its tries.
pub(crate) struct Op {
    pub(crate) envelope: Rc<Envelope>,
    pub(crate) deed: Deed,
    pub(crate) attempt: u64,
    pub(crate) done: bool,
}

/// What clients do at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Beat {
    Probe,
    Save,
    Begin(Deed),
    Try(usize),
    GiveUp(usize, u64),
    Answer(usize, u64, Box<Answer>),
}

pub(crate) struct Story {
    pub(crate) tokens: Vec<Token>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) ops: Vec<Op>,
    /// Tokens that a leader has found expired.
    pub(crate) due: Vec<Due>,
    /// How many have been taken away for that.
    pub(crate) expired: u64,
    /// The latest time of any leader, ms since 1970.
    pub(crate) leaders_ms: u64,
    pub(crate) backup: Backup,
    /// Tokens whose right has gone lately.
    gone_lately: Vec<usize>,
}

impl Story {
    pub(crate) fn new(random: &mut Random) -> Story {
        let tokens = (0..=STRANGER).map(|number| Token {
            hash: TokenHash(std::array::from_fn(|_| random.number().to_le_bytes()[0])),
            owner: match number {
                0..REVOKES => random.below(OWNERS + 1),
                number if number < REVOKES + STAYING => number % (OWNERS + 1),
                _ => 0,
            },
            minted: None,
            mint_asked: None,
            revoke_asked: None,
            gone: None,
            expires_ms: None,
            expired: None,
        });
        Story {
            tokens: tokens.collect(),
            owners: vec![Owner::default(); OWNERS + 1],
            ops: Vec::new(),
            due: Vec::new(),
            expired: 0,
            leaders_ms: 0,
            backup: Backup::default(),
            gone_lately: Vec::new(),
        }
    }

    /// Whether a token that was tried at `began` must be known by whoever may say anything.
    pub(crate) fn lives(&self, token: usize, began: u64) -> bool {
        let token = &self.tokens[token];
        let owner = &self.owners[token.owner];
        let by = token.owner;
        let unsettled = self.under_way(Deed::Disable(by)) || self.under_way(Deed::Enable(by));
        let owned = !unsettled && !owner.last.1 && began > owner.changed;
        token.minted.is_some_and(|minted| minted < began) && token.revoke_asked.is_none() && owned
    }

    fn under_way(&self, deed: Deed) -> bool {
        self.ops.iter().any(|op| op.deed == deed && !op.done)
    }
}

/// The token of this id, if it is one of ours.
pub(crate) fn token_of(id: Id) -> Option<usize> {
    (0..STRANGER).find(|number| id_of(*number) == id)
}

fn id_of(token: usize) -> Id {
    Id::from_u128(TOKEN + token as u128)
}

fn email(owner: usize) -> Email {
    Email::parse(&format!("owner{owner}@example.com")).expect("it is one")
}

fn owner_id(owner: usize) -> Id {
    Id::from_u128(1 + owner as u128)
}

/// Whose id this is, if it is one of ours.
pub(crate) fn owner_of(id: Id) -> Option<usize> {
    (0..=OWNERS).find(|owner| owner_id(*owner) == id)
}

fn envelope(random: &mut Random, actor: Actor, command: Command) -> Envelope {
    Envelope {
        id: CommandId(u128::from(random.number()) << 64 | u128::from(random.number())),
        now_ms: WALL_MS,
        actor,
        command,
    }
}

/// A cluster that has begun: its first entries and the state that they lead to.
fn founding(random: &mut Random, config: Config) -> (Vec<Entry>, MemTables) {
    let mut commands = vec![(
        Actor::System,
        Command::InitCluster {
            cluster_id: CLUSTER,
            admin: ADMIN,
            email: email(0),
            password_hash: None,
            rbac: Id::from_u128(40),
        },
    )];
    let by_admin = |command| (Actor::User(ADMIN), command);
    for owner in 1..=OWNERS {
        commands.push(by_admin(Command::CreateUser {
            id: owner_id(owner),
            email: email(owner),
            name: String::new(),
            password_hash: None,
        }));
    }
    commands.push(by_admin(Command::WriteRbac {
        id: Id::from_u128(41),
        name: Name::parse("owners").expect("it is one"),
        subjects: (1..=OWNERS).map(|owner| Subject::User(email(owner))).collect(),
        role_bindings: vec!["role:admin,resource:*".parse().expect("it is one")],
        if_version: None,
    }));
    commands.push(by_admin(Command::CreateProject {
        id: Id::from_u128(50),
        name: Name::parse("demo").expect("it is one"),
        spec: ProjectSpec {
            description: String::new(),
            servers: Vec::new(),
            gated: true,
            allow_sse: false,
            proxy_model: None,
            tool_naming: ToolNaming::Plain,
            instructions: None,
        },
    }));
    let mut entries = vec![Entry {
        term: 0,
        kind: Kind::Config(Rc::new(config)),
    }];
    let mut tables = MemTables::default();
    for (actor, command) in commands {
        let envelope = envelope(random, actor, command);
        let index = entries.len() as u64 + 1;
        let outcome = apply(&mut tables, index, 0, &envelope, &mut Effects::default());
        assert!(!matches!(outcome.reply, Reply::Refused(_)), "{outcome:?}");
        entries.push(Entry {
            term: 0,
            kind: Kind::Command(Rc::new(envelope)),
        });
    }
    (entries, tables)
}

impl World {
    /// Puts the machines up and writes down what is going to happen to them.
    pub(crate) fn begin(&mut self) {
        let voters = if self.one_in(4) { 5 } else { 3 };
        let learners = u64::from(self.one_in(2));
        let node = |slot: u64| NodeId(slot + 1);
        let config = Config {
            voters: (0..voters).map(node).collect(),
            learners: (voters..voters + learners).map(node).collect(),
        };
        self.faults.wanted = (0..voters + learners).map(|slot| (node(slot), slot < voters)).collect();
        let (log, tables) = founding(&mut self.random, config);
        let slots = voters + learners + 1;
        for slot in 0..slots {
            let boot = 1_000_000 * MS + self.below(1_000_000_000 * MS);
            let drift = i64::try_from(self.below(1_000)).unwrap_or(0) - 500;
            let mut machine = Machine::new(node(slot), boot, drift);
            if slot < voters + learners {
                machine.disk.committed = log.len() as u64;
                (machine.disk.at, machine.disk.log, machine.disk.tables) =
                    (log.len() as u64, log.clone(), tables.clone());
            }
            self.machines.push(machine);
        }
        self.net.blocked = vec![vec![0; slots as usize]; slots as usize];
        for at in 0..(voters + learners) as usize {
            self.start(at, true);
        }
        self.plan();
        let mut time = 200 * MS;
        for token in 0..REVOKES + STAYING {
            let revoked = token < REVOKES;
            let minted = if revoked {
                time
            } else {
                900 * MS + token as u64 * 10 * MS
            };
            self.at(minted, Event::Story(Beat::Begin(Deed::Mint(token))));
            if revoked {
                let after = 300 * MS + self.below(1_200 * MS);
                self.at(
                    (time + after).min(HEALED),
                    Event::Story(Beat::Begin(Deed::Revoke(token))),
                );
                time += 900 * MS + self.below(600 * MS);
            }
        }
        self.expiries();
        let save = 3_000 * MS + self.below(5_000 * MS);
        self.at(save, Event::Story(Beat::Save));
        for round in 0..3 {
            let owner = 1 + self.below(OWNERS as u64) as usize;
            let off = 4_000 * MS + round * 8_000 * MS + self.below(2_000 * MS);
            self.at(off, Event::Story(Beat::Begin(Deed::Disable(owner))));
            let on = off + 2_500 * MS + self.below(2_000 * MS);
            self.at(on, Event::Story(Beat::Begin(Deed::Enable(owner))));
        }
        self.at(1_000 * MS, Event::Story(Beat::Probe));
    }

    /// Tokens that expire some time after they are minted. Half of them are revoked about then.
    fn expiries(&mut self) {
        for number in 0..EXPIRING {
            let token = REVOKES + STAYING + number;
            let minted = 1_200 * MS + number as u64 * 3_600 * MS + self.below(1_000 * MS);
            let expires = minted + 1_200 * MS + self.below(3_000 * MS);
            self.story.tokens[token].expires_ms = Some(WALL_MS + expires / MS);
            self.at(minted, Event::Story(Beat::Begin(Deed::Mint(token))));
            let revoked = (expires + self.below(1_200 * MS)).saturating_sub(200 * MS);
            if self.one_in(2) {
                self.at(revoked, Event::Story(Beat::Begin(Deed::Revoke(token))));
            }
        }
    }

    pub(crate) fn beat(&mut self, beat: Beat) {
        match beat {
            Beat::Save => self.save(),
            Beat::Probe => self.probe(),
            Beat::Begin(deed) => self.begin_deed(deed),
            Beat::Try(op) => self.try_op(op),
            Beat::GiveUp(op, attempt) => {
                if self.story.ops[op].attempt == attempt && !self.story.ops[op].done {
                    self.try_op(op);
                }
            }
            Beat::Answer(op, attempt, answer) => self.answered(op, attempt, *answer),
        }
    }

    /// A token, somewhere: one that lives, one that has gone lately, or any.
    fn probe(&mut self) {
        let pause = MS + self.below(24 * MS);
        if self.now + pause < LASTS {
            self.at(self.now + pause, Event::Story(Beat::Probe));
        }
        let at = self.below(self.machines.len() as u64) as usize;
        let lately = self.story.gone_lately.len() as u64;
        let token = match self.below(10) {
            0..=4 if lately > 0 => {
                let newest = lately - 1 - self.below(lately.min(4));
                self.story.gone_lately[newest as usize]
            }
            _ => self.below(self.story.tokens.len() as u64) as usize,
        };
        self.try_token(at, token, 0);
    }

    fn try_token(&mut self, at: usize, token: usize, after: u64) {
        let began = self.now + after;
        self.at(began, Event::Arrive { at, token, began });
    }

    fn begin_deed(&mut self, deed: Deed) {
        let now = self.now;
        if now > CALM {
            return;
        }
        let admin = Actor::User(ADMIN);
        let (actor, command) = match deed {
            Deed::Mint(number) => {
                self.story.tokens[number].mint_asked = Some(now);
                let token = &self.story.tokens[number];
                let command = Command::IssueToken {
                    id: id_of(number),
                    name: Name::parse(&format!("t{number}")).expect("it is one"),
                    project: Name::parse("demo").expect("it is one"),
                    hash: token.hash,
                    shown_prefix: "mcpctl_pat_abcd".to_owned(),
                    description: String::new(),
                    expires_ms: token.expires_ms,
                    grant: TokenGrant::Bindings(Vec::new()),
                    replace: false,
                };
                (Actor::User(owner_id(token.owner)), command)
            }
            Deed::Revoke(number) => {
                self.story.tokens[number].revoke_asked.get_or_insert(now);
                (admin, Command::RevokeToken { id: id_of(number) })
            }
            Deed::Disable(owner) | Deed::Enable(owner) => {
                let disabled = matches!(deed, Deed::Disable(_));
                let email = email(owner);
                (admin, Command::SetUserDisabled { email, disabled })
            }
            Deed::Retire(node) => (Actor::System, Command::RetireNode { node }),
            Deed::Stage | Deed::Restore => (admin, self.story.backup.command(deed)),
        };
        let envelope = Rc::new(envelope(&mut self.random, actor, command));
        let op = self.story.ops.len();
        self.story.ops.push(Op {
            envelope,
            deed,
            attempt: 0,
            done: false,
        });
        self.note(&[11, op as u64], |s| {
            s.push_str(&format!("client: {deed:?} is command {op}"))
        });
        if matches!(deed, Deed::Revoke(_) | Deed::Disable(_) | Deed::Restore) && self.one_in(2) && now < HEALED {
            self.trouble_now();
        }
        self.try_op(op);
    }

    fn try_op(&mut self, op: usize) {
        let slots = self.machines.len() as u64;
        let at = self.below(slots) as usize;
        let wait_ms = match self.below(4) {
            0 => 200 + self.below(600),
            _ => 5_000,
        };
        self.story.ops[op].attempt += 1;
        let attempt = self.story.ops[op].attempt;
        if self.now > LASTS {
            return;
        }
        let patience = if self.machines[at].process.is_some() {
            wait_ms + 500
        } else {
            40
        };
        self.at(self.now + patience * MS, Event::Story(Beat::GiveUp(op, attempt)));
        let to = self.machines[at].me;
        let way = 100_000 + self.below(MS);
        let said_ms = 0;
        let msg = Msg::Write {
            op,
            attempt,
            wait_ms,
            said_ms,
        };
        self.at(
            self.now + way,
            Event::Deliver {
                from: CLIENT,
                to,
                msg,
                stored: false,
            },
        );
    }

    fn answered(&mut self, op: usize, attempt: u64, answer: Answer) {
        let known = &self.story.ops[op];
        if known.done || known.attempt != attempt {
            return;
        }
        let deed = known.deed;
        let mut minted = false;
        let over = match answer {
            Answer::Done(outcome, receipt) => {
                minted = matches!(outcome.reply, Reply::TokenIssued { .. });
                receipt.is_none_or(|r| r.effective()) && {
                    self.note(&[12, op as u64, outcome.index], |s| {
                        s.push_str(&format!("client: command {op} was carried out at {}", outcome.index));
                    });
                    true
                }
            }
            Answer::NotLeader | Answer::Unknown => false,
        };
        if !over {
            let pause = 25 * MS + self.below(40 * MS);
            // Another try begins, and nobody waits for this one any more.
            self.story.ops[op].attempt += 1;
            return self.at(self.now + pause, Event::Story(Beat::Try(op)));
        }
        self.story.ops[op].done = true;
        match deed {
            // Whoever was disabled could not mint it.
            Deed::Mint(_) if !minted => {}
            Deed::Mint(token) => {
                self.story.tokens[token].minted = Some(self.now);
                // At once, everywhere: most replicas do not know it yet.
                for at in 0..self.machines.len() {
                    let after = 1 + self.below(2 * MS);
                    self.try_token(at, token, after);
                }
                if self.one_in(6) && self.now < HEALED {
                    self.crowd();
                }
            }
            Deed::Stage => self.at(self.now + 1, Event::Story(Beat::Begin(Deed::Restore))),
            Deed::Enable(owner) => self.story.owners[owner].changed = self.now,
            Deed::Disable(owner) => self.story.owners[owner].changed = self.now,
            Deed::Revoke(_) | Deed::Retire(_) | Deed::Restore => {}
        }
    }

    /// Strangers come to one node, all at once.
    fn crowd(&mut self) {
        let slots = self.machines.len() as u64;
        let at = self.below(slots) as usize;
        for _ in 0..CROWD {
            let after = 1 + self.below(2 * MS);
            self.try_token(at, STRANGER, after);
        }
    }

    /// The leader says that it is in force everywhere: from here on the promise holds.
    pub(crate) fn acknowledge(&mut self, op: usize, receipt: Option<&Receipt>) {
        let (deed, now) = (self.story.ops[op].deed, self.now);
        let took_ms = receipt.map_or(0, |r| r.took_ms);
        self.note(&[13, op as u64, took_ms], |s| {
            s.push_str(&format!(
                "command {op} ({deed:?}) is acknowledged as effective: {receipt:?}"
            ));
        });
        self.oracle.acknowledged += 1;
        let tokens: Vec<usize> = match deed {
            Deed::Revoke(token) => {
                self.story.tokens[token].gone.get_or_insert(now);
                vec![token]
            }
            Deed::Disable(owner) if self.stays_disabled(owner, receipt) => {
                self.story.owners[owner].gone.get_or_insert(now);
                let all = 0..self.story.tokens.len();
                all.filter(|t| self.story.tokens[*t].owner == owner).take(3).collect()
            }
            Deed::Restore => {
                self.oracle.restored += 1;
                let away = self.story.backup.away.clone();
                for token in &away {
                    self.story.tokens[*token].gone.get_or_insert(now);
                }
                // What was gone before is the first that must not come back.
                let before = self.story.gone_lately.iter().rev().take(4);
                away.iter().chain(before).copied().take(6).collect()
            }
            Deed::Mint(_) | Deed::Disable(_) | Deed::Enable(_) | Deed::Retire(_) | Deed::Stage => return,
        };
        for token in tokens {
            self.probe_gone(token, 0);
        }
    }

    /// Tries a token everywhere, again and again, from when on nobody may let it in any more.
    pub(crate) fn probe_gone(&mut self, token: usize, from_ms: u64) {
        self.story.gone_lately.push(token);
        for at in 0..self.machines.len() {
            for after_ms in [0, 1, 20, 100, 300, 700, 1_200, 1_800] {
                let after = (from_ms + after_ms) * MS + 1 + self.below(MS * (1 + after_ms / 4));
                self.try_token(at, token, after);
            }
        }
    }

    /// A change of an owner was carried out, in the order of the log.
    pub(crate) fn owner_changed(&mut self, op: usize, index: u64) {
        let (owner, disabled) = match self.story.ops[op].deed {
            Deed::Disable(owner) => (owner, true),
            Deed::Enable(owner) => (owner, false),
            Deed::Mint(_) | Deed::Revoke(_) | Deed::Retire(_) | Deed::Stage | Deed::Restore => return,
        };
        let known = &mut self.story.owners[owner];
        known.last = known.last.max((index, disabled));
    }

    /// Somebody proposes something: what it takes back is promised no longer.
    pub(crate) fn proposed(&mut self, op: usize) {
        if let Deed::Enable(owner) = self.story.ops[op].deed {
            self.story.owners[owner].gone = None;
        }
    }

    /// Whether nothing can have enabled the owner after this disabling.
    fn stays_disabled(&self, owner: usize, receipt: Option<&Receipt>) -> bool {
        let index = receipt.map_or(u64::MAX, |r| r.index);
        !self.story.under_way(Deed::Enable(owner)) && self.story.owners[owner].last.0 <= index
    }
}

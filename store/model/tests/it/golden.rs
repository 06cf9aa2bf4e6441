//! The bytes of every command and record, for ever: a log or a store of an older program must go on being read.
//!
//! That nothing is missing here is no matter of care: the compiler asks for the record of a new table, and the last test compares
//! what was pinned with what serde knows to exist, down to the last variant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use mcp_model::backup;
use mcp_model::command::{Actor, Command, Envelope, JoinRefusal, Outcome, Refusal, Reply};
use mcp_model::frame::{self, Framed};
use mcp_model::ids::{CommandId, NodeId};
use mcp_model::limits::{ProjectLimitsRecord, ServerLimits, ServerLimitsRecord};
use mcp_model::rbac::RoleBinding;
use mcp_model::records::*;
use mcp_model::reply::{Listed, Restored};
use mcp_model::token::TokenHash;
use mcp_model::watch::{Happened, SeenTool, ToolChange, ToolWatch};

use super::samples::{
    commands, email, id, name, node, origin, print, project_limits, project_spec, server_limits, server_specs,
    tool_list,
};
use super::shapes::{self, Variants};
use super::{expect_file, here};

mod complete;

/// The lines of a golden file, and what they pin.
#[derive(Default)]
struct Golden {
    lines: String,
    variants: Variants,
    kinds: BTreeSet<u8>,
}

fn line<T: Framed + PartialEq + std::fmt::Debug>(out: &mut Golden, kind: &str, value: &T) {
    let bytes = frame::encode(value);
    assert_eq!(frame::decode::<T>(&bytes).as_ref(), Ok(value), "{kind} reads back");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    writeln!(out.lines, "{kind} {hex}").unwrap();
    shapes::note(value, &mut out.variants);
    out.kinds.insert(T::KIND);
}

#[test]
fn commands_keep_their_bytes() {
    expect_file(&here("golden").join("commands.txt"), &of_commands().lines);
}

fn of_commands() -> Golden {
    let mut out = Golden::default();
    for (at, command) in commands().into_iter().enumerate() {
        let actor = [Actor::System, Actor::User(id(2)), Actor::Token(TokenHash([8; 32]))][at % 3];
        let kind = command.kind();
        line(
            &mut out,
            kind,
            &Envelope {
                id: CommandId(9),
                now_ms: 1_000,
                actor,
                command,
            },
        );
    }
    let by_account = Envelope {
        id: CommandId(9),
        now_ms: 1_000,
        actor: Actor::ServiceAccount(id(2)),
        command: Command::CloseSession {
            hash: TokenHash([7; 32]),
        },
    };
    line(&mut out, "CloseSession", &by_account);
    out
}

fn definition(role_bindings: Vec<RoleBinding>) -> RbacDefinition {
    RbacDefinition {
        id: id(3),
        name: "r".into(),
        subjects: vec!["User:a@b.c".parse().unwrap()],
        role_bindings,
        origin: origin(),
    }
}

fn outcome(reply: Reply) -> Outcome {
    Outcome {
        index: 3,
        reply,
        restricts: true,
    }
}

fn listed(names: &[&str]) -> Listed {
    let mut listed = Listed::default();
    names.iter().for_each(|name| listed.add((*name).to_owned()));
    listed
}

/// The head of a backup is read by every later program.
#[test]
fn the_head_of_a_backup_keeps_its_bytes() {
    let header = backup::Header {
        cluster_id: id(1),
        index: 2,
        taken_ms: 3,
        program: "p".into(),
        feature_level: 1,
        key_id: [4; 8],
        counts: BTreeMap::from([(2, 5)]),
        body_bytes: 6,
        body_sha256: [7; 32],
    };
    let bytes = backup::head(&header);
    assert_eq!(backup::header(&bytes), Ok(header));
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    expect_file(&here("golden").join("backup.txt"), &format!("{hex}\n"));
}

#[test]
fn records_keep_their_bytes() {
    expect_file(&here("golden").join("records.txt"), &of_records().lines);
}

fn of_records() -> Golden {
    let mut out = Golden::default();
    let hash = TokenHash([7; 32]);
    line(
        &mut out,
        "ClusterRecord",
        &ClusterRecord {
            cluster_id: id(1),
            feature_level: 1,
            time_ms: 2,
            audit_events: 3,
            replies: 4,
        },
    );
    let user = User {
        id: id(2),
        email: email(),
        name: "n".into(),
        password_hash: Some("h".into()),
        disabled: true,
        origin: origin(),
    };
    line(&mut out, "User", &user);
    line(
        &mut out,
        "Session",
        &Session {
            hash,
            user: id(2),
            expires_ms: 5,
            origin: origin(),
        },
    );
    line(
        &mut out,
        "Project",
        &Project {
            id: id(4),
            name: name("p"),
            spec: project_spec(),
            origin: origin(),
        },
    );
    for spec in server_specs() {
        line(
            &mut out,
            "Server",
            &Server {
                id: id(5),
                name: name("s"),
                spec,
                origin: origin(),
            },
        );
    }
    let bindings = vec!["role:run,resource:tools,name:s/t".parse().unwrap()];
    line(&mut out, "RbacDefinition", &definition(bindings));
    for status in [TokenStatus::Active, TokenStatus::Expired, TokenStatus::Revoked] {
        let token = McpToken {
            id: id(4),
            name: name("ci"),
            project: id(4),
            owner: id(2),
            hash,
            shown_prefix: "mcpctl_pat_abcd".into(),
            description: "d".into(),
            expires_ms: Some(99),
            last_used_ms: None,
            revoked_ms: Some(98),
            status,
            origin: origin(),
        };
        line(&mut out, "McpToken", &token);
    }
    line(
        &mut out,
        "Tombstone",
        &Tombstone {
            hash,
            index: 3,
            expires_ms: None,
        },
    );
    line(&mut out, "ToolList", &tool_list());
    line(&mut out, "NodeRecord", &node());
    line(
        &mut out,
        "Retirement",
        &Retirement {
            id: NodeId(6),
            index: 3,
            time_ms: 4,
        },
    );
    let audit = AuditRecord {
        index: 3,
        seq: 1,
        time_ms: 4,
        actor: "a@b.c".into(),
        kind: "RevokeToken".into(),
        object: "mcptoken p/ci".into(),
        decision: "allow".into(),
    };
    line(&mut out, "AuditRecord", &audit);
    cluster_records(&mut out);
    let replies = [
        Reply::Refused(Refusal::NotFound {
            kind: "k".into(),
            name: "n".into(),
        }),
        Reply::Refused(Refusal::Forbidden {
            who: "w".into(),
            need: "n".into(),
        }),
        Reply::ClusterInitialised,
        Reply::Created { id: id(4) },
        Reply::Updated { id: id(4) },
        Reply::Deleted { id: id(4) },
        Reply::SessionOpened,
        Reply::SessionClosed,
        Reply::TokenIssued {
            id: id(4),
            replaced: None,
            bindings: vec!["action:logs".parse().unwrap()],
        },
        Reply::TokenRevoked {
            id: id(4),
            already: true,
        },
        Reply::Noted,
        Reply::NodeEnrolled { voter: true },
        Reply::Refused(Refusal::Join(JoinRefusal::Used)),
        Reply::Restored(Restored {
            backup_index: 5,
            revived: listed(&["p/a"]),
            refused: listed(&["p/b", "p/c"]),
            revoked: listed(&[]),
            users_back: listed(&["a@b.c"]),
            sessions_closed: 7,
        }),
        Reply::Refused(Refusal::LooksOtherwise {
            kind: "tool".into(),
            name: "s/t".into(),
            digest: "d".into(),
        }),
    ];
    for reply in replies {
        line(&mut out, "Outcome", &outcome(reply));
    }
    let group = Group {
        id: id(4),
        name: name("g"),
        description: "d".into(),
        members: vec![id(2)],
        origin: origin(),
    };
    line(&mut out, "Group", &group);
    let account = ServiceAccount {
        id: id(4),
        name: name("s"),
        description: "d".into(),
        origin: origin(),
    };
    line(&mut out, "ServiceAccount", &account);
    let secret = Secret {
        id: id(4),
        name: name("x"),
        description: "d".into(),
        values: BTreeMap::from([("k".to_owned(), vec![0, 255])]),
        origin: origin(),
    };
    line(&mut out, "Secret", &secret);
    watched_and_limited(&mut out);
    words(&mut out);
    out
}

/// The words that the records above happen not to hold: refusals, and what bindings are made of.
fn words(out: &mut Golden) {
    let (kind, name) = (|| "k".to_owned(), || "n".to_owned());
    let refusals = [
        Refusal::NameTaken {
            kind: kind(),
            name: name(),
        },
        Refusal::VersionMismatch {
            kind: kind(),
            name: name(),
            version: 3,
        },
        Refusal::NotAuthenticated,
        Refusal::Invalid {
            field: "f".into(),
            why: "w".into(),
        },
        Refusal::Reserved,
        Refusal::AlreadyInitialised,
        Refusal::Join(JoinRefusal::Unknown),
        Refusal::Join(JoinRefusal::Expired),
        Refusal::Join(JoinRefusal::Removed),
    ];
    for refusal in refusals {
        let reply = Reply::Refused(refusal);
        line(out, "Outcome", &outcome(reply));
    }
    let roles = ["view", "run", "create", "delete", "edit", "admin"];
    let of_roles = roles.map(|role| format!("role:{role},resource:servers"));
    let resources = [
        "users",
        "groups",
        "serviceaccounts",
        "projects",
        "servers",
        "tools",
        "secrets",
        "mcptokens",
        "rbac",
        "audit",
        "nodes",
        "prompts",
        "proxymodels",
        "sessions",
        "*",
    ];
    let on_resources = resources.map(|resource| format!("role:view,resource:{resource},name:a*"));
    let actions = ["logs", "backup", "restore", "cluster", "exec", "*"].map(|action| format!("action:{action}"));
    for text in of_roles.iter().chain(&on_resources).chain(&actions) {
        let bindings = vec![text.parse().unwrap()];
        line(out, "RbacDefinition", &definition(bindings));
    }
    for (gated, allow_sse) in [(true, true), (false, true), (false, false)] {
        let spec = ProjectSpec {
            gated,
            allow_sse,
            tool_naming: ToolNaming::Prefixed,
            ..project_spec()
        };
        let project = Project {
            id: id(4),
            name: super::samples::name("p"),
            spec,
            origin: origin(),
        };
        line(out, "Project", &project);
    }
    let healthy = ToolList {
        health: Health::Healthy,
        ..tool_list()
    };
    line(out, "ToolList", &healthy);
}

fn watched_and_limited(out: &mut Golden) {
    let happened = [
        Happened::Added,
        Happened::Description,
        Happened::Schema,
        Happened::Both,
        Happened::Other,
        Happened::Removed,
        Happened::Approved,
    ];
    let change = |happened| ToolChange {
        tool: "t".into(),
        happened,
        from: Some([1; 32]),
        to: None,
        by: "node 6".into(),
        time_ms: 4,
    };
    let seen = SeenTool {
        print: print(),
        approved: Some([1; 32]),
        gone: true,
        first_ms: 4,
        changed_ms: 5,
        node: NodeId(6),
    };
    let watch = ToolWatch {
        server: id(5),
        node: NodeId(6),
        reported_ms: 7,
        tools: BTreeMap::from([("t".to_owned(), seen)]),
        changes: happened.map(change).into(),
    };
    line(out, "ToolWatch", &watch);
    let (server, project) = (id(5), id(4));
    let limits = server_limits();
    line(out, "ServerLimits", &ServerLimitsRecord { server, limits });
    for answer_bytes in [None, Some(6)] {
        let limits = ServerLimits {
            answer_bytes,
            idle_stop_ms: Some(7),
            ..ServerLimits::default()
        };
        line(out, "ServerLimits", &ServerLimitsRecord { server, limits });
    }
    let limits = project_limits();
    line(out, "ProjectLimits", &ProjectLimitsRecord { project, limits });
}

fn cluster_records(out: &mut Golden) {
    let hash = TokenHash([7; 32]);
    let authority = Authority {
        certificate: vec![1, 2],
        sealed_key: vec![3, 4],
    };
    line(out, "Authority", &authority);
    line(out, "SetupSecret", &SetupSecret { hash, user: id(2) });
    for used in [
        None,
        Some(JoinUse {
            node: NodeId(6),
            request: [5; 32],
        }),
    ] {
        let token = JoinToken {
            hash,
            id: id(4),
            voter: true,
            expires_ms: 99,
            used,
            origin: origin(),
        };
        line(out, "JoinToken", &token);
    }
    let enrolment = Enrolment {
        node: NodeId(6),
        name: name("n"),
        peer_address: "h:1".into(),
        voter: true,
        origin: origin(),
    };
    line(out, "Enrolment", &enrolment);
}

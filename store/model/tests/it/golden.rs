//! The bytes of every command and record, for ever: a log or a store of an older program must go on being read.

use std::collections::BTreeMap;
use std::fmt::Write;

use mcp_model::command::{Actor, Command, Envelope, JoinRefusal, Outcome, Refusal, Reply, TokenGrant};
use mcp_model::frame::{self, Framed};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::records::*;
use mcp_model::token::TokenHash;

use super::{expect_file, here};

fn id(n: u128) -> Id {
    Id::from_u128(n)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn email() -> Email {
    Email::parse("a@b.c").unwrap()
}

fn origin() -> Origin {
    Origin {
        created_ms: 1,
        created_by: "a@b.c".into(),
        version: 3,
    }
}

fn project_spec() -> ProjectSpec {
    ProjectSpec {
        description: "d".into(),
        servers: vec![id(5)],
        gated: true,
        proxy_model: Some("m".into()),
        tool_naming: ToolNaming::Plain,
        instructions: Some("i".into()),
    }
}

fn server_specs() -> Vec<ServerSpec> {
    let pairs = BTreeMap::from([("K".to_owned(), "V".to_owned())]);
    let spec = |transport| ServerSpec {
        description: "d".into(),
        transport,
        connect_ms: 1,
        response_ms: 300,
        stateful: true,
        pin_tools: false,
    };
    vec![
        spec(Transport::Stdio {
            command: "c".into(),
            args: vec!["a".into()],
            env: pairs.clone(),
            cwd: Some("/".into()),
        }),
        spec(Transport::Http {
            url: "http://x/".into(),
            headers: pairs.clone(),
        }),
        spec(Transport::Sse {
            url: "http://x/".into(),
            headers: pairs,
        }),
    ]
}

fn tool_list() -> ToolList {
    let offer = Offer {
        tools: "[]".into(),
        prompts: "[]".into(),
        resources: "[]".into(),
        templates: "[]".into(),
        capabilities: "{}".into(),
        instructions: None,
    };
    let health = Health::Unhealthy { reason: "r".into() };
    ToolList {
        server: id(5),
        digest: [1; 32],
        offer: Some(offer),
        health,
        fetched_ms: 9,
        version: 3,
    }
}

fn node() -> NodeRecord {
    NodeRecord {
        id: NodeId(6),
        name: name("n"),
        peer_address: "h:1".into(),
        api_url: "http://h:2".into(),
        gateway_url: "http://h:3".into(),
        origin: origin(),
    }
}

fn commands() -> Vec<Command> {
    let hash = TokenHash([7; 32]);
    let subjects = ["User:a@b.c", "Group:g", "ServiceAccount:s", &format!("McpToken:{hash}")];
    let bindings = [
        "role:view,resource:servers,name:x*",
        "role:admin,resource:*",
        "action:exec",
    ];
    let bindings: Vec<_> = bindings.iter().map(|b| b.parse().unwrap()).collect();
    let issue = |grant| Command::IssueToken {
        id: id(4),
        name: name("ci"),
        project: name("p"),
        hash,
        shown_prefix: "mcpctl_pat_abcd".into(),
        description: "d".into(),
        expires_ms: Some(99),
        grant,
        replace: true,
    };
    let mut all = vec![
        Command::InitCluster {
            cluster_id: id(1),
            admin: id(2),
            email: email(),
            password_hash: Some("h".into()),
            rbac: id(3),
        },
        Command::CreateUser {
            id: id(2),
            email: email(),
            name: "n".into(),
            password_hash: None,
        },
        Command::SetUserDisabled {
            email: email(),
            disabled: true,
        },
        Command::OpenSession {
            hash,
            user: id(2),
            expires_ms: 5,
        },
        Command::CloseSession { hash },
        Command::CreateProject {
            id: id(4),
            name: name("p"),
            spec: project_spec(),
        },
        Command::UpdateProject {
            name: name("p"),
            spec: project_spec(),
            if_version: Some(3),
        },
        Command::DeleteProject {
            name: name("p"),
            if_version: None,
        },
        Command::DeleteServer {
            name: name("s"),
            if_version: None,
        },
        Command::WriteRbac {
            id: id(4),
            name: name("r"),
            subjects: subjects.iter().map(|s| s.parse().unwrap()).collect(),
            role_bindings: bindings.clone(),
            if_version: None,
        },
        Command::DeleteRbac {
            name: name("r"),
            if_version: None,
        },
        issue(TokenGrant::Clone),
        issue(TokenGrant::Bindings(bindings)),
        Command::RevokeToken { id: id(4) },
        Command::DeleteToken { id: id(4) },
        Command::ExpireToken {
            id: id(4),
            expires_ms: 99,
        },
        Command::PublishTools { list: tool_list() },
        Command::RegisterNode { node: node() },
        Command::RetireNode { node: NodeId(6) },
        Command::RecordTokenUse {
            uses: vec![(id(4), 77)],
        },
    ];
    for spec in server_specs() {
        all.push(Command::CreateServer {
            id: id(4),
            name: name("s"),
            spec: spec.clone(),
        });
        all.push(Command::UpdateServer {
            name: name("s"),
            spec,
            if_version: None,
        });
    }
    all.extend(cluster_commands());
    all
}

fn cluster_commands() -> [Command; 6] {
    let hash = TokenHash([7; 32]);
    [
        Command::KeepAuthority {
            certificate: vec![1, 2],
            sealed_key: vec![3, 4],
        },
        Command::OfferSetup { hash, user: email() },
        Command::UseSetup {
            hash,
            user: email(),
            password_hash: "h".into(),
        },
        Command::OfferJoin {
            id: id(4),
            hash,
            voter: true,
            expires_ms: 99,
        },
        Command::EnrolNode {
            secret: hash,
            request: [5; 32],
            node: NodeId(6),
            name: name("n"),
            peer_address: "h:1".into(),
        },
        Command::SetNodeRole {
            node: NodeId(6),
            voter: false,
        },
    ]
}

fn line<T: Framed + PartialEq + std::fmt::Debug>(out: &mut String, kind: &str, value: &T) {
    let bytes = frame::encode(value);
    assert_eq!(frame::decode::<T>(&bytes).as_ref(), Ok(value), "{kind} reads back");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    writeln!(out, "{kind} {hex}").unwrap();
}

#[test]
fn commands_keep_their_bytes() {
    let mut out = String::new();
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
    expect_file(&here("golden").join("commands.txt"), &out);
}

#[test]
fn records_keep_their_bytes() {
    let mut out = String::new();
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
    let definition = RbacDefinition {
        id: id(3),
        name: "r".into(),
        subjects: vec!["User:a@b.c".parse().unwrap()],
        role_bindings: vec!["role:run,resource:tools,name:s/t".parse().unwrap()],
        origin: origin(),
    };
    line(&mut out, "RbacDefinition", &definition);
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
    ];
    for reply in replies {
        line(
            &mut out,
            "Outcome",
            &Outcome {
                index: 3,
                reply,
                restricts: true,
            },
        );
    }
    expect_file(&here("golden").join("records.txt"), &out);
}

fn cluster_records(out: &mut String) {
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

//! One of every command and of what they are made of.

use std::collections::BTreeMap;

use mcp_model::command::{Command, TokenGrant};
use mcp_model::ids::{Id, NodeId};
use mcp_model::limits::{ProjectLimits, Quota, ServerLimits};
use mcp_model::names::{Email, Name};
use mcp_model::records::*;
use mcp_model::token::TokenHash;
use mcp_model::watch::Print;

pub(crate) fn id(n: u128) -> Id {
    Id::from_u128(n)
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn email() -> Email {
    Email::parse("a@b.c").unwrap()
}

pub(crate) fn origin() -> Origin {
    Origin {
        created_ms: 1,
        created_by: "a@b.c".into(),
        version: 3,
    }
}

pub(crate) fn project_spec() -> ProjectSpec {
    ProjectSpec {
        description: "d".into(),
        servers: vec![id(5)],
        gated: true,
        allow_sse: false,
        proxy_model: Some("m".into()),
        tool_naming: ToolNaming::Plain,
        instructions: Some("i".into()),
    }
}

pub(crate) fn server_specs() -> Vec<ServerSpec> {
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

pub(crate) fn print() -> Print {
    Print {
        name: "t".into(),
        whole: [1; 32],
        description: [2; 8],
        schema: [3; 8],
    }
}

pub(crate) fn server_limits() -> ServerLimits {
    ServerLimits {
        first_byte_ms: Some(1),
        idle_ms: Some(2),
        calls: Some(3),
        queue: Some(4),
        sessions: Some(5),
        answer_bytes: Some(6),
        idle_stop_ms: None,
    }
}

pub(crate) fn project_limits() -> ProjectLimits {
    let quota = |first| Quota {
        rate: Some(first),
        requests: Some(first + 1),
        streams: Some(first + 2),
        sessions: None,
    };
    ProjectLimits {
        token: quota(1),
        project: quota(5),
        body_bytes: Some(9),
        session_idle_ms: Some(10),
    }
}

pub(crate) fn tool_list() -> ToolList {
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

pub(crate) fn node() -> NodeRecord {
    NodeRecord {
        id: NodeId(6),
        name: name("n"),
        peer_address: "h:1".into(),
        api_url: "http://h:2".into(),
        gateway_url: "http://h:3".into(),
        origin: origin(),
    }
}

pub(crate) fn commands() -> Vec<Command> {
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
    all.extend(principals());
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

/// Commands about users, groups, service accounts and secrets, and what was added since: its place decides about its bytes.
fn principals() -> Vec<Command> {
    let hash = TokenHash([7; 32]);
    let (description, members) = ("d".to_owned(), vec![id(2)]);
    let values = BTreeMap::from([("k".to_owned(), vec![0, 255])]);
    vec![
        Command::LogIn {
            hash,
            user: id(2),
            expires_ms: 5,
            seen_version: 6,
        },
        Command::UpdateUser {
            email: email(),
            name: Some("n".into()),
            disabled: Some(true),
            if_version: Some(3),
        },
        Command::DeleteUser {
            email: email(),
            if_version: None,
        },
        Command::ChangePassword {
            password_hash: "h".into(),
            seen_version: 6,
            keep: hash,
        },
        Command::ResetPassword {
            email: email(),
            password_hash: "h".into(),
        },
        Command::CreateGroup {
            id: id(4),
            name: name("g"),
            description: description.clone(),
            members: members.clone(),
        },
        Command::UpdateGroup {
            name: name("g"),
            description: description.clone(),
            members,
            if_version: None,
        },
        Command::DeleteGroup {
            name: name("g"),
            if_version: None,
        },
        Command::CreateServiceAccount {
            id: id(4),
            name: name("s"),
            description: description.clone(),
        },
        Command::UpdateServiceAccount {
            name: name("s"),
            description: description.clone(),
            if_version: None,
        },
        Command::DeleteServiceAccount {
            name: name("s"),
            if_version: None,
        },
        Command::OpenServiceSession {
            account: name("s"),
            hash,
            expires_ms: 5,
        },
        Command::CreateSecret {
            id: id(4),
            name: name("x"),
            description: description.clone(),
            values: values.clone(),
        },
        Command::UpdateSecret {
            id: id(4),
            name: name("x"),
            description,
            values,
            if_version: None,
        },
        Command::DeleteSecret {
            name: name("x"),
            if_version: None,
        },
        Command::WithdrawJoin { id: id(4) },
        Command::StageRestore {
            restore: id(6),
            part: 1,
            bytes: vec![1, 2, 3],
        },
        Command::FinishRestore {
            restore: id(6),
            head: vec![4, 5],
            revive_tokens: true,
            any_cluster: false,
        },
        Command::DropRestore { restore: id(6) },
        Command::ReportTools {
            list: tool_list(),
            node: NodeId(6),
            prints: Some(vec![print()]),
        },
        Command::ReportTools {
            list: tool_list(),
            node: NodeId(6),
            prints: None,
        },
        Command::ApproveTools {
            server: name("s"),
            tools: vec![("t".into(), [1; 32])],
        },
        Command::CreateLimitedServer {
            id: id(4),
            name: name("s"),
            spec: server_specs().remove(0),
            limits: server_limits(),
        },
        Command::UpdateLimitedServer {
            name: name("s"),
            spec: server_specs().remove(0),
            limits: ServerLimits::default(),
            if_version: Some(3),
        },
        Command::CreateLimitedProject {
            id: id(4),
            name: name("p"),
            spec: project_spec(),
            limits: project_limits(),
        },
        Command::UpdateLimitedProject {
            name: name("p"),
            spec: project_spec(),
            limits: ProjectLimits::default(),
            if_version: None,
        },
    ]
}

//! `mcpctl cluster`: who is in the cluster, and how that changes.

use mcp_api::cluster::NodeChanged;
use mcp_api::nodes::{ClusterBody, MemberBody};
use mcp_api::write::Written;
use reqwest::Method;

use crate::api::{Answer, Api, encoded};
use crate::args::{Cluster, Format, GetArgs, Global, NodeArgs, OutputArg, ProjectArg, RemoveNodeArgs};
use crate::failure::{Exit, Failure};
use crate::receipts::Report;
use crate::{get, join_tokens, out, show};

pub(crate) async fn cluster(global: &Global, verb: &Cluster) -> Result<Exit, Failure> {
    match verb {
        Cluster::Status(args) => status(global, args).await,
        Cluster::Nodes(args) => nodes(global, args).await,
        Cluster::JoinToken(args) => join_tokens::join_token(global, args).await,
        Cluster::Promote(args) => set_role(global, args, "promote").await,
        Cluster::Demote(args) => set_role(global, args, "demote").await,
        Cluster::Remove(args) => remove(global, args).await,
    }
}

async fn status(global: &Global, args: &OutputArg) -> Result<Exit, Failure> {
    let body: ClusterBody = Api::of(global)?.get("show the cluster", "cluster/status").await?;
    match args.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output, &body)?,
        Format::Name => body
            .members
            .iter()
            .for_each(|m| out::line(&format!("node/{}", called(m)))),
        Format::Table | Format::Wide => {
            show::pairs(&[
                ("Cluster", body.cluster_id.clone().unwrap_or_default()),
                ("Asked", name_of(&body, &body.node)),
                (
                    "Leader",
                    body.leader
                        .as_ref()
                        .map_or_else(|| "none".to_owned(), |id| name_of(&body, id)),
                ),
                ("Term", body.term.to_string()),
                ("Index", body.applied_index.clone()),
                ("Decides", decides(&body.members)),
                ("States", states(&body)),
            ]);
            out::line("");
            let row = |m: &MemberBody| {
                let index = m.matched_index.clone().unwrap_or_else(|| "-".to_owned());
                vec![
                    called(m).to_owned(),
                    m.id.clone(),
                    m.role.clone(),
                    m.state.clone(),
                    index,
                ]
            };
            let rows: Vec<_> = body.members.iter().map(row).collect();
            show::rows(&["NAME", "ID", "ROLE", "STATE", "INDEX"], &rows);
        }
    }
    Ok(Exit::Done)
}

/// Whether the replicas have the same state.
fn states(body: &ClusterBody) -> String {
    let Some(compared) = &body.compared else {
        return "not compared yet".to_owned();
    };
    let index = &compared.index;
    let differ: Vec<&str> = body
        .members
        .iter()
        .filter(|m| m.state == "differs")
        .map(called)
        .collect();
    if !differ.is_empty() {
        return format!(
            "{} HAS ANOTHER STATE (at index {index}), and admits nobody",
            differ.join(", ")
        );
    }
    match compared.state.as_str() {
        "agrees" => format!("alike at index {index}"),
        "disputed" => format!("THEY DIFFER at index {index}, and none has a majority"),
        _ => format!("unknown: too few have answered at index {index}"),
    }
}

/// Whether the voters that answer are enough, and how many more may fail.
fn decides(members: &[MemberBody]) -> String {
    let voters: Vec<&MemberBody> = members.iter().filter(|m| m.role == "voter").collect();
    let answer = voters
        .iter()
        .filter(|m| !matches!(m.state.as_str(), "unreachable" | "unknown"))
        .count();
    let needed = voters.len() / 2 + 1;
    let verdict = match answer.checked_sub(needed) {
        None => "NO: too few".to_owned(),
        Some(0) => "yes, and none of them may fail".to_owned(),
        Some(spare) => format!("yes, and {spare} of them may fail"),
    };
    format!(
        "{verdict} ({answer} of {} voters answer, {needed} are needed)",
        voters.len()
    )
}

fn called(member: &MemberBody) -> &str {
    member.name.as_deref().unwrap_or(&member.id)
}

fn name_of(body: &ClusterBody, id: &str) -> String {
    body.members
        .iter()
        .find(|m| m.id == id)
        .map_or_else(|| id.to_owned(), |m| called(m).to_owned())
}

async fn nodes(global: &Global, args: &OutputArg) -> Result<Exit, Failure> {
    let args = GetArgs {
        kind: "nodes".to_owned(),
        names: Vec::new(),
        project: ProjectArg { project: None },
        output: OutputArg { output: args.output },
    };
    get::get(global, &args).await
}

async fn set_role(global: &Global, args: &NodeArgs, verb: &str) -> Result<Exit, Failure> {
    let what = format!("{verb} node {:?}", args.name);
    let path = format!("cluster/nodes/{}/{verb}", encoded(&args.name));
    let answer: Answer<Written<NodeChanged>> = Api::of(global)?
        .write(&what, Method::POST, &path, &serde_json::json!({}))
        .await?;
    let node = answer.body.object;
    match args.output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(args.output.output, &node)?,
        Format::Name => out::line(&format!("node/{}", node.name)),
        Format::Table | Format::Wide if node.settled => {
            out::line(&format!("node {:?} is a {} now", node.name, node.role))
        }
        Format::Table | Format::Wide => {
            out::line(&format!("node {:?} is to be a {}", node.name, node.role));
            eprintln!(
                "the leader sees to it once the node has caught up and enough others answer: mcpctl cluster status"
            );
        }
    }
    Ok(Exit::Done)
}

async fn remove(global: &Global, args: &RemoveNodeArgs) -> Result<Exit, Failure> {
    let what = format!("remove node {:?}", args.name);
    let path = format!("cluster/nodes/{}", encoded(&args.name));
    let answer: Answer<Written<NodeChanged>> = Api::of(global)?
        .waiting(&args.waiting)
        .write(&what, Method::DELETE, &path, &serde_json::json!({}))
        .await?;
    let (node, receipt) = (answer.body.object, answer.body.receipt);
    match args.output.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => show::other(
            args.output.output,
            &Written {
                object: &node,
                receipt: receipt.clone(),
            },
        )?,
        Format::Name => out::line(&format!("node/{}", node.name)),
        Format::Table | Format::Wide => {}
    }
    if !node.settled {
        eprintln!(
            "the leader is still taking {:?} out of the membership: mcpctl cluster status",
            node.name
        );
    }
    let report = Report {
        what: format!("node {:?} removed", node.name),
        word: "effective",
        again: format!("mcpctl cluster remove {}", node.id),
        receipt: receipt.as_ref(),
        waited: !args.waiting.no_wait,
    };
    match args.output.output {
        Format::Table | Format::Wide => report.print(),
        Format::Json | Format::Yaml | Format::Name | Format::JsonPath(_)
            if receipt.as_ref().is_none_or(|r| r.effective) =>
        {
            Ok(Exit::Done)
        }
        Format::Json | Format::Yaml | Format::Name | Format::JsonPath(_) => Ok(Exit::Uncertain),
    }
}

#[cfg(test)]
mod tests {
    use mcp_api::nodes::ComparedBody;

    use super::*;

    #[test]
    fn it_is_told_who_has_another_state() {
        let member = |name: &str, state: &str| MemberBody {
            id: String::new(),
            name: Some(name.to_owned()),
            role: "voter".to_owned(),
            state: state.to_owned(),
            matched_index: None,
        };
        let body = |state: &str, second: &str| ClusterBody {
            cluster_id: None,
            node: String::new(),
            leader: None,
            term: 1,
            applied_index: "9".to_owned(),
            lease: true,
            compared: Some(ComparedBody {
                index: "7".to_owned(),
                rows: 3,
                state: state.to_owned(),
            }),
            members: vec![member("node-1", "leader"), member("node-2", second)],
        };
        assert_eq!(states(&body("agrees", "follower")), "alike at index 7");
        assert_eq!(
            states(&body("agrees", "differs")),
            "node-2 HAS ANOTHER STATE (at index 7), and admits nobody"
        );
        assert!(states(&body("disputed", "follower")).starts_with("THEY DIFFER at index 7"));
        assert!(states(&body("open", "follower")).starts_with("unknown"));
        let none = ClusterBody {
            compared: None,
            ..body("open", "follower")
        };
        assert_eq!(states(&none), "not compared yet");
    }

    #[test]
    fn it_is_told_whether_the_cluster_can_decide() {
        let member = |state: &str| MemberBody {
            id: String::new(),
            name: None,
            role: if state == "learner" { "learner" } else { "voter" }.to_owned(),
            state: state.to_owned(),
            matched_index: None,
        };
        for (states, begins) in [
            (&["leader"][..], "yes, and none of them may fail (1 of 1"),
            (
                &["leader", "follower", "follower", "learner"],
                "yes, and 1 of them may fail (3 of 3",
            ),
            (
                &["leader", "follower", "unreachable"],
                "yes, and none of them may fail (2 of 3",
            ),
            (
                &["follower", "unreachable", "unknown"],
                "NO: too few (1 of 3 voters answer, 2",
            ),
        ] {
            let members: Vec<MemberBody> = states.iter().map(|s| member(s)).collect();
            let said = decides(&members);
            assert!(said.starts_with(begins), "{said}");
        }
    }
}

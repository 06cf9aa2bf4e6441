//! Nodes, the cluster they form, and what this one is.

use std::collections::BTreeMap;

use mcp_api::nodes::{ClusterBody, ComparedBody, MemberBody, NodeBody};
use mcp_api::show_time;
use mcp_api::version::VersionBody;
use mcp_model::ids::NodeId;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{ClusterRecord, NodeRecord};
use mcp_model::tables;

use crate::answer::Answer;
use crate::call::Admitted;
use crate::fault::Fault;
use crate::page;
use crate::port::{ClusterStatus, Member, MemberRole};

/// Nodes that are looked through for a name.
const NODES_MAX: usize = 1_000;

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let (rights, status) = (it.caller.rights.clone(), it.call.api.writer.cluster_status());
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |node: NodeRecord| {
            let seen = rights.allow(Verb::See, Resource::Nodes, node.name.as_str());
            seen.then(|| show(&node, &status))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let (name, status) = (it.name.clone(), it.call.api.writer.cluster_status());
    let nodes = it
        .call
        .api
        .read(|t| tables::list::<NodeRecord>(t, None, NODES_MAX))
        .await?;
    let found = nodes.into_iter().find(|n| n.name.as_str() == name);
    let body = found
        .map(|n| show(&n, &status))
        .ok_or_else(|| Fault::not_found("node", &it.name))?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

pub(crate) async fn status(it: Admitted) -> Result<Answer, Fault> {
    let api = &it.call.api;
    let status = api.writer.cluster_status();
    let (cluster, nodes) = api
        .read(|t| {
            (
                tables::load::<ClusterRecord>(t, &[0]),
                tables::list::<NodeRecord>(t, None, NODES_MAX),
            )
        })
        .await?;
    let names: BTreeMap<NodeId, String> = nodes.into_iter().map(|n| (n.id, n.name.to_string())).collect();
    let member = |m: &Member| MemberBody {
        id: m.id.to_string(),
        name: names.get(&m.id).cloned(),
        role: role(m).to_owned(),
        state: state(m, &status).to_owned(),
        matched_index: m.matched_index.map(|i| i.to_string()),
    };
    Ok(Answer::ok(&ClusterBody {
        cluster_id: cluster.map(|c| c.cluster_id.to_string()),
        node: status.node.to_string(),
        leader: status.leader.map(|l| l.to_string()),
        term: status.term,
        applied_index: api.replica.auth_index().to_string(),
        lease: api.replica.gate().holds(api.clock.reading()),
        compared: status.compared.as_ref().map(|compared| ComparedBody {
            index: compared.index.to_string(),
            rows: compared.rows,
            state: compared.state.to_owned(),
        }),
        members: status.members.iter().map(member).collect(),
    }))
}

pub(crate) async fn version(it: Admitted) -> Result<Answer, Fault> {
    Ok(Answer::ok(&VersionBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        node: it.call.api.writer.cluster_status().node.to_string(),
    }))
}

fn show(node: &NodeRecord, status: &ClusterStatus) -> NodeBody {
    let member = status.members.iter().find(|m| m.id == node.id);
    NodeBody {
        id: node.id.to_string(),
        name: node.name.to_string(),
        peer_address: node.peer_address.clone(),
        api_url: node.api_url.clone(),
        gateway_url: node.gateway_url.clone(),
        role: member.map_or("unknown", role).to_owned(),
        state: member.map_or("unknown", |m| state(m, status)).to_owned(),
        created_at: show_time(node.origin.created_ms),
        resource_version: node.origin.version.to_string(),
    }
}

fn role(member: &Member) -> &'static str {
    match member.role {
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
    }
}

fn state(member: &Member, status: &ClusterStatus) -> &'static str {
    if status.leader == Some(member.id) && member.alike != Some(false) {
        return "leader";
    }
    match (member.reachable, member.role) {
        (Some(false), _) => "unreachable",
        _ if member.alike == Some(false) => "differs",
        (None, _) if member.id != status.node => "unknown",
        (_, MemberRole::Voter) => "follower",
        (_, MemberRole::Learner) => "learner",
    }
}

//! Who is in the cluster: what was decided is carried out by whoever leads, and whoever was removed notices.

use std::time::Duration;

use mcp_model::command::{Actor, Command, Reply};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::Name;
use mcp_model::receipt::Proof;
use mcp_model::records::{NodeRecord, Origin};
use mcp_model::token::TokenHash;
use mcp_raft::{Begun, Member, Removal, Standing, WaitFor, Written};

use crate::cluster::{ADMIN, Cluster, LIMIT, Site, until};

fn name(id: NodeId) -> Name {
    Name::parse(&format!("n{}", id.0)).unwrap()
}

impl Cluster {
    /// Notes the founding members, as each node does for itself.
    async fn register_all(&self) {
        for site in &self.sites {
            let node = NodeRecord {
                id: site.id,
                name: name(site.id),
                peer_address: site.gate.address.clone(),
                api_url: String::new(),
                gateway_url: String::new(),
                origin: Origin {
                    created_ms: 0,
                    created_by: String::new(),
                    version: 0,
                },
            };
            let command = Command::RegisterNode { node };
            let written = self.write(0, Actor::System, command, WaitFor::Committed).await;
            assert_eq!(written.outcome.reply, Reply::Noted);
        }
    }

    /// Lets a node in that runs already.
    async fn enrol(&self, at: usize, voter: bool) {
        let site = &self.sites[at];
        let hash = TokenHash([u8::try_from(site.id.0).unwrap(); 32]);
        let offer = Command::OfferJoin {
            id: Id::from_u128(u128::from(site.id.0)),
            hash,
            voter,
            expires_ms: 9_000,
        };
        self.write(0, Actor::User(ADMIN), offer, WaitFor::Committed).await;
        let enrol = Command::EnrolNode {
            secret: hash,
            request: [0; 32],
            node: site.id,
            name: name(site.id),
            peer_address: site.gate.address.clone(),
        };
        let written = self.write(0, Actor::System, enrol, WaitFor::Committed).await;
        assert_eq!(written.outcome.reply, Reply::NodeEnrolled { voter });
    }

    async fn set_role(&self, through: usize, at: usize, voter: bool) {
        let node = self.sites[at].id;
        let command = Command::SetNodeRole { node, voter };
        let written = self
            .write(through, Actor::User(ADMIN), command, WaitFor::Committed)
            .await;
        assert_eq!(written.outcome.reply, Reply::Noted);
    }

    async fn retire(&self, through: usize, node: NodeId) -> Written {
        let command = Command::RetireNode { node };
        self.write(through, Actor::User(ADMIN), command, WaitFor::Effective)
            .await
    }

    async fn stands(&self, seen_by: usize, at: usize, standing: Standing) {
        let site = &self.sites[seen_by];
        let there = site.node().stands(self.sites[at].id, standing, LIMIT).await;
        assert!(there, "{:?}: {:?}", self.sites[at].id, site.node().status());
    }
}

async fn notices(site: &Site) {
    let noticed = tokio::time::timeout(LIMIT, site.node().removed()).await;
    assert!(noticed.is_ok(), "{:?} does not notice that it was removed", site.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_machine_becomes_three_and_a_learner_votes_only_when_it_is_told_to() {
    let mut cluster = Cluster::of(1).await;
    cluster.register_all().await;
    cluster.issue(0, 1).await;
    cluster.add(2).await;
    cluster.add(3).await;
    assert!(!cluster.sites[1].admits(), "nobody has let it in");
    cluster.enrol(1, true).await;
    cluster.stands(0, 1, Standing::Voter).await;
    cluster.enrol(2, false).await;
    cluster.stands(0, 2, Standing::Learner).await;
    cluster
        .until("all hold a lease and know the token", |c| {
            c.sites.iter().all(Site::admits) && (0..3).all(|at| c.knows(at, 1))
        })
        .await;
    cluster.set_role(1, 2, true).await;
    cluster.stands(1, 2, Standing::Voter).await;
    cluster.set_role(2, 1, false).await;
    cluster.stands(2, 1, Standing::Learner).await;
    // A learner's lease is waited for like anybody's.
    let receipt = cluster.revoke(1, 1).await.receipt.unwrap();
    assert_eq!((receipt.effective(), receipt.replicas.len()), (true, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_removed_node_admits_nobody_from_the_moment_its_removal_is_effective() {
    let mut cluster = Cluster::of(3).await;
    cluster.register_all().await;
    cluster.issue(0, 1).await;
    let leader = cluster.leader().unwrap();
    let (leaves, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    let gone = cluster.sites[leaves].id;
    let written = cluster.retire(stays, gone).await;
    assert!(!cluster.sites[leaves].admits());
    let receipt = written.receipt.unwrap();
    assert!(receipt.effective(), "{receipt:?}");
    let of_it = receipt.replicas.iter().find(|r| r.node == gone).unwrap();
    assert_eq!(of_it.proof, Proof::Applied, "it has said so itself");
    notices(&cluster.sites[leaves]).await;
    cluster.stands(stays, leaves, Standing::Gone).await;
    goes(&cluster.sites[leaves]).await;
    // Repeating it is answered, and the two that are left go on. Its last lease is over sooner or later; from then on nobody
    // is told about it any more.
    assert!(cluster.retire(leader, gone).await.receipt.unwrap().effective());
    cluster.stop(leaves).await;
    cluster.issue(stays, 2).await;
    tokio::time::timeout(LIMIT, async {
        while cluster.retire(stays, gone).await.receipt.unwrap().replicas.len() != 2 {}
    })
    .await
    .expect("a receipt of those who are left");
    let receipt = cluster.revoke(leader, 1).await.receipt.unwrap();
    assert!(receipt.effective() && receipt.replicas.len() == 2, "{receipt:?}");
    // It comes back, and is told.
    cluster.start(leaves).await;
    notices(&cluster.sites[leaves]).await;
    assert!(!cluster.sites[leaves].admits());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_removed_while_it_was_away_is_told_by_the_others() {
    let mut cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let (away, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    let gone = cluster.sites[away].id;
    cluster.stop(away).await;
    let receipt = cluster.retire(stays, gone).await.receipt.unwrap();
    assert!(receipt.effective(), "{receipt:?}");
    let of_it = receipt.replicas.iter().find(|r| r.node == gone).unwrap();
    assert_eq!(of_it.proof, Proof::LeaseRanOut, "nobody else can speak for it");
    cluster.stands(leader, away, Standing::Gone).await;
    cluster.start(away).await;
    notices(&cluster.sites[away]).await;
    assert!(!cluster.sites[away].admits());
    goes(&cluster.sites[away]).await;
}

/// Waits until a node may go.
async fn goes(site: &Site) {
    let out = tokio::time::timeout(LIMIT, site.node().out()).await;
    assert!(
        out.is_ok(),
        "{:?} does not notice that the others do without it",
        site.id
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_removed_node_lends_its_voice_until_the_others_have_decided_without_it() {
    let mut cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let (removed, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    // The third dies in the window: of the two voters that would remain one is dead.
    cluster.stop(dead).await;
    let gone = cluster.sites[dead].id;
    until("the leader knows that one is dead", || {
        cluster.sites[leader].node().is_reachable(gone) == Some(false)
    })
    .await;
    let receipt = cluster.retire(leader, cluster.sites[removed].id).await.receipt.unwrap();
    assert!(receipt.effective(), "{receipt:?}");
    notices(&cluster.sites[removed]).await;
    // Each of these needs its acknowledgement, and each round of the leader's lease its answer.
    for n in 1..=20 {
        cluster.issue(leader, n).await;
        assert!(!cluster.sites[removed].admits());
    }
    let asked = cluster.sites[removed].node().stands_by(cluster.sites[leader].id).await;
    assert_eq!(
        asked,
        Some(Removal::Removed),
        "the leader says that it is still counted"
    );
    assert_eq!(cluster.sites[removed].node().removal(), Removal::Removed);
    // It would be needed just the same after a restart.
    cluster.stop(removed).await;
    cluster.start(removed).await;
    notices(&cluster.sites[removed]).await;
    cluster
        .until("the leader has caught its breath", |c| {
            c.leader() == Some(leader) && c.sites[leader].admits()
        })
        .await;
    cluster.issue(leader, 21).await;
    assert_eq!(cluster.sites[removed].node().removal(), Removal::Removed);
    cluster.start(dead).await;
    cluster.stands(dead, removed, Standing::Gone).await;
    goes(&cluster.sites[removed]).await;
    cluster.stop(removed).await;
    cluster.issue(dead, 22).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_two_is_there_until_the_leader_that_hung_has_decided_without_it() {
    let mut cluster = Cluster::of(2).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let removed = 1 - leader;
    // From its removal on nothing of the leader's gets through to it, as when the leader's disk hangs: the change that takes
    // its vote needs that very vote.
    let receipt = cluster.retire(leader, cluster.sites[removed].id).await.receipt.unwrap();
    cluster.sites[removed].gate.set(false);
    assert!(receipt.effective(), "{receipt:?}");
    notices(&cluster.sites[removed]).await;
    let (it, leads) = (cluster.sites[removed].node(), cluster.sites[leader].id);
    // Nobody has a quorum, so nobody can tell it that it may go.
    assert_eq!(it.stands_by(leads).await, None);
    assert_eq!(it.removal(), Removal::Removed);
    cluster.sites[removed].gate.set(true);
    cluster.stands(leader, removed, Standing::Gone).await;
    goes(&cluster.sites[removed]).await;
    cluster.stop(removed).await;
    cluster.issue(leader, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_word_of_a_peer_without_a_quorum_sends_nobody_away() {
    let mut cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let (away, last) = ((leader + 1) % 3, (leader + 2) % 3);
    let gone = cluster.sites[away].id;
    cluster.stop(away).await;
    assert!(cluster.retire(leader, gone).await.receipt.unwrap().effective());
    cluster.stands(last, away, Standing::Gone).await;
    // The one that is left knows of the removal and says so, and nobody stands behind it.
    cluster.stop(leader).await;
    cluster.start(away).await;
    let it = cluster.sites[away].node();
    until("it is turned away", || {
        it.is_reachable(cluster.sites[last].id) == Some(false)
    })
    .await;
    assert_eq!(it.stands_by(cluster.sites[last].id).await, None);
    assert_eq!(it.removal(), Removal::No);
    assert!(
        !cluster.sites[away].admits(),
        "without a lease it admits nobody all the same"
    );
    cluster.start(leader).await;
    notices(&cluster.sites[away]).await;
    goes(&cluster.sites[away]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_steps_down_before_it_is_removed() {
    let cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let (through, gone) = ((leader + 1) % 3, cluster.sites[leader].id);
    cluster.sites[through].node().step_down(gone).await.unwrap();
    assert!(!cluster.sites[leader].node().leads());
    let receipt = cluster.retire(through, gone).await.receipt.unwrap();
    assert!(receipt.effective(), "{receipt:?}");
    cluster.stands(through, leader, Standing::Gone).await;
    notices(&cluster.sites[leader]).await;
    cluster.issue(through, 1).await;
}

/// Found by the simulation (its seed 160): the removed leader granted nothing any more, and its heartbeats kept the others loyal to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_was_removed_does_not_keep_the_others_from_their_leases() {
    let cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let receipt = cluster
        .retire(others[0], cluster.sites[leader].id)
        .await
        .receipt
        .unwrap();
    assert!(receipt.effective(), "{receipt:?}");
    cluster.stands(others[0], leader, Standing::Gone).await;
    cluster
        .until("another leads, and the others admit", |c| {
            c.leader().is_some_and(|now| now != leader) && others.iter().all(|at| c.sites[*at].admits())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_let_go_whom_the_others_need_to_decide() {
    let mut cluster = Cluster::of(3).await;
    cluster.register_all().await;
    let leader = cluster.leader().unwrap();
    let (dead, needed) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.stop(dead).await;
    until("the leader knows that one is dead", || {
        cluster.sites[leader].node().is_reachable(cluster.sites[dead].id) == Some(false)
    })
    .await;
    cluster.set_role(leader, needed, false).await;
    let node = cluster.sites[leader].node();
    let moved = node
        .stands(cluster.sites[needed].id, Standing::Learner, Duration::from_secs(2))
        .await;
    assert!(!moved, "of two voters one would be dead");
    cluster.issue(leader, 1).await;
    cluster.start(dead).await;
    cluster.stands(leader, needed, Standing::Learner).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_empty_node_begins_nothing_where_there_is_a_cluster() {
    let mut cluster = Cluster::of(1).await;
    cluster.add(2).await;
    let members: Vec<Member> = cluster
        .sites
        .iter()
        .map(|site| Member {
            id: site.id,
            name: name(site.id).to_string(),
            address: site.gate.address.clone(),
        })
        .collect();
    let begun = cluster.sites[1].node().bootstrap(&members).await.unwrap();
    assert!(
        matches!(&begun, Begun::Elsewhere(there) if there.id == cluster.sites[0].id),
        "{begun:?}"
    );
    assert!(cluster.sites[1].node().status().members.is_empty());
    let begun = cluster.sites[0].node().bootstrap(&members).await.unwrap();
    assert!(matches!(begun, Begun::Already), "{begun:?}");
    // The same where nobody can say: the only one who knows cannot be reached.
    cluster.sites[0].gate.set(false);
    let begun = cluster.sites[1].node().bootstrap(&members).await.unwrap();
    assert!(
        matches!(&begun, Begun::Unknown(silent) if silent.len() == 1 && silent[0].id == cluster.sites[0].id),
        "{begun:?}"
    );
    assert!(cluster.sites[1].node().status().members.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_of_another_cluster_is_not_spoken_to_and_never_votes() {
    let mut cluster = Cluster::of(1).await;
    cluster.register_all().await;
    // The same authority, so that nothing but the cluster's name tells the two apart.
    cluster.add_of(2, "another").await;
    cluster.enrol(1, true).await;
    let (here, there) = (cluster.sites[0].node(), &cluster.sites[1]);
    until("it is taken in, and does not answer", || {
        here.is_reachable(there.id) == Some(false)
    })
    .await;
    let votes = here.stands(there.id, Standing::Voter, Duration::from_secs(2)).await;
    assert!(!votes && !there.admits());
    assert!(there.node().status().members.is_empty(), "it has heard nothing");
    cluster.issue(0, 1).await;
}

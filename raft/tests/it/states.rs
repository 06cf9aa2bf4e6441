//! A replica whose state is another than the others', with every checksum right: it stops serving, the others go on, and it comes back.

use std::path::PathBuf;
use std::time::Duration;

use mcp_model::command::Actor;
use mcp_model::frame;
use mcp_model::records::{McpToken, TokenStatus, User};
use mcp_model::tables::{self, Stored, Table};
use mcp_raft::{Likeness, WaitFor};

use crate::cluster::{ADMIN, Cluster, Site, issue, revoke};

const EVERY: Duration = Duration::from_millis(300);

/// Gives the administrator another name on one node only.
fn alter(site: &Site, name: &str) {
    let user: User = site.replica().read(|t| tables::by_id(t, ADMIN)).unwrap().unwrap();
    let altered = User {
        name: name.to_owned(),
        ..user
    };
    let bytes = frame::encode(&altered);
    site.replica().alter(Table::Users, &altered.key(), bytes).unwrap();
}

fn name(site: &Site) -> String {
    let user: Option<User> = site.replica().read(|t| tables::by_id(t, ADMIN)).unwrap();
    user.unwrap().name
}

fn stands(site: &Site) -> Option<Likeness> {
    site.node().compared().map(|compared| compared.likeness)
}

fn note(site: &Site) -> PathBuf {
    site.dir().join("state.doubted")
}

async fn until_all_agree(cluster: &Cluster) {
    cluster
        .until("all agree, know it of each other, and admit", |c| {
            let all = c.sites.iter().filter(|site| site.running.is_some());
            all.clone().all(|site| {
                let compared = site.node().compared();
                let alike =
                    compared.is_some_and(|c| c.members.len() == all.clone().count() && c.members.values().all(|a| *a));
                alike && stands(site) == Some(Likeness::Agrees) && site.admits()
            })
        })
        .await;
}

async fn until_it_differs(cluster: &Cluster, at: usize) {
    cluster
        .until("the one that differs says so and admits nobody", |c| {
            let site = &c.sites[at];
            stands(site) == Some(Likeness::Differs)
                && !site.admits()
                && !site.node().what_is_wrong().is_empty()
                && note(site).exists()
        })
        .await;
    let wrong = cluster.sites[at].node().what_is_wrong().join("; ");
    assert!(wrong.contains("differs") && wrong.contains("in Users"), "{wrong}");
    let id = cluster.sites[at].id;
    cluster
        .until("the others know it, and go on", |c| {
            let others = c.sites.iter().enumerate().filter(|(other, _)| *other != at);
            others.into_iter().all(|(_, site)| {
                let compared = site.node().compared();
                compared.is_some_and(|c| c.members.get(&id) == Some(&false)) && site.admits()
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_differs_stops_and_is_made_anew_from_what_it_has() {
    let mut cluster = Cluster::comparing(3, EVERY).await;
    cluster.issue(0, 1).await;
    until_all_agree(&cluster).await;
    for leads in [false, true] {
        cluster.until("somebody leads", |c| c.leader().is_some()).await;
        let leader = cluster.leader().unwrap();
        let at = if leads { leader } else { (leader + 1) % 3 };
        alter(&cluster.sites[at], "Mallory");
        until_it_differs(&cluster, at).await;
        cluster
            .until("another leads", |c| c.leader().is_some_and(|l| l != at))
            .await;
        // Its voice still counts, and a revoke is effective.
        let (one, two) = if leads { (3, 4) } else { (1, 2) };
        let other = (at + 1) % 3;
        cluster
            .write(other, Actor::User(ADMIN), issue(two), WaitFor::Committed)
            .await;
        let revoked = cluster.revoke(other, one).await;
        assert!(revoked.receipt.unwrap().effective());
        cluster
            .write(other, Actor::User(ADMIN), issue(3), WaitFor::Committed)
            .await;
        cluster.stop(at).await;
        cluster.start(at).await;
        until_all_agree(&cluster).await;
        assert_eq!(name(&cluster.sites[at]), name(&cluster.sites[other]));
        assert!(!note(&cluster.sites[at]).exists());
        let mut files = std::fs::read_dir(cluster.sites[at].dir()).unwrap();
        let aside = |file: &str| file.starts_with("state.redb.corrupt-");
        assert!(
            files.any(|f| aside(f.unwrap().file_name().to_str().unwrap())),
            "what it had is kept"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_whose_snapshot_is_no_better_gets_everything_from_the_others() {
    let mut cluster = Cluster::comparing(3, Duration::from_secs(600)).await;
    cluster.until("somebody leads", |c| c.leader().is_some()).await;
    let at = (cluster.leader().unwrap() + 1) % 3;
    alter(&cluster.sites[at], "Mallory");
    // Enough for snapshots, which have it too, and for the log to begin behind it.
    for token in 1..=130u8 {
        cluster
            .write(at, Actor::User(ADMIN), issue(token), WaitFor::Committed)
            .await;
    }
    let snapshots = cluster.sites[at].dir().join("snapshots");
    cluster
        .until("a snapshot", |_| {
            let mut files = std::fs::read_dir(&snapshots).unwrap();
            files.any(|file| file.unwrap().path().extension().is_some_and(|e| e == "snap"))
        })
        .await;
    cluster.compare_from_now_on(EVERY).await;
    until_it_differs(&cluster, at).await;
    cluster.stop(at).await;
    cluster.start(at).await;
    assert_eq!(name(&cluster.sites[at]), "Mallory", "the snapshot had it");
    assert!(!cluster.sites[at].admits());
    until_it_differs(&cluster, at).await;
    cluster.stop(at).await;
    cluster.start(at).await;
    until_all_agree(&cluster).await;
    assert_ne!(name(&cluster.sites[at]), "Mallory");
    assert!(!note(&cluster.sites[at]).exists());
    let id = cluster.sites[at].id;
    cluster
        .until("it votes again", |c| {
            let status = c.sites[at].node().status();
            status.members.iter().any(|m| m.id == id && m.voter)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_that_differ_both_stop_until_they_are_alike_even_over_a_restart() {
    let mut cluster = Cluster::comparing(2, EVERY).await;
    until_all_agree(&cluster).await;
    let right = name(&cluster.sites[0]);
    alter(&cluster.sites[1], "Mallory");
    cluster
        .until("both stop", |c| {
            let stopped =
                |site: &Site| stands(site) == Some(Likeness::Disputed) && !site.admits() && note(site).exists();
            c.sites.iter().all(stopped)
        })
        .await;
    assert!(
        cluster.sites[0]
            .replica()
            .gate()
            .why_doubted()
            .unwrap()
            .contains("majority")
    );
    cluster.stop(0).await;
    cluster.start(0).await;
    assert!(
        cluster.sites[0].replica().gate().why_doubted().is_some(),
        "a restart makes nobody trusted"
    );
    cluster
        .until("it was compared again", |c| {
            stands(&c.sites[0]) == Some(Likeness::Disputed)
        })
        .await;
    assert!(!cluster.sites[0].admits());
    alter(&cluster.sites[1], &right);
    until_all_agree(&cluster).await;
    assert!(cluster.sites.iter().all(|site| !note(site).exists()));
    cluster.issue(0, 1).await;
    cluster
        .write(1, Actor::User(ADMIN), revoke(1), WaitFor::Effective)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_whose_memory_is_not_what_its_store_says_stops_until_it_starts_again() {
    let mut cluster = Cluster::comparing(3, EVERY).await;
    until_all_agree(&cluster).await;
    // Much comes and goes while memory is compared with the store: that alone is no difference.
    for token in 1..=60u8 {
        cluster.issue(usize::from(token) % 3, token).await;
        if token % 2 == 0 {
            cluster.revoke(usize::from(token) % 3, token).await;
        }
    }
    until_all_agree(&cluster).await;
    let at = (cluster.leader().unwrap() + 1) % 3;
    let find = |t: &dyn tables::Tables| tables::list::<McpToken>(t, None, 100);
    let all = cluster.sites[at].replica().read(find).unwrap();
    let revoked = all.into_iter().find(|token| token.status != TokenStatus::Active);
    let hash = revoked.as_ref().unwrap().hash;
    cluster.sites[at].replica().alter_view(revoked.unwrap());
    cluster
        .until(
            "the one whose memory knows a revoked token admits nobody and says why",
            |c| {
                let why = c.sites[at].replica().gate().why_shut().unwrap_or_default();
                !c.sites[at].admits() && why.contains("in memory") && why.contains("tokens: 1")
            },
        )
        .await;
    let others = (0..3).filter(|other| *other != at);
    assert!(
        others
            .into_iter()
            .all(|other| cluster.sites[other].replica().gate().why_shut().is_none())
    );
    cluster.stop(at).await;
    cluster.start(at).await;
    until_all_agree(&cluster).await;
    assert!(!cluster.sites[at].replica().view().knows(&hash));
}

//! Disks that fill up while a node runs, as far as one process can have that.

use std::sync::atomic::Ordering;

use crate::cluster::{Cluster, Site};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_whose_disk_is_nearly_full_steps_aside_until_there_is_room() {
    let cluster = Cluster::of(3).await;
    let full = cluster.leader().unwrap();
    cluster.sites[full].free_bytes.store(1_000, Ordering::Relaxed);
    cluster
        .until("somebody else leads", |c| {
            c.leader().is_some_and(|leader| leader != full)
        })
        .await;
    let wrong = cluster.sites[full].node().what_is_wrong();
    assert!(
        wrong.len() == 1 && wrong[0].contains("1000 bytes are free"),
        "{wrong:?}"
    );
    cluster.issue(full, 1).await;
    cluster.sites[full].free_bytes.store(u64::MAX, Ordering::Relaxed);
    cluster
        .until("it is well again", |c| c.sites[full].node().what_is_wrong().is_empty())
        .await;
    assert!(
        cluster.sites.iter().all(Site::admits),
        "nobody was without a lease at the end"
    );
}

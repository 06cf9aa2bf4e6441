//! Upstreams that are child processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_wire::upstream::{CallLimits, Cause, Effect, Outgoing, State, StdioConfig, Upstream, inherited_env};
use serde_json::{Value, json};

use crate::{call_of, drain, message, until};

fn peer(mode: &str) -> Upstream {
    peer_with(
        mode,
        CallLimits {
            answer_bytes_max: 256 << 10,
            ..CallLimits::default()
        },
    )
}

fn peer_with(mode: &str, limits: CallLimits) -> Upstream {
    let mut env: BTreeMap<String, String> = inherited_env();
    env.insert("PEER_SETTING".into(), "set".into());
    Upstream::stdio(StdioConfig {
        hidden: [].into(),
        program: env!("CARGO_BIN_EXE_wire-test-peer").into(),
        args: vec![mode.into()],
        env,
        cwd: None,
        limits,
        hears: None,
        idle_stop_ms: None,
        once: false,
    })
}

async fn text_of(upstream: &Upstream, tool: &str) -> String {
    let call = call_of("1", tool, None);
    let frames = drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
    frames.last().unwrap()["result"]["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_child_is_listed_page_by_page_as_it_was_sent() {
    let upstream = peer("legacy");
    assert_eq!(upstream.state(), State::Idle);
    let lists = upstream.lists().await.unwrap();
    let tools: Value = serde_json::from_str(&lists.tools).unwrap();
    assert_eq!(tools[0]["name"], "echo");
    assert_eq!(tools[1]["name"], "progress");
    assert_eq!((lists.prompts.as_str(), lists.resources.as_str()), ("[]", "[]"));
    assert_eq!(upstream.state(), State::Running);
    upstream.ping().await.unwrap();
    upstream.close().await;
    assert_eq!(upstream.state(), State::Stopped);
}

#[tokio::test]
async fn forty_callers_with_the_same_id_each_get_their_own_answer_and_progress_in_order() {
    let upstream = peer("legacy");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40 {
        let upstream = upstream.clone();
        callers.spawn(async move {
            let token = format!("\"token-{caller}\"");
            let call = call_of("7", "progress", Some(&token));
            let frames = drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
            assert_eq!(frames.len(), 21);
            for (step, frame) in frames[..20].iter().enumerate() {
                assert_eq!(
                    frame["params"],
                    json!({"progressToken": format!("token-{caller}"), "progress": step})
                );
            }
            assert_eq!(frames[20]["id"], 7);
            assert_eq!(frames[20]["result"]["content"][0]["text"], "done");
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

#[tokio::test]
async fn a_tool_is_renamed_and_its_arguments_left_alone() {
    let upstream = peer("legacy");
    let call = message(
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"tools/call\",\n\"params\":{\"name\":\"git__echo\",\"arguments\":{\"id\": 1.50,\"name\":\"n\"}}}",
    );
    let outgoing = Outgoing {
        name: Some("echo"),
        ..Outgoing::new(&call)
    };
    let frames = drain(upstream.call(outgoing).await.unwrap()).await.unwrap();
    let sent: Value = serde_json::from_str(frames[0]["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(sent, json!({"name": "echo", "arguments": {"id": 1.5, "name": "n"}}));
    assert_eq!(frames[0]["id"], "x");
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_child() {
    let upstream = peer("legacy");
    let call = call_of("1", "hang", None);
    let frames = upstream.call(Outgoing::new(&call)).await.unwrap();
    drop(frames);
    until("the child heard of it", || async {
        let heard: Vec<u64> = serde_json::from_str(&text_of(&upstream, "cancelled").await).unwrap();
        (heard.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_child_runs_into_the_deadline() {
    let upstream = peer_with(
        "legacy",
        CallLimits {
            idle_ms: 100,
            ..CallLimits::default()
        },
    );
    let call = call_of("1", "hang", None);
    let error = drain(upstream.call(Outgoing::new(&call)).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!((error.cause, error.effect), (Cause::Deadline(100), Effect::Possible));
}

#[tokio::test]
async fn a_wait_that_is_given_up_does_not_put_the_deadline_off() {
    let limits = CallLimits {
        idle_ms: 100,
        ..CallLimits::default()
    };
    let upstream = peer_with("legacy", limits);
    let call = call_of("1", "hang", None);
    let mut frames = upstream.call(Outgoing::new(&call)).await.unwrap();
    let looked = async {
        loop {
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(20), frames.next()).await {
                return next.unwrap_err();
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(10), looked).await.unwrap();
    assert_eq!(error.cause, Cause::Deadline(100));
}

#[tokio::test]
async fn a_child_that_dies_fails_its_calls_and_comes_back() {
    let upstream = peer("legacy");
    let hanging = call_of("1", "hang", None);
    let hanging = upstream.call(Outgoing::new(&hanging)).await.unwrap();
    let call = call_of("2", "die", None);
    let error = drain(upstream.call(Outgoing::new(&call)).await.unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error.cause, Cause::Closed(_)), "{error:?}");
    assert_eq!(drain(hanging).await.unwrap_err().effect, Effect::Possible);
    until("it is back", || async { upstream.ping().await.ok() }).await;
    assert!(upstream.stderr_tail().contains(&"going down".to_owned()));
}

#[tokio::test]
async fn a_child_that_cannot_start_fails_at_once_and_says_why() {
    let upstream = peer("crash");
    let error = upstream.open().await.map(drop).unwrap_err();
    assert_eq!(error.effect, Effect::None);
    until("the state names the last words", || async {
        matches!(upstream.state(), State::BackingOff { reason } if reason.contains("starting in mode crash"))
            .then_some(())
    })
    .await;
    let missing = Upstream::stdio(StdioConfig {
        hidden: [].into(),
        program: "/no/such/program".into(),
        args: vec![],
        env: BTreeMap::new(),
        cwd: None,
        limits: CallLimits::default(),
        hears: None,
        idle_stop_ms: None,
        once: false,
    });
    let error = missing.open().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn rubbish_belongs_to_nobody_and_a_flood_ends_the_child() {
    let upstream = peer("legacy");
    assert_eq!(text_of(&upstream, "rubbish").await, "after rubbish");
    let call = call_of("2", "flood", None);
    let error = drain(upstream.call(Outgoing::new(&call)).await.unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error.cause, Cause::Closed(_)), "{error:?}");
    until("it is back", || async { upstream.ping().await.ok() }).await;
}

#[tokio::test]
async fn a_list_change_is_counted() {
    let upstream = peer("legacy");
    let changes = upstream.changes();
    assert_eq!(text_of(&upstream, "changed").await, "changed");
    until("the change is counted", || async {
        (*changes.borrow() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_child_sees_no_more_of_the_environment_than_it_is_given() {
    let upstream = peer("legacy");
    let env: BTreeMap<String, String> = serde_json::from_str(&text_of(&upstream, "env").await).unwrap();
    assert_eq!(env.get("PEER_SETTING").map(String::as_str), Some("set"));
    assert!(!env.keys().any(|name| name.starts_with("CARGO")), "{env:?}");
}

#[tokio::test]
async fn requests_of_the_child_are_answered() {
    let upstream = peer("legacy");
    assert_eq!(text_of(&upstream, "ask").await, "asked");
    let answers = until("both answers are there", || async {
        let answers: Vec<Value> = serde_json::from_str(&text_of(&upstream, "answers").await).unwrap();
        (answers.len() == 2).then_some(answers)
    })
    .await;
    let to = |id: &str| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!(to("s1")["error"]["code"], -32601);
    assert_eq!(to("s2")["result"], json!({}));
}

#[tokio::test]
async fn a_modern_child_is_discovered_and_gets_its_meta() {
    let upstream = peer("modern");
    let opened = upstream.open().await.unwrap();
    assert_eq!(opened.revision.as_str(), "2026-07-28");
    let call = call_of("1", "echo", None);
    let frames = drain(upstream.call(Outgoing::new(&call)).await.unwrap()).await.unwrap();
    let sent: Value = serde_json::from_str(frames[0]["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(sent["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
}

#[tokio::test]
async fn what_is_hidden_is_taken_out_of_last_words_and_reasons() {
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let hearing = heard.clone();
    let upstream = Upstream::stdio(StdioConfig {
        hidden: ["canary-1".to_owned(), "canary-2".to_owned()].into(),
        program: env!("CARGO_BIN_EXE_wire-test-peer").into(),
        args: ["crash", "--key=canary-1", "canary-2"].map(str::to_owned).into(),
        env: BTreeMap::new(),
        cwd: None,
        limits: CallLimits::default(),
        hears: Some(Arc::new(move |line| hearing.lock().unwrap().push(line.to_owned()))),
        idle_stop_ms: None,
        once: false,
    });
    upstream.open().await.map(drop).unwrap_err();
    let reason = until("it backs off", || async {
        match upstream.state() {
            State::BackingOff { reason } if reason.contains("last words") => Some(reason),
            _ => None,
        }
    })
    .await;
    assert!(reason.contains("starting in mode crash --key=*** ***"), "{reason}");
    assert!(!upstream.stderr_tail().concat().contains("canary"));
    let heard = heard.lock().unwrap().concat();
    assert!(
        heard.contains("starting in mode crash") && !heard.contains("canary"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_child_that_does_not_leave_is_told_before_it_is_killed() {
    // It does not mind that its input ends. Who is told can still take others along; who is killed cannot.
    let script = r#"trap 'echo told >&2; exit 0' TERM; echo ready >&2; while :; do sleep 0.05; done"#;
    let upstream = Upstream::stdio(StdioConfig {
        hidden: [].into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: inherited_env(),
        cwd: None,
        limits: CallLimits {
            handshake_ms: 20_000,
            ..CallLimits::default()
        },
        hears: None,
        idle_stop_ms: None,
        once: false,
    });
    let opening = upstream.open();
    let ready = until("it runs", || async {
        upstream.stderr_tail().contains(&"ready".to_owned()).then_some(())
    });
    tokio::select! {
        _ = opening => panic!("it says nothing"),
        () = ready => {}
    }
    upstream.close().await;
    let tail = upstream.stderr_tail();
    assert!(tail.contains(&"told".to_owned()), "{tail:?}");
}

/// A child that is stopped when nobody has used it for this long.
fn brief(mode: &str, idle_stop_ms: u64) -> Upstream {
    Upstream::stdio(StdioConfig {
        hidden: [].into(),
        program: env!("CARGO_BIN_EXE_wire-test-peer").into(),
        args: vec![mode.into()],
        env: inherited_env(),
        cwd: None,
        limits: CallLimits::default(),
        hears: None,
        idle_stop_ms: Some(idle_stop_ms),
        once: false,
    })
}

/// The processes that have served so far, the oldest first.
fn pids(upstream: &Upstream) -> Vec<i32> {
    let tail = upstream.stderr_tail();
    let pids = tail.iter().filter_map(|line| line.strip_prefix("pid "));
    pids.map(|pid| pid.parse().unwrap()).collect()
}

async fn pids_after(upstream: &Upstream, starts: usize) -> Vec<i32> {
    until("every start has said its pid", || async {
        Some(pids(upstream)).filter(|pids| pids.len() >= starts)
    })
    .await
}

async fn sleeps(upstream: &Upstream) {
    until("it is stopped", || async { upstream.sleeps().then_some(()) }).await;
}

fn is_gone(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_err()
}

#[tokio::test]
async fn a_child_that_nobody_uses_is_stopped_and_starts_with_the_next_call() {
    let upstream = brief("legacy", 100);
    assert!(!upstream.sleeps(), "one that was never started does not sleep");
    text_of(&upstream, "echo").await;
    let first = pids_after(&upstream, 1).await;
    sleeps(&upstream).await;
    assert_eq!(upstream.state(), State::Idle);
    until("its process has ended", || async { is_gone(first[0]).then_some(()) }).await;
    text_of(&upstream, "echo").await;
    let both = pids_after(&upstream, 2).await;
    assert_ne!(both[0], both[1]);
    sleeps(&upstream).await;
}

#[tokio::test]
async fn a_call_that_comes_while_the_child_is_being_stopped_is_answered_by_the_next() {
    // So brief that it is stopped all the time, also while a call is on its way to it.
    let upstream = brief("legacy", 4);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let upstream = upstream.clone();
        calls.spawn(async move {
            for round in 0_u64..12 {
                text_of(&upstream, "echo").await;
                tokio::time::sleep(Duration::from_millis(round)).await;
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    sleeps(&upstream).await;
    assert!(pids(&upstream).len() > 1, "it was never stopped");
}

#[tokio::test]
async fn open_calls_and_watched_resources_keep_a_child_and_probes_do_not() {
    let (calling, watching, probed) = (brief("legacy", 50), brief("resources", 50), brief("legacy", 50));
    let hang = call_of("1", "hang", None);
    let hanging = calling.call(Outgoing::new(&hang)).await.unwrap();
    let watch = watching.watch("note://1").await.unwrap();
    // Whoever is only probed is stopped three times over meanwhile.
    for starts in 1..=3 {
        probed.ping().await.unwrap();
        pids_after(&probed, starts).await;
        until("probes do not keep it", || async {
            if probed.sleeps() {
                return Some(());
            }
            if matches!(probed.state(), State::Running) {
                probed.ping().await.unwrap();
            }
            None
        })
        .await;
    }
    assert_eq!((calling.state(), pids(&calling).len()), (State::Running, 1));
    assert_eq!((watching.state(), pids(&watching).len()), (State::Running, 1));
    drop((hanging, watch));
    sleeps(&watching).await;
}

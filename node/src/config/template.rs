//! The file that `init`, `join` and `dev` write. What is as usual stands there as a comment.

use std::fmt::Write;

use mcp_model::limits::{ProjectLimits, Quota};
use mcp_model::timers::Timers;
use mcp_raft::DiskLimits;
use toml::Value;

use super::{API_PORT, Config, GATEWAY_PORT, Listener, LogLimits, PEER_PORT, QUOTA_KEYS, Tls, UpstreamAddresses};

/// What stands in the file where nothing is set: an example.
const USUAL_CONNECTIONS: &str = "1000";

pub(super) fn render(config: &Config) -> String {
    let mut out = String::new();
    let name = text(config.name.as_str());
    let dir = text(&config.data_dir.display().to_string());
    let head = format!(
        "# One node of an mcpnode cluster. Environment variables win over this file (MCPNODE_API_LISTEN is api.listen), and\n\
         # flags over both. A key that does not exist is an error, and so is a value out of its range.\n\n\
         # What people call this node.\nname = {name}\n\n\
         # Its data: identity, certificates, data key, log, state, audit. For its owner's eyes only.\ndata_dir = {dir}\n"
    );
    out.push_str(&head);
    out.push_str("\n# MCP, for AI clients: /projects/<project>/mcp\n[gateway]\n");
    listener(&mut out, &config.gateway, GATEWAY_PORT);
    out.push_str("\n# The API, for mcpctl\n[api]\n");
    listener(&mut out, &config.api, API_PORT);
    out.push_str("\n# The other nodes: always mutual TLS under the cluster's own authority\n[peers]\n");
    setting(
        &mut out,
        "Where it binds. Loopback unless told otherwise.",
        "listen",
        text(&config.peers.listen.to_string()),
        text(&format!("127.0.0.1:{PEER_PORT}")),
    );
    let address = text(&config.peers.address());
    let usual = if config.peers.advertise.is_some() {
        String::new()
    } else {
        address.clone()
    };
    setting(
        &mut out,
        "What the other nodes connect to, HOST:PORT.",
        "advertise",
        address,
        usual,
    );
    timers(&mut out, &config.timers);
    disk(&mut out, &config.disk);
    log(&mut out, &config.log);
    upstreams(&mut out, &config.upstreams);
    quotas(&mut out, &config.quotas);
    out
}

fn listener(out: &mut String, listener: &Listener, port: u16) {
    setting(
        out,
        "Where it binds. Loopback unless told otherwise.",
        "listen",
        text(&listener.listen.to_string()),
        text(&format!("127.0.0.1:{port}")),
    );
    let own = listener.url.as_deref().unwrap_or("https://gate.example");
    let usual = if listener.url.is_some() { "" } else { own };
    setting(
        out,
        "What clients call it, if not by its address: http(s)://HOST[:PORT].",
        "url",
        text(own),
        if usual.is_empty() { String::new() } else { text(usual) },
    );
    let (mode, files) = match &listener.tls {
        Tls::Auto => ("auto", None),
        Tls::Files { cert, key } => ("files", Some((cert, key))),
        Tls::Off => ("off", None),
    };
    setting(
        out,
        "auto: a certificate of the cluster's authority (ca.crt), renewed by the node. files: yours, read again when it\n\
         # changes. off: plain HTTP, only behind something that terminates TLS.",
        "tls",
        text(mode),
        text("auto"),
    );
    if let Some((cert, key)) = files {
        setting(
            out,
            "With tls = \"files\", PEM.",
            "cert_file",
            text(&cert.display().to_string()),
            String::new(),
        );
        setting(out, "", "key_file", text(&key.display().to_string()), String::new());
    }
    setting(
        out,
        "Host names that are answered beside loopback names, the address above and the URL's host. Too many invite DNS\n\
         # rebinding; \"*\" is for a listener behind something that checks.",
        "allowed_hosts",
        list(&listener.allowed_hosts),
        list::<&str>(&[]),
    );
    setting(
        out,
        "Web pages that may call, as origins. None is the safe value.",
        "allowed_origins",
        list(&listener.allowed_origins),
        list::<&str>(&[]),
    );
    setting(
        out,
        "Proxies whose X-Forwarded-For is believed, as addresses or networks. None is the safe value.",
        "trusted_proxies",
        list(&listener.trusted_proxies),
        list::<&str>(&[]),
    );
    let (max, usual) = match listener.connections_max {
        Some(max) => (max.to_string(), String::new()),
        None => (USUAL_CONNECTIONS.to_owned(), USUAL_CONNECTIONS.to_owned()),
    };
    setting(
        out,
        "Connections at most, 16 to 1000000; one address gets a quarter of them, a trusted proxy all. Unless told otherwise as\n\
         # many as the limit on open files allows, up to 10000 of the gateway and 1000 of the API.",
        "connections_max",
        max,
        usual,
    );
}

fn timers(out: &mut String, timers: &Timers) {
    out.push_str("\n# Leases and elections: the same on every node, and checked at start: a failover must fit into a lease\n[timers]\n");
    let usual = Timers::default();
    for (meaning, key, now, usual) in [
        (
            "How long a node may admit without the leader's word, ms: what a revoke waits for a dead node.",
            "lease_ms",
            timers.lease_ms,
            usual.lease_ms,
        ),
        (
            "How often it asks for it.",
            "renew_every_ms",
            timers.renew_every_ms,
            usual.renew_every_ms,
        ),
        (
            "Added to every wait for a lease to run out, ms. Too little is dangerous.",
            "margin_ms",
            timers.margin_ms,
            usual.margin_ms,
        ),
        (
            "How wrong the rate of a clock may be, parts per million. Too little is dangerous.",
            "rho_ppm",
            timers.rho_ppm,
            usual.rho_ppm,
        ),
        (
            "How often a leader is heard, ms.",
            "heartbeat_ms",
            timers.heartbeat_ms,
            usual.heartbeat_ms,
        ),
        (
            "Silence after which another is elected, ms.",
            "leader_silence_ms",
            timers.leader_silence_ms,
            usual.leader_silence_ms,
        ),
        (
            "Added to that at random, ms.",
            "jitter_ms",
            timers.jitter_ms,
            usual.jitter_ms,
        ),
        (
            "How long a round among the nodes takes at worst, ms.",
            "round_ms",
            timers.round_ms,
            usual.round_ms,
        ),
    ] {
        setting(out, meaning, key, now.to_string(), usual.to_string());
    }
}

fn disk(out: &mut String, disk: &DiskLimits) {
    out.push_str("\n# When this node's disk is no longer good enough: it then does not lead and is not ready, until it is again\n[disk]\n");
    let usual = DiskLimits::default();
    setting(
        out,
        "Longest flush of the raft log, ms, 10 to 30000. Well below a lease, or a slow disk holds everybody up.",
        "flush_ms_max",
        disk.flush_ms_max.to_string(),
        usual.flush_ms_max.to_string(),
    );
    setting(
        out,
        "Least free space where the data is, bytes, up to 1 TiB. Too little, and the disk is full before another node leads.",
        "free_bytes_min",
        disk.free_bytes_min.to_string(),
        usual.free_bytes_min.to_string(),
    );
}

fn log(out: &mut String, log: &LogLimits) {
    out.push_str("\n# How much of the raft log is kept, entries, 10 to 1000000\n[log]\n");
    let usual = LogLimits::default();
    setting(
        out,
        "Entries after which a snapshot is packed. More, and a restart carries out more of them again.",
        "snapshot_entries",
        log.snapshot_entries.to_string(),
        usual.snapshot_entries.to_string(),
    );
    setting(
        out,
        "Entries that stay behind it. Fewer, and a node that was away for a moment needs the whole snapshot.",
        "kept_entries",
        log.kept_entries.to_string(),
        usual.kept_entries.to_string(),
    );
    setting(
        out,
        "How often whoever leads has all replicas compare their states, s, 10 to 86400. Each comparison reads the whole state beside\n\
         # its work.",
        "compare_every_s",
        log.compare_every_s.to_string(),
        usual.compare_every_s.to_string(),
    );
}

fn upstreams(out: &mut String, upstreams: &UpstreamAddresses) {
    out.push_str("\n# Where MCP servers over HTTP may be: whoever may write a server reaches with it whatever this machine reaches\n[upstreams]\n");
    setting(
        out,
        "Whether they may have private addresses: 10.0.0.0/8, 192.168.0.0/16, loopback and the like. Link-local addresses and the\n\
         # metadata services of clouds are refused in any case.",
        "allow_private",
        upstreams.allow_private.to_string(),
        "false".to_owned(),
    );
    setting(
        out,
        "Private networks that are allowed all the same.",
        "allowed_networks",
        list(&upstreams.allowed_networks),
        list::<&str>(&[]),
    );
}

/// What stands in the file where nothing is set: an example.
const USUAL_QUOTA: u32 = 100;

fn quotas(out: &mut String, quotas: &ProjectLimits) {
    out.push_str("\n# What each token, and each project with all of its tokens, may use of this node, where the project's own limits say nothing else.\n# Nodes count each for itself. What is beyond gets 429 with Retry-After. 1 to 1000000; without a number there is no limit.\n[quotas]\n");
    let usual = mcp_gateway::limits::Limits::default().quotas;
    for (of, now, usual) in [
        ("token", &quotas.token, &usual.token),
        ("project", &quotas.project, &usual.project),
    ] {
        let values = |quota: &Quota| [quota.rate, quota.requests, quota.streams, quota.sessions];
        for ((key, now), usual) in QUOTA_KEYS.iter().zip(values(now)).zip(values(usual)) {
            let shown = |value: Option<u32>| value.unwrap_or(USUAL_QUOTA).to_string();
            let usual = if now == usual { shown(now) } else { String::new() };
            setting(out, "", &format!("{of}_{key}"), shown(now), usual);
        }
    }
    let seconds = |quotas: &ProjectLimits| (quotas.session_idle_ms.unwrap_or(0) / 1_000).to_string();
    setting(
        out,
        "How long a session may be idle before it ends, s, 60 to 604800.",
        "session_idle_s",
        seconds(quotas),
        seconds(&usual),
    );
}

/// One key under its meaning; commented out if it says what is so anyway.
fn setting(out: &mut String, meaning: &str, key: &str, value: String, usual: String) {
    let comment = if value == usual { "# " } else { "" };
    let meaning = if meaning.is_empty() {
        String::new()
    } else {
        format!("# {meaning}\n")
    };
    writeln!(out, "{meaning}{comment}{key} = {value}").expect("a text takes text");
}

fn text(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn list<T: ToString>(all: &[T]) -> String {
    Value::Array(all.iter().map(|one| Value::String(one.to_string())).collect()).to_string()
}

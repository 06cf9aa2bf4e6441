//! The lines of the original, as its users wrote them, in a shell, against a real cluster with a gateway.
//!
//! `begin_session` and `console` come with gated sessions and the console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a cluster may take to come up on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The original's lines, word for word: what [`LINES`] must run.
const VERBATIM: &[&str] = &[
    "mcpctl create rbac developers --subject User:alice@test.com \\\n  --roleBindings role:edit,resource:servers --roleBindings \
     role:view,resource:servers,name:my-ha --roleBindings action:logs",
    "mcpctl create project vllm --force",
    "TOK=$(mcpctl create mcptoken vllm-token --project vllm --rbac clone | grep mcpctl_pat_)",
    "mcpctl create mcptoken ci -p vllm --bind role:view,resource:servers --ttl 30d --description \"...\" --force",
    "mcpctl get mcptokens",
    "mcpctl get mcptoken ci -p vllm; mcpctl describe mcptoken ci -p vllm; mcpctl delete mcptoken ci -p vllm",
    "mcpctl apply -f file.yaml",
    "mcpctl get project vllm -o yaml | mcpctl apply -f -",
    // Another tool: `begin_session` comes with gated sessions. And `mcpctl console --audit` with the console.
    "mcpctl test mcp https://host/projects/vllm/mcp --expect-tools echo",
    "mcpctl test mcp https://host/projects/vllm/mcp --tool echo --args '{\"message\":\"hi\"}' --timeout 10 -o json --no-health",
    "mcpctl completion bash",
];

/// What the lines need around them stands between; the lines themselves are the original's, but for the address.
const LINES: &str = r#"
cat > file.yaml <<'YAML'
kind: user
metadata: {name: alice@test.com}
spec: {name: Alice}
---
apiVersion: mcpctl/v1
kind: project
metadata: {name: files}
spec: {description: local inference, servers: [git, time], gated: true, toolNaming: prefixed}
---
kind: server
metadata: {name: git}
spec: {transport: stdio, command: mcp-server-git, args: [--repository, /srv/repo], env: {TOKEN: secret}}
---
kind: server
name: time
transport: stdio
command: mcp-server-time
---
kind: rbac
metadata: {name: from-file}
spec:
  subjects: [{kind: User, name: alice@test.com}]
  roleBindings: [{role: edit, resource: servers}, {role: view, resource: servers, name: my-ha}, {action: logs}]
---
kind: mcptoken
metadata: {name: ci}
spec: {project: files, rbac: clone, ttl: 30d, description: nightly}
YAML

mcpctl create rbac developers --subject User:alice@test.com \
  --roleBindings role:edit,resource:servers --roleBindings role:view,resource:servers,name:my-ha --roleBindings action:logs
mcpctl create project vllm --force
mcpctl create project vllm --force
TOK=$(mcpctl create mcptoken vllm-token --project vllm --rbac clone | grep mcpctl_pat_)
[[ "$TOK" =~ ^mcpctl_pat_[0-9A-Za-z]{43}$ ]]
mcpctl create mcptoken ci -p vllm --bind role:view,resource:servers --ttl 30d --description "..." --force
mcpctl create mcptoken ci -p vllm --bind role:view,resource:servers --ttl 30d --description "..." --force
mcpctl get mcptokens
mcpctl get mcptokens | head -1 | grep -Ex 'NAME +PROJECT +PREFIX +CREATED +LAST USED +EXPIRES +STATUS'
mcpctl get mcptoken ci -p vllm; mcpctl describe mcptoken ci -p vllm; mcpctl delete mcptoken ci -p vllm
mcpctl apply -f file.yaml
mcpctl apply -f file.yaml | grep -Fx 'mcptoken/files/ci already active - skipped'
mcpctl get project vllm -o yaml | mcpctl apply -f -
mcpctl get project vllm -o yaml | mcpctl apply -f - | grep -Fx 'project/vllm unchanged'

mcpctl create project vllm --force --server demo --tool-naming plain
export MCPCTL_TOKEN=$TOK
mcpctl test mcp https://host/projects/vllm/mcp --expect-tools echo
mcpctl test mcp https://host/projects/vllm/mcp --tool echo --args '{"message":"hi"}' --timeout 10 -o json --no-health
code=0; mcpctl test mcp https://host/projects/vllm/mcp --expect-tools nothing-of-that-name || code=$?; [ $code = 2 ]
code=0; MCPCTL_TOKEN=${TOK%?}x mcpctl test mcp https://host/projects/vllm/mcp || code=$?; [ $code = 1 ]
mcpctl completion bash
mcpctl completion bash > script.bash && bash -n script.bash

code=0; mcpctl create rbac old --subject User:alice@test.com --binding edit:servers --operation logs 2> old || code=$?
[ $code = 2 ] && grep -F -- '--roleBindings role:edit,resource:servers --roleBindings action:logs' old
mcpctl revoke mcptoken vllm-token -p vllm
code=0; mcpctl test mcp https://host/projects/vllm/mcp || code=$?; [ $code = 1 ]
"#;

/// The cluster; it ends with its test.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // The replicas live in this process: they end with it.
        self.0.kill().unwrap_or(());
        if let Err(error) = self.0.wait() {
            eprintln!("mcpnode dev cannot be waited for: {error}");
        }
    }
}

/// The node's program, beside this one; built if it is not there.
fn mcpnode() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mcpctl")).with_file_name("mcpnode");
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "-q", "-p", "mcpnode"])
            .status()
            .unwrap();
        assert!(built.success() && path.exists(), "mcpnode cannot be built");
    }
    path
}

fn start(dir: &Path) -> Dev {
    let ready = dir.join("ready");
    let log = fs::File::create(dir.join("dev.log")).unwrap();
    let mut command = Command::new(mcpnode());
    command
        .arg("dev")
        .args(["--replicas", "1"])
        .arg("--data-dir")
        .arg(dir.join("data"));
    command
        .arg("--env-file")
        .arg(dir.join("env"))
        .arg("--ready-file")
        .arg(&ready);
    let child = command
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut dev = Dev(child);
    let (_tx, never) = std::sync::mpsc::channel::<()>();
    for _ in 0..LIMIT.as_millis() / LOOK_EVERY.as_millis() {
        if ready.exists() {
            return dev;
        }
        let ended = dev.0.try_wait().unwrap();
        assert!(ended.is_none(), "{}", fs::read_to_string(dir.join("dev.log")).unwrap());
        // Nothing is ever sent: this is a pause.
        assert!(never.recv_timeout(LOOK_EVERY).is_err());
    }
    panic!(
        "not ready within {LIMIT:?}: {}",
        fs::read_to_string(dir.join("dev.log")).unwrap()
    );
}

/// Each is a whole line of the script, which ends at the first that fails.
#[test]
fn no_line_of_the_original_is_left_out() {
    for line in VERBATIM {
        let run = LINES.match_indices(line).any(|(at, _)| {
            let (before, behind) = (&LINES[..at], &LINES[at + line.len()..]);
            before.ends_with('\n') && behind.starts_with('\n')
        });
        assert!(run, "not run as it stands: {line}");
    }
}

#[test]
fn the_lines_of_the_original_work_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let _dev = start(dir.path());
    let own = Path::new(env!("CARGO_BIN_EXE_mcpctl")).parent().unwrap();
    let script = format!(
        "set -euo pipefail\n. ./env\ngateway=${{MCP_URLS%% *}}; gateway=${{gateway%/projects/*}}\n{}",
        LINES.replace("https://host/", "$gateway/")
    );
    let done = Command::new("bash")
        .args(["-x", "-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", own.display()))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{}\n{out}\n{err}", done.status);
    for line in [
        "rbac \"developers\" created",
        "project \"vllm\" created",
        "project \"vllm\" updated",
        "mcptoken \"ci\" deleted",
        "server/git created",
        "project/files created",
        "mcptoken/files/ci created",
    ] {
        assert!(
            out.lines().any(|l| l.starts_with(line)),
            "{line} is not in\n{out}\n{err}"
        );
    }
    assert!(err.contains("copy it now"), "{err}");
}

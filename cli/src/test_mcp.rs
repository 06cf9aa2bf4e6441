//! `mcpctl test mcp`: is there an MCP server, does it take the token, does it keep the contract?

use std::sync::Arc;

use mcp_wire::client::{Client, ClientError};
use rustls::ClientConfig;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Global, Report as Style, TestMcpArgs};
use crate::clock;
use crate::failure::{Exit, Failure};
use crate::out;
use crate::show::{self, printable};

/// Longest part of a tool's answer that is shown in a line, in characters.
const SHOWN_CHARS: usize = 200;

/// What was found out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    url: String,
    ok: bool,
    exit_code: u8,
    steps: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_tools: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// One step of the way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    name: String,
    ok: bool,
    detail: String,
    duration_ms: u64,
}

/// A step that failed: nothing after it makes sense. With what the user can do about it.
struct Stop(Exit, String);

struct Run<'a> {
    args: &'a TestMcpArgs,
    report: Report,
}

pub(crate) async fn test_mcp(global: &Global, args: &TestMcpArgs) -> Result<Exit, Failure> {
    let mut run = Run {
        args,
        report: Report {
            url: args.url.clone(),
            ok: false,
            exit_code: 0,
            steps: Vec::new(),
            tools: None,
            missing_tools: Vec::new(),
            result: None,
        },
    };
    let tls = tls(global).map_err(|failure| failure.with_exit(Exit::TestUsage))?;
    let done = run.all(tls).await;
    let exit = done.as_ref().err().map_or(Exit::Done, |Stop(exit, _)| *exit);
    run.report.ok = exit == Exit::Done;
    run.report.exit_code = exit.code();
    match args.output {
        Style::Json => show::json(&run.report)?,
        Style::Text => run.print(),
    }
    let Err(Stop(exit, next)) = done else {
        return Ok(Exit::Done);
    };
    let failed = run.report.steps.last();
    let (step, why) = failed.map_or(("", ""), |step| (step.name.as_str(), step.detail.as_str()));
    Err(Failure::new(format!("{} does not pass: {step}", args.url), why)
        .next(next)
        .with_exit(exit))
}

fn tls(global: &Global) -> Result<Arc<ClientConfig>, Failure> {
    let extra = match &global.cacert {
        Some(file) => mcp_wire::tls::read_certificates(file)
            .map_err(|why| Failure::usage("cannot read the certificates to trust", why).next(crate::api::SEE_CONFIG))?,
        // The authority of the cluster that one is logged in to. Without it, one more endpoint is not trusted: no reason to stop.
        None => crate::settings::context_cacert(global)
            .and_then(|file| mcp_wire::tls::read_certificates(&file).ok())
            .unwrap_or_default(),
    };
    Ok(mcp_wire::tls::client_config(&extra))
}

impl Run<'_> {
    async fn all(&mut self, tls: Arc<ClientConfig>) -> Result<(), Stop> {
        let timeout_ms = self.args.timeout * 1_000;
        if !self.args.no_health {
            self.health(&tls, timeout_ms).await?;
        }
        let arguments = self.arguments()?;
        let token = self.args.token.as_deref().unwrap_or_default();
        let began = clock::steady_ms();
        let client = match Client::new(tls, &self.args.url, token, timeout_ms) {
            Ok(client) => client,
            Err(error) => return self.stop("initialize", began, &error),
        };
        let done = self.talk(&client, arguments).await;
        client.close().await;
        done
    }

    async fn health(&mut self, tls: &Arc<ClientConfig>, timeout_ms: u64) -> Result<(), Stop> {
        let began = clock::steady_ms();
        let url = health_url(&self.args.url);
        match mcp_wire::client::get(tls.clone(), &url, timeout_ms).await {
            Ok((status, _)) if status.is_success() => {
                self.step("health", true, url, began);
                Ok(())
            }
            Ok((status, _)) => {
                let why = format!("{url}: HTTP status {status} (--no-health skips this step)");
                let next = format!("curl -i {url}");
                self.step("health", false, why, began);
                Err(Stop(Exit::Error, next))
            }
            Err(error) => self.stop("health", began, &error),
        }
    }

    fn arguments(&mut self) -> Result<Value, Stop> {
        let Some(text) = &self.args.args else {
            return Ok(serde_json::json!({}));
        };
        let began = clock::steady_ms();
        let why = match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_object() => return Ok(value),
            Ok(_) => "--args is not a JSON object".to_owned(),
            Err(error) => format!("--args is not JSON: {error}"),
        };
        self.step("arguments", false, why, began);
        let next = "mcpctl test mcp URL --tool TOOL --args '{\"name\":\"value\"}'";
        Err(Stop(Exit::Contract, next.to_owned()))
    }

    async fn talk(&mut self, client: &Client, arguments: Value) -> Result<(), Stop> {
        let began = clock::steady_ms();
        match client.initialize().await {
            Ok(greeting) => {
                let text = |key: &str| greeting.server_info[key].as_str().unwrap_or("?").to_owned();
                let detail = format!(
                    "{} {} (MCP {})",
                    text("name"),
                    text("version"),
                    greeting.protocol_version
                );
                self.step("initialize", true, detail, began);
            }
            Err(error) => return self.stop("initialize", began, &error),
        }
        let began = clock::steady_ms();
        let tools: Vec<String> = match client.tools().await {
            Ok(tools) => tools.into_iter().map(|t| t.name).collect(),
            Err(error) => return self.stop("tools/list", began, &error),
        };
        self.step(
            "tools/list",
            true,
            format!("{} tools: {}", tools.len(), tools.join(", ")),
            began,
        );
        self.expect(&tools)?;
        self.report.tools = Some(tools);
        match self.args.tool.clone() {
            Some(tool) => self.call(client, &tool, arguments).await,
            None => Ok(()),
        }
    }

    fn expect(&mut self, tools: &[String]) -> Result<(), Stop> {
        let expected: Vec<&String> = self.args.expect_tools.iter().filter(|t| !t.is_empty()).collect();
        if expected.is_empty() {
            return Ok(());
        }
        let began = clock::steady_ms();
        let missing: Vec<String> = expected
            .iter()
            .filter(|t| !tools.contains(t))
            .map(|t| (*t).clone())
            .collect();
        if missing.is_empty() {
            self.step(
                "expected tools",
                true,
                format!("all {} are there", expected.len()),
                began,
            );
            return Ok(());
        }
        self.step(
            "expected tools",
            false,
            format!("missing: {}", missing.join(", ")),
            began,
        );
        self.report.missing_tools = missing;
        self.report.tools = Some(tools.to_vec());
        let next = "mcpctl get tools (is the server healthy and attached, and may the token see it?)";
        Err(Stop(Exit::Contract, next.to_owned()))
    }

    async fn call(&mut self, client: &Client, tool: &str, arguments: Value) -> Result<(), Stop> {
        let (began, name) = (clock::steady_ms(), format!("call {tool}"));
        let called = match client.call(tool, &arguments).await {
            Ok(called) => called,
            Err(error) => return self.stop(&name, began, &error),
        };
        let said = shown(&called.result);
        let detail = if called.is_error {
            format!("isError: {said}")
        } else {
            said
        };
        self.step(&name, !called.is_error, detail, began);
        self.report.result = Some(called.result);
        if called.is_error {
            let next = "mcpctl describe tool SERVER/TOOL (do the arguments fit its schema?)";
            Err(Stop(Exit::Contract, next.to_owned()))
        } else {
            Ok(())
        }
    }

    fn step(&mut self, name: &str, ok: bool, detail: String, began_ms: u64) {
        let duration_ms = clock::steady_ms().saturating_sub(began_ms);
        self.report.steps.push(Step {
            name: name.to_owned(),
            ok,
            detail,
            duration_ms,
        });
    }

    fn stop(&mut self, name: &str, began_ms: u64, error: &ClientError) -> Result<(), Stop> {
        let (exit, detail, next) = match error {
            ClientError::Transport(why) => (
                Exit::Error,
                format!("transport: {why}"),
                format!("curl -v {}", health_url(&self.args.url)),
            ),
            ClientError::Auth { .. } if self.args.token.is_none() => (
                Exit::Error,
                format!("authentication: {error} (no token was given: set MCPCTL_TOKEN)"),
                "export MCPCTL_TOKEN=$(mcpctl create mcptoken NAME -p PROJECT --rbac clone)".to_owned(),
            ),
            ClientError::Auth { .. } => (
                Exit::Error,
                format!("authentication: {error}"),
                "mcpctl get mcptokens (is it active, and of this project?)".to_owned(),
            ),
            ClientError::Contract(why) => (
                Exit::Contract,
                format!("contract: {why}"),
                "read the log of that server: its answer breaks the protocol".to_owned(),
            ),
        };
        self.step(name, false, detail, began_ms);
        Err(Stop(exit, next))
    }

    fn print(&self) {
        let width = self
            .report
            .steps
            .iter()
            .map(|s| s.name.chars().count())
            .max()
            .unwrap_or(0);
        for step in &self.report.steps {
            let word = if step.ok { "ok  " } else { "FAIL" };
            out::line(&format!(
                "{word}  {:width$}  {}  ({} ms)",
                step.name,
                printable(&step.detail),
                step.duration_ms
            ));
        }
        out::line(if self.report.ok { "PASS" } else { "FAIL" });
    }
}

/// For the fuzzer: bytes as the URL of a server, and as the result of a tool, which is shown without commands to the terminal.
pub(crate) fn decode(bytes: &[u8]) {
    let _url = health_url(&String::from_utf8_lossy(bytes));
    if let Ok(result) = serde_json::from_slice(bytes) {
        assert!(!shown(&result).contains('\u{1b}'));
    }
}

/// `<base>/healthz`: the endpoint's URL up to the part that names the project.
fn health_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or(url).trim_end_matches('/');
    let base = match (url.find("/projects/"), url.strip_suffix("/mcp")) {
        (Some(at), _) => &url[..at],
        (None, Some(base)) => base,
        (None, None) => url,
    };
    format!("{base}/healthz")
}

/// The texts of a tool's answer, in short.
fn shown(result: &Value) -> String {
    let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = content.iter().filter_map(|c| c["text"].as_str()).collect();
    let text = if texts.is_empty() {
        result.to_string()
    } else {
        texts.join(" ")
    };
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_asked_beside_the_projects() {
        let cases = [
            ("https://h/projects/demo/mcp", "https://h/healthz"),
            ("https://h/gate/projects/demo/mcp?x=y", "https://h/gate/healthz"),
            ("http://h:1/mcp/", "http://h:1/healthz"),
            ("http://h:1", "http://h:1/healthz"),
        ];
        for (url, expected) in cases {
            assert_eq!(health_url(url), expected);
        }
    }
}

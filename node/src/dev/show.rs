//! What `dev` prints: talk on standard error, lines to paste on standard output.

use super::Handed;
use super::layout::Layout;

const RULE: &str = "========================================================================";

pub(super) fn starting(layout: &Layout, processes: bool) {
    let how = if processes {
        "processes"
    } else {
        "replicas in this process"
    };
    eprintln!("{RULE}");
    eprintln!("  mcpnode dev: {} {how}", layout.replicas.len());
    eprintln!("  FOR DEVELOPMENT ONLY: loopback, plain HTTP, secrets on disk in");
    eprintln!("  {}", layout.dir.display());
    eprintln!("{RULE}");
}

pub(super) fn ready(layout: &Layout, handed: &Handed, processes: bool) {
    let mut node = layout.replicas.iter().zip(&handed.pids);
    eprintln!("ready: every replica holds a lease\n");
    for (replica, pid) in &mut node {
        eprintln!(
            "  {}   API {}   MCP {}   pid {pid}",
            replica.name(),
            replica.api_url(),
            replica.gateway_url()
        );
    }
    eprintln!("\nPaste these lines into another terminal:\n");
    print!("{}", env_file(handed));
    eprintln!("\nThen, for example:\n");
    eprintln!("  mcpctl get mcptokens");
    eprintln!(
        "  mcpctl test mcp {} --tool echo --args '{{\"message\":\"hi\"}}'",
        handed.mcp_urls[0]
    );
    eprintln!("  mcpctl revoke mcptoken demo -p demo");
    if processes {
        eprintln!("\nKill or pause a replica by its pid; start it again with its line:\n");
        let program = std::env::current_exe().map_or_else(|_| "mcpnode".to_owned(), |p| p.display().to_string());
        for replica in &layout.replicas {
            eprintln!("  {program} serve --config {}", replica.config_file().display());
        }
    }
    eprintln!("\nCtrl-C stops the cluster.");
}

/// The lines to paste, which are also the file to source. Nothing in them needs quoting but the spaces between URLs.
pub(super) fn env_file(handed: &Handed) -> String {
    let pids: Vec<String> = handed.pids.iter().map(u32::to_string).collect();
    format!(
        "export MCPCTL_SERVER={}\nexport MCPCTL_SESSION={}\nexport MCP_URLS='{}'\nexport MCP_TOKEN={}\nexport MCPNODE_PIDS={}\n",
        handed.api_urls.join(","),
        handed.session,
        handed.mcp_urls.join(" "),
        handed.token,
        pids.join(",")
    )
}

//! `mcpctl test mcp` against good servers and bad ones.

use crate::mcp_server::{Flaw, TOKEN, router};
use crate::world::{Said, World, words};

fn check(world: &World, flaw: Flaw, token: &str, options: &str) -> Said {
    let url = world.serve(router(flaw));
    let line = words(&format!("test mcp {url}/projects/demo/mcp {options}"));
    world.run_with(&[("MCPCTL_TOKEN", token)], &line, "")
}

#[test]
fn a_good_server_passes_with_every_option() {
    let world = World::new();
    let said = check(&world, Flaw::None, TOKEN, "").done();
    assert!(
        said.out.contains("tools/list  2 tools: echo, fail") && said.out.ends_with("PASS\n"),
        "{said:?}"
    );
    let options = "--expect-tools echo,fail --tool echo --args '{\"message\":\"hi there\"}' --timeout 10";
    let said = check(&world, Flaw::None, TOKEN, options).done();
    assert!(said.out.contains("call echo       hi there"), "{said:?}");
    let said = check(&world, Flaw::None, TOKEN, &format!("{options} -o json --no-health")).done();
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (report["ok"].as_bool(), report["exitCode"].as_u64()),
        (Some(true), Some(0))
    );
    assert_eq!(report["tools"], serde_json::json!(["echo", "fail"]));
    assert_eq!(report["result"]["content"][0]["text"], "hi there");
    let steps: Vec<&str> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["initialize", "tools/list", "expected tools", "call echo"]);
    assert!(!said.out.contains(TOKEN));
}

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let world = World::new();
    let wrong = TOKEN.replace('0', "1");
    let cases = [
        (Flaw::None, wrong.as_str(), "", 1, "authentication: HTTP status 401"),
        (Flaw::Sick, TOKEN, "", 1, "HTTP status 503"),
        (Flaw::Sick, TOKEN, "--no-health", 0, "PASS"),
        (
            Flaw::None,
            TOKEN,
            "--expect-tools echo,begin_session",
            2,
            "missing: begin_session",
        ),
        (Flaw::None, TOKEN, "--tool fail", 2, "isError"),
        (Flaw::None, TOKEN, "--tool echo --args {", 2, "--args is not JSON"),
        (
            Flaw::None,
            TOKEN,
            "--tool echo --args []",
            2,
            "--args is not a JSON object",
        ),
        (Flaw::NoTools, TOKEN, "", 2, "contract: tools/list"),
        (Flaw::NotMcp, TOKEN, "", 2, "contract: "),
    ];
    for (flaw, token, options, code, words) in cases {
        let said = check(&world, flaw, token, options);
        assert_eq!(said.code, code, "{options}: {said:?}");
        assert!(said.out.contains(words), "{options}: {said:?}");
    }
}

#[test]
fn who_cannot_be_reached_is_a_transport_failure_and_a_slip_is_64() {
    let world = World::new();
    let (_listener, frozen) = world.frozen();
    for (line, code) in [
        ("test mcp http://127.0.0.1:1/projects/demo/mcp".to_owned(), 1),
        (
            "test mcp http://127.0.0.1:1/projects/demo/mcp --no-health".to_owned(),
            1,
        ),
        (format!("test mcp {frozen}/mcp --timeout 1"), 1),
        (format!("test mcp {frozen}/mcp --timeout 1 --no-health"), 1),
        ("test mcp".to_owned(), 64),
        ("test mcp http://x/ --colour".to_owned(), 64),
        ("test mcp http://x/ --args {}".to_owned(), 64),
        ("test mcp http://x/ --timeout soon".to_owned(), 64),
        ("test --colour".to_owned(), 64),
        ("test mpc".to_owned(), 64),
        ("test".to_owned(), 0),
    ] {
        let said = world.run_with(&[], &words(&line), "");
        assert_eq!(said.code, code, "{line}: {said:?}");
    }
    let said = world.run_with(&[], &words("test mcp http://127.0.0.1:1/projects/demo/mcp -o json"), "");
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (report["ok"].as_bool(), report["exitCode"].as_u64()),
        (Some(false), Some(1))
    );
}

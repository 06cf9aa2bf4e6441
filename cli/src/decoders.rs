//! What this package decodes, each as a function of bytes that anybody may have sent or written: none may panic. `tests/fuzz` runs
//! them, under libFuzzer and in `cargo test`.

use mcp_api::Problem;
use serde_json::Value;

use crate::config::Config;
use crate::jsonpath::Template;
use crate::kinds::{Kind, Target};
use crate::{api, manifest, test_mcp, wait};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 5] = [
    ("documents", documents),
    ("config", config),
    ("template", template),
    ("answer", answer),
    ("gateway", gateway),
];

/// Documents of `apply`: what is described is described the same when it is written out and read again.
fn documents(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    manifest::read_text("fuzz.yaml", &text, &mut all, &mut faults);
    for found in manifest::manifests(all, &mut faults) {
        let again = manifest::full(found.kind, &found.spec);
        assert!(again.is_object(), "{again}");
        assert!(!found.full_name().is_empty());
    }
    for fault in &faults {
        assert!(!fault.why.is_empty() && !fault.short().is_empty());
    }
}

/// The configuration file with its contexts.
fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(config) = yaml_serde::from_str::<Config>(&text) {
        let written = yaml_serde::to_string(&config).expect("a configuration is plain data");
        assert!(yaml_serde::from_str::<Config>(&written).is_ok(), "{written}");
    }
}

/// The first line is a template of `-o jsonpath=` or `wait --for`, or a kind; the rest what it is applied to.
fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, json) = text.split_once('\n').unwrap_or((&text, "{\"a\":[1]}"));
    let json: Value = serde_json::from_str(json).unwrap_or_default();
    if let Ok(template) = Template::parse(template) {
        let _shown = template.render(&json);
    }
    wait::decode(template);
    if let Ok(kind) = template.parse::<Kind>() {
        assert_eq!(kind.plural().parse(), Ok(kind));
    }
    let _target = Target::parse(template, &[]).is_ok();
}

/// What a gateway sends to a client.
fn gateway(bytes: &[u8]) {
    crate::mcp::decode(bytes);
}

/// What a node, or whoever listens there, answers.
fn answer(bytes: &[u8]) {
    if let Ok(problem) = serde_json::from_slice::<Problem>(bytes) {
        let _shown = crate::failure::Failure::of_problem("do it", &problem);
    }
    for status in [200, 201, 404, 500] {
        api::decode(status, bytes);
    }
    test_mcp::decode(bytes);
}

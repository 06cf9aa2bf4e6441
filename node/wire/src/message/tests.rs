use super::*;

fn read(text: &str) -> Result<Message, Refusal> {
    Message::read(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_call_is_read_once() {
    let call = read(
        r#" {"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"_meta":{"progressToken":7,
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},
        "io.modelcontextprotocol/logLevel":"info"},"name":"git__st\u0061tus","arguments":{"name":"x","a":[1,2]}}}"#,
    )
    .unwrap();
    assert_eq!(call.kind(), Kind::Request);
    assert_eq!(call.id(), Some(r#""a\"b""#));
    assert_eq!(call.method(), Some("tools/call"));
    assert_eq!(call.name(), Some("git__status"));
    assert_eq!(call.arguments(), Some(r#"{"name":"x","a":[1,2]}"#));
    assert_eq!(call.progress_token(), Some("7"));
    assert_eq!(call.meta_version(), Some("2026-07-28"));
    assert_eq!(call.meta_capabilities(), Some("{}"));
    assert_eq!(call.meta_log_level(), Some("info"));
}

#[test]
fn kinds_are_told_apart() {
    let rows = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            Kind::Notification,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Response),
        (
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
            Kind::Response,
        ),
        (r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#, Kind::Response),
    ];
    for (text, kind) in rows {
        assert_eq!(read(text).unwrap().kind(), kind, "{text}");
    }
}

#[test]
fn bad_input_is_refused_with_its_code() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}{}}}}}"#,
        "[".repeat(127),
        "]".repeat(127)
    );
    let rows: [(&str, i32); 27] = [
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x"} trailing"#, -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":01}}"#, -32700),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}"#,
            -32700,
        ),
        ("7", -32600),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"x"}]"#, -32600),
        (r#"{"id":1,"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","\u006dethod":"y"}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{},"params":{}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1.5}}}"#,
            -32600,
        ),
        (&deep, -32600),
    ];
    for (text, code) in rows {
        let refusal = read(text).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.status.as_u16()),
            (code, 400),
            "{text}: {refusal:?}"
        );
    }
    assert_eq!(
        Message::read(Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err().code,
        -32700
    );
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "a".repeat(2000));
    assert_eq!(read(&long).unwrap_err().code, -32600);
}

#[test]
fn depth_counts_brackets_outside_of_strings() {
    let shallow = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":"{}\"{}"}}}}"#,
        "[".repeat(300),
        "{".repeat(300)
    );
    assert!(read(&shallow).is_ok());
    let at_limit = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}{}}}}}"#,
        "[".repeat(126),
        "]".repeat(126)
    );
    assert!(read(&at_limit).is_ok());
}

#[test]
fn a_completion_is_about_what_its_reference_names() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"git__p"},"argument":{"name":"a","value":"b"}}}"#;
    assert_eq!(read(text).unwrap().name(), Some("git__p"));
    let doubled = text.replace(r#""name":"git__p""#, r#""name":"git__p","name":"x""#);
    assert_eq!(read(&doubled).unwrap_err().code, -32600);
}

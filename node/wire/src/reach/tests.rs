//! Addresses, and the many ways to write them.

use http::Uri;

use super::*;
use crate::connect::Connector;

fn allowed(reach: &Reach, address: &str) -> bool {
    reach.allows(address.parse().unwrap()).is_ok()
}

#[test]
fn public_addresses_are_allowed_private_ones_by_configuration_and_some_never() {
    let public = Reach::checked(false, Vec::new());
    let private = Reach::checked(true, Vec::new());
    let some = Reach::checked(
        false,
        vec!["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()],
    );
    for address in [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ] {
        assert!(allowed(&public, address), "{address}");
    }
    let inside = [
        "127.0.0.1",
        "127.255.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "::1",
        "fc00::1",
        "fd12::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "::ffff:127.0.0.1",
        "::ffff:0:127.0.0.1",
        "192.0.2.1",
        "2001:db8::1",
    ];
    for address in inside {
        assert!(!allowed(&public, address), "{address}");
        assert!(allowed(&private, address), "{address}");
    }
    let never = [
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "::ffff:0:0",
    ];
    for address in never {
        assert!(!allowed(&private, address), "{address}");
        let everything = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        assert!(!allowed(&Reach::checked(true, everything), address), "{address}");
    }
    for (address, expected) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.0.1", false),
        ("fd12::5", true),
        ("fd13::5", false),
    ] {
        assert_eq!(allowed(&some, address), expected, "{address}");
    }
    assert!(allowed(&Reach::anywhere(), "169.254.169.254"));
    let said = public.allows("10.0.0.1".parse().unwrap()).unwrap_err().to_string();
    assert!(
        said.contains("allow_private") && said.contains("allowed_networks"),
        "{said}"
    );
}

/// Sixty URLs of what only this machine, or its cloud, can see. Without the network: what the resolver does not know leads nowhere
/// either, but none of them may lead to a connection.
#[tokio::test]
async fn however_it_is_written_nothing_inside_is_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = [
        // Loopback, as a name and in every notation that a resolver takes.
        "127.0.0.1",
        "127.0.0.2",
        "127.1",
        "127.0.1",
        "127.000.000.001",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "0177.0.0.01",
        "017700000001",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost.localdomain",
        "ip6-localhost",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "user@127.0.0.1",
        "user:pass@localhost",
        "public.example@127.0.0.1",
        // No address of a host.
        "0.0.0.0",
        "0",
        "0.0",
        "[::]",
        "0x0",
        "00.00.00.00",
        // Link-local, and the metadata services of clouds.
        "169.254.169.254",
        "169.254.1.1",
        "169.254.43518",
        "169.16689662",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        // Private networks.
        "10.0.0.1",
        "10.1",
        "172.16.0.1",
        "192.168.0.1",
        "3232235521",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[::ffff:10.0.0.1]",
        "100.64.0.1",
        // And those of everybody.
        "224.0.0.1",
        "255.255.255.255",
        "[ff02::1]",
    ];
    assert!(hosts.len() >= 60, "{}", hosts.len());
    let mut connector = Connector::new(crate::tls::client_config(&[]), Reach::checked(false, Vec::new()));
    for host in hosts {
        let Ok(url) = format!("http://{host}:{port}/mcp").parse::<Uri>() else {
            continue;
        };
        let error = match connector.call(url).await {
            Ok(_) => panic!("{host}: connected"),
            Err(error) => error,
        };
        // Either it was refused for what it is, or no resolver takes it for an address.
        let refused =
            innermost(&*error).contains("is a private address") || innermost(&*error).contains("never connects");
        let resolver = [
            "localhost.",
            "localhost.localdomain",
            "ip6-localhost",
            "0x0",
            "0",
            "0.0",
        ]
        .contains(&host);
        assert!(refused || resolver, "{host}: {error:?}");
    }
    // The same port is there for whoever may.
    let mut open = Connector::new(crate::tls::client_config(&[]), Reach::checked(true, Vec::new()));
    for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"] {
        let url: Uri = format!("http://{host}:{port}/mcp").parse().unwrap();
        assert!(open.call(url).await.is_ok(), "{host}");
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

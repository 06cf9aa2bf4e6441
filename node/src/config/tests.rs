//! Settings: defaults, layers, and everything that is wrong with them.

use super::*;

fn layers(text: &str) -> Layers {
    Layers::of_text("/etc/mcpnode/mcpnode.toml".into(), text).unwrap()
}

fn faults(text: &str, env: &[(&str, &str)]) -> String {
    let mut layers = layers(text);
    layers.environment(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    format!("{:#}", Config::of(layers).unwrap_err())
}

const HEAD: &str = "name = \"one\"\ndata_dir = \"data\"\n";

#[test]
fn a_short_file_gets_the_defaults() {
    let config = Config::of(layers(HEAD)).unwrap();
    assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:3200");
    assert_eq!(config.api_url(), "https://127.0.0.1:3100");
    assert_eq!(config.peers.address(), "127.0.0.1:3300");
    assert_eq!(
        config.data_dir,
        Path::new("/etc/mcpnode/data"),
        "paths are meant from the file"
    );
    assert_eq!((config.api.tls, config.timers), (Tls::Auto, Timers::default()));
}

#[test]
fn every_fault_is_told_at_once_with_key_value_origin_and_range() {
    let text = format!(
        "{HEAD}colour = 1\n[gateway]\nlisten = \"localhost\"\ntls = \"on\"\n[api]\ntrusted_proxies = [\"10.0.0.0/8\", \"x\"]\n\
         connections_max = 5\n[timers]\nlease_ms = 99999999\nlease = 5\n"
    );
    let said = faults(&text, &[("MCPNODE_API_LISTEN", "3100")]);
    for line in [
        "colour = 1 in /etc/mcpnode/mcpnode.toml: there is no such key",
        "gateway.listen = \"localhost\" in /etc/mcpnode/mcpnode.toml: must be ADDRESS:PORT, such as 127.0.0.1:3200",
        "gateway.tls = \"on\" in /etc/mcpnode/mcpnode.toml: must be auto, files or off",
        "api.listen = \"3100\" from MCPNODE_API_LISTEN: must be ADDRESS:PORT",
        "api.trusted_proxies = \"x\" in /etc/mcpnode/mcpnode.toml: must be IP addresses or networks",
        "api.connections_max = 5 in /etc/mcpnode/mcpnode.toml: must be 16 to 1000000",
        "timers.lease_ms = 99999999 in /etc/mcpnode/mcpnode.toml: must be 1 to 60000",
        "timers.lease = 5 in /etc/mcpnode/mcpnode.toml: there is no such key; the keys of [timers] are heartbeat_ms,",
    ] {
        assert!(said.contains(line), "{line}\n--\n{said}");
    }
    assert!(faults("", &[]).contains("name is missing") && faults("", &[]).contains("data_dir is missing"));
    assert!(faults(&format!("{HEAD}[timers]\nlease_ms = 900\nrenew_every_ms = 200\n"), &[]).contains("lease_ms 900"));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (section, said) in [
        ("[api]\ntls = \"files\"\ncert_file = \"a\"\n", "api.key_file is missing"),
        ("[api]\ncert_file = \"a\"\n", "only with tls = \"files\""),
        ("[peers]\nlisten = \"0.0.0.0:3300\"\n", "peers.advertise is missing"),
        (
            "[peers]\nadvertise = \"0.0.0.0:3300\"\n",
            "as the other nodes reach this one",
        ),
        ("[api]\nurl = \"https://gate.example/x\"\n", "without a path"),
        ("[api]\nallowed_hosts = [\"a:1\"]\n", "without scheme and port"),
    ] {
        let all = faults(&format!("{HEAD}{section}"), &[]);
        assert!(all.contains(said), "{section}: {all}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file_and_the_originals_names_count() {
    let text = format!("{HEAD}[gateway]\nlisten = \"127.0.0.1:1\"\nallowed_hosts = [\"a\"]\n");
    let of = |env: &[(&str, &str)], flag: Option<&str>| {
        let mut layers = layers(&text);
        layers.environment(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        layers.flag("gateway.listen", "--gateway-listen", flag.map(str::to_owned));
        Config::of(layers).unwrap()
    };
    let listen = |config: Config| config.gateway.listen.to_string();
    let original = [("MCPLOCAL_HTTP_PORT", "2"), ("MCPLOCAL_CACHE_DIR", "/var/cache")];
    assert_eq!(listen(of(&original, None)), "127.0.0.1:2");
    assert_eq!(
        listen(of(&[("MCPLOCAL_HTTP_HOST", "localhost"), original[0]], None)),
        "127.0.0.1:2"
    );
    assert_eq!(of(&original, None).data_dir, Path::new("/var/cache"));
    let both = [
        original[0],
        ("MCPNODE_GATEWAY_LISTEN", "127.0.0.1:3"),
        ("MCPNODE_GATEWAY_ALLOWED_HOSTS", "b, C"),
    ];
    assert_eq!(of(&both, None).gateway.allowed_hosts, ["b", "c"]);
    assert_eq!(listen(of(&both, None)), "127.0.0.1:3");
    assert_eq!(listen(of(&both, Some("127.0.0.1:4"))), "127.0.0.1:4");
}

#[test]
fn what_init_writes_reads_back() {
    let text = format!(
        "{HEAD}[gateway]\nlisten = \"0.0.0.0:1\"\ntls = \"off\"\nallowed_origins = [\"https://app.example\"]\n\
         [api]\nurl = \"https://gate.example\"\ntls = \"files\"\ncert_file = \"c.pem\"\nkey_file = \"/k.pem\"\n\
         trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nconnections_max = 64\n[peers]\nlisten = \"0.0.0.0:3300\"\nadvertise = \"n1.example:3300\"\n\
         [timers]\nlease_ms = 2500\n"
    );
    let config = Config::of(layers(&text)).unwrap();
    assert_eq!(config.gateway_url(), "http://n1.example:1");
    assert!(config.api_hosts().contains(&"gate.example".to_owned()));
    // What it says of itself it answers to, and its certificate names it.
    let advertised = "n1.example".to_owned();
    assert!(config.gateway_hosts().contains(&advertised) && !config.api_hosts().contains(&advertised));
    assert!(config.certified_hosts().contains(&advertised));
    let back = Config::of(layers(&config.to_toml())).unwrap();
    assert_eq!(back, config);
    let plain = Config::of(layers(HEAD)).unwrap();
    assert_eq!(Config::of(layers(&plain.to_toml())).unwrap(), plain);
}

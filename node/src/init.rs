//! `mcpnode init`: the first node of a new cluster, in an empty directory.

use mcp_model::clock::Clock;
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::token::PlainSetup;
use zeroize::Zeroizing;

use crate::args::InitArgs;
use crate::certs::{Authority, CA_FILE};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::founding::{Founder, Founding};
use crate::home::{CONFIG_FILE, FOUNDING_FILE, Files, Home, SETUP_FILE};
use crate::identity::{DATA_KEY_FILE, Identity};
use crate::random;

/// Longest name of a node.
const NAME_CHARS_MAX: usize = 63;
const FALLBACK_NAME: &str = "node-1";

/// Makes the node and says what to do with it.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let email = Email::parse(&args.admin_email)
        .map_err(|error| anyhow::anyhow!("--admin-email {:?}: {error}", args.admin_email))?;
    let home = Home::claim(&args.node.data_dir)?;
    let config = Config::of_new(&args.node, home.path(), &machine_name())?;
    let made = make(&config, &home, &email, SystemClock.wall_ms())?;
    made.tell();
    Ok(())
}

/// A node that was made.
pub(crate) struct Made {
    config: Config,
    identity: Identity,
    home: Home,
    admin: Email,
}

pub(crate) fn make(config: &Config, home: &Home, admin: &Email, now_ms: u64) -> anyhow::Result<Made> {
    let (cluster, node) = (Id::from_u128(u128::from_ne_bytes(random::bytes())), random::node_id());
    let authority = Authority::generate(now_ms)?;
    let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(random::bytes());
    let setup = PlainSetup::from_bytes(&Zeroizing::new(random::bytes()));
    let founder = Founder {
        id: node.to_string(),
        name: config.name.clone(),
        address: config.peers.address(),
    };
    let founding = Founding::new(vec![founder], admin, &setup, &authority.keep(&data_key));
    let mut files = authority.equip(node, &config.certified_hosts(), now_ms)?;
    files.append(common_files(config, &data_key));
    files.add(FOUNDING_FILE, founding.to_json()?.as_bytes());
    files.add(SETUP_FILE, format!("{}\n", setup.expose()).as_bytes());
    let identity = Identity::new(cluster, node);
    home.furnish(&files, &identity)?;
    Ok(Made {
        config: config.clone(),
        identity,
        home: home.clone(),
        admin: admin.clone(),
    })
}

/// What every new node has.
pub(crate) fn common_files(config: &Config, data_key: &[u8; 32]) -> Files {
    let mut files = Files::default();
    files.add(DATA_KEY_FILE, data_key);
    files.add(CONFIG_FILE, config.to_toml().as_bytes());
    files
}

impl Made {
    fn tell(&self) {
        let (dir, config) = (self.home.path().display(), self.home.config());
        let (config, ca) = (config.display(), self.home.path().join(CA_FILE));
        let secret = self.home.path().join(SETUP_FILE);
        let trust = if self.config.api_url().starts_with("https") {
            format!(" --cacert {}", ca.display())
        } else {
            String::new()
        };
        eprintln!(
            "node {:?} ({}) of the new cluster {} is made in {dir}\n",
            self.config.name.as_str(),
            self.identity.node().map(|id| id.to_string()).unwrap_or_default(),
            self.identity.cluster().map(|id| id.to_string()).unwrap_or_default(),
        );
        eprintln!("Start it:\n");
        println!("mcpnode serve --config {config}");
        eprintln!("\nThen, once, set the administrator's password (the secret is dead afterwards):\n");
        println!(
            "mcpctl login --server {}{trust} --email {} --setup-secret-file {}",
            self.config.api_url(),
            self.admin,
            secret.display()
        );
        eprintln!(
            "\nTo let another machine in (its peers' listener must be reachable from here, and this one's from there):\n"
        );
        println!("mcpctl cluster join-token > join.token");
        eprintln!(
            "\nand there: mcpnode join {} --token-file join.token --data-dir DIR --peer-listen HOST:3300",
            self.config.peers.address()
        );
        if self.config.peers.listen.ip().is_loopback() {
            eprintln!(
                "\nnote: the peers' listener is on loopback ({}): no other machine can reach it. Set peers.listen (and\n\
                 advertise) in {config} before others join.",
                self.config.peers.listen
            );
        }
    }
}

/// The machine's name as a node's name.
pub(crate) fn machine_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = host.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let dashed: String = first
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let cut: String = dashed.trim_matches('-').chars().take(NAME_CHARS_MAX).collect();
    Name::parse(&cut).map_or_else(|_| FALLBACK_NAME.to_owned(), |name| name.to_string())
}

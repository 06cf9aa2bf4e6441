//! Settings from file, environment and flags, each with its origin, and everything that is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml::Value;

/// Environment variables that begin like settings and are none.
const NO_SETTINGS: [&str; 2] = ["MCPNODE_CONFIG", "MCPNODE_PIDS"];
/// Variables of the original that nothing reads any more.
const UNNEEDED: [&str; 3] = [
    "MCPLOCAL_MCPD_URL",
    "MCPLOCAL_TOKEN_POSITIVE_TTL_MS",
    "MCPLOCAL_TOKEN_NEGATIVE_TTL_MS",
];

struct Given {
    value: Value,
    /// `in /etc/mcpnode.toml`, `from MCPNODE_API_LISTEN`, `from --api-listen`.
    origin: String,
}

/// All settings, by dotted key; a later layer has replaced what an earlier one said.
pub(super) struct Layers {
    file: PathBuf,
    values: BTreeMap<String, Given>,
    asked: BTreeSet<String>,
    faults: Vec<String>,
}

impl Layers {
    pub(super) fn of_file(path: &Path) -> anyhow::Result<Layers> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{} cannot be read: name the file with --config, make a node with `mcpnode init`, or try `mcpnode dev`",
                path.display()
            )
        })?;
        Layers::of_text(std::path::absolute(path)?, &text)
    }

    /// Paths in the file are meant from the file.
    pub(super) fn of_text(file: PathBuf, text: &str) -> anyhow::Result<Layers> {
        let table: toml::Table = toml::from_str(text).with_context(|| format!("{} is not TOML", file.display()))?;
        let mut layers = Layers {
            values: BTreeMap::new(),
            asked: BTreeSet::new(),
            faults: Vec::new(),
            file,
        };
        let origin = format!("in {}", layers.file.display());
        layers.flatten("", table, &origin);
        Ok(layers)
    }

    fn flatten(&mut self, prefix: &str, table: toml::Table, origin: &str) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                Value::Table(inner) => self.flatten(&format!("{key}."), inner, origin),
                value => self.put(&key, value, origin.to_owned()),
            }
        }
    }

    fn put(&mut self, key: &str, value: Value, origin: String) {
        self.values.insert(key.to_owned(), Given { value, origin });
    }

    /// `MCPNODE_API_LISTEN` is `api.listen`; the original's three variables count as well, below those.
    pub(super) fn environment(&mut self, vars: impl Iterator<Item = (String, String)>) {
        let vars: BTreeMap<String, String> = vars.filter(|(_, value)| !value.is_empty()).collect();
        self.original(&vars);
        for (name, value) in &vars {
            let Some(rest) = name.strip_prefix("MCPNODE_") else {
                continue;
            };
            if !NO_SETTINGS.contains(&name.as_str()) {
                self.put(&key_of(rest), Value::String(value.clone()), format!("from {name}"));
            }
        }
    }

    fn original(&mut self, vars: &BTreeMap<String, String>) {
        let listen = self
            .values
            .get("gateway.listen")
            .and_then(|given| given.value.as_str()?.parse().ok());
        let mut listen: SocketAddr = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], super::GATEWAY_PORT)));
        let mut from = Vec::new();
        if let Some(host) = vars.get("MCPLOCAL_HTTP_HOST") {
            from.push("MCPLOCAL_HTTP_HOST");
            match if host == "localhost" { "127.0.0.1" } else { host }.parse() {
                Ok(ip) => listen.set_ip(ip),
                Err(_) => self.faults.push(format!(
                    "MCPLOCAL_HTTP_HOST = {host:?}: must be localhost or an IP address"
                )),
            }
        }
        if let Some(port) = vars.get("MCPLOCAL_HTTP_PORT") {
            from.push("MCPLOCAL_HTTP_PORT");
            match port.parse() {
                Ok(port) => listen.set_port(port),
                Err(_) => self
                    .faults
                    .push(format!("MCPLOCAL_HTTP_PORT = {port:?}: must be a port, 0 to 65535")),
            }
        }
        if !from.is_empty() {
            self.put(
                "gateway.listen",
                Value::String(listen.to_string()),
                format!("from {}", from.join(" and ")),
            );
        }
        if let Some(dir) = vars.get("MCPLOCAL_CACHE_DIR") {
            self.put(
                "data_dir",
                Value::String(dir.clone()),
                "from MCPLOCAL_CACHE_DIR".to_owned(),
            );
        }
        let unneeded: Vec<&str> = UNNEEDED.into_iter().filter(|name| vars.contains_key(*name)).collect();
        if !unneeded.is_empty() {
            tracing::warn!(
                variables = unneeded.join(" "),
                "no longer needed: every node decides from its own replica"
            );
        }
    }

    pub(super) fn flag(&mut self, key: &str, flag: &str, value: Option<String>) {
        if let Some(value) = value {
            self.put(key, Value::String(value), format!("from {flag}"));
        }
    }

    /// A text that `parse` understands; `range` says what that is.
    pub(super) fn parsed<T>(&mut self, key: &str, range: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.take(key, range, |value| parse(value.as_str()?))
    }

    /// The same for a key that must be there.
    pub(super) fn required<T>(&mut self, key: &str, range: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if !self.values.contains_key(key) {
            self.missing(key, range);
        }
        self.parsed(key, range, parse)
    }

    pub(super) fn address(&mut self, key: &str, port: u16) -> SocketAddr {
        let usual = SocketAddr::from(([127, 0, 0, 1], port));
        let range = format!("ADDRESS:PORT, such as {usual}");
        self.parsed(key, &range, |text| text.parse().ok()).unwrap_or(usual)
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let base = self.file.parent().map_or_else(PathBuf::new, Path::to_owned);
        self.parsed(key, "a path", |text| (!text.is_empty()).then(|| base.join(text)))
    }

    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let said = format!("{} to {}", range.start(), range.end());
        self.take(key, &said, |value| {
            let number = match value {
                Value::String(text) => text.trim().parse().ok()?,
                value => u64::try_from(value.as_integer()?).ok()?,
            };
            range.contains(&number).then_some(number)
        })
    }

    /// Yes or no.
    pub(super) fn truth(&mut self, key: &str) -> Option<bool> {
        self.take(key, "true or false", |value| match value {
            Value::Boolean(is) => Some(*is),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        })
    }

    /// A list, or a text with commas. Every entry that `parse` does not understand is a fault.
    pub(super) fn list<T>(&mut self, key: &str, range: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let texts = self.take(key, &format!("a list of {range}"), |value| match value {
            Value::String(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
            Value::Array(all) => all
                .iter()
                .map(|one| Some(one.as_str()?.to_owned()))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        });
        let mut read = Vec::new();
        for text in texts.unwrap_or_default() {
            match parse(&text) {
                Some(one) => read.push(one),
                None => {
                    let origin = self.values.get(key).map_or("", |given| given.origin.as_str());
                    self.faults.push(format!("{key} = {text:?} {origin}: must be {range}"));
                }
            }
        }
        read
    }

    fn take<T>(&mut self, key: &str, range: &str, parse: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        self.asked.insert(key.to_owned());
        let given = self.values.get(key)?;
        let parsed = parse(&given.value);
        if parsed.is_none() {
            self.faults
                .push(format!("{key} = {} {}: must be {range}", given.value, given.origin));
        }
        parsed
    }

    pub(super) fn missing(&mut self, key: &str, range: &str) {
        if !self.values.contains_key(key) {
            self.faults
                .push(format!("{key} is missing in {}: must be {range}", self.file.display()));
        }
    }

    pub(super) fn fault(&mut self, key: &str, why: &str) {
        let given = self.values.get(key);
        let given = given.map_or_else(String::new, |given| format!(" = {} {}", given.value, given.origin));
        self.faults.push(format!("{key}{given}: {why}"));
    }

    /// An error that tells everything that is wrong, if anything is. A key that nobody asked for is: a misspelt limit must
    /// not be a missing one.
    pub(super) fn refuse(mut self) -> anyhow::Result<()> {
        for (key, given) in &self.values {
            if self.asked.contains(key) {
                continue;
            }
            let hint = self.siblings(key);
            self.faults.push(format!(
                "{key} = {} {}: there is no such key{hint}",
                given.value, given.origin
            ));
        }
        match self.faults.as_slice() {
            [] => Ok(()),
            [one] => bail!("the configuration is not valid: {one}"),
            many => bail!("the configuration has {} faults:\n  {}", many.len(), many.join("\n  ")),
        }
    }

    fn siblings(&self, key: &str) -> String {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let of_section = |other: &&String| other.rsplit_once('.').map_or("", |(section, _)| section) == section;
        let names = self
            .asked
            .iter()
            .filter(of_section)
            .map(|other| other.rsplit('.').next().unwrap_or(other));
        let names: Vec<&str> = names.collect();
        match (section, names.is_empty()) {
            (_, true) => String::new(),
            ("", false) => format!("; the keys outside sections are {}", names.join(", ")),
            (section, false) => format!("; the keys of [{section}] are {}", names.join(", ")),
        }
    }
}

/// `API_LISTEN` to `api.listen`: the first word is a section if there is one of that name.
fn key_of(rest: &str) -> String {
    let lower = rest.to_ascii_lowercase();
    match lower.split_once('_') {
        Some((section @ ("gateway" | "api" | "peers" | "timers" | "disk" | "log" | "upstreams" | "quotas"), name)) => {
            format!("{section}.{name}")
        }
        _ => lower,
    }
}

//! Prints objects: as a table, as JSON, as YAML, as names.

mod access;
mod objects;
mod words;

use mcp_api::list::List;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::args::Format;
use crate::failure::Failure;
use crate::jsonpath::Template;
use crate::kinds::Kind;
use crate::{clock, out};

/// An object that can be printed.
pub(crate) trait Object: Serialize + DeserializeOwned {
    /// What it is.
    const KIND: Kind;
    /// Headings of a table.
    const COLUMNS: &'static [&'static str];
    /// Further headings of a wide one.
    const WIDE: &'static [&'static str];
    /// What `apply` takes of it, in the order in which it is shown.
    const FIELDS: &'static [&'static str];
    /// What people call it.
    fn name(&self) -> String;
    /// What lists are sorted by.
    fn order(&self) -> String {
        self.name()
    }
    /// What names it on a command line.
    fn full_name(&self) -> String {
        format!("{}/{}", Self::KIND.singular(), self.name())
    }
    /// Whether it belongs into a file for `apply`, when all of its kind are asked for.
    fn is_written_by_hand(&self) -> bool {
        true
    }
    /// One cell for each of `COLUMNS`, then one for each of `WIDE`.
    fn cells(&self, now_ms: u64) -> Vec<String>;
    /// What a user would write to get this object: no ids, no hashes, nothing derived.
    fn spec(&self) -> Value {
        picked(self, Self::FIELDS)
    }
    /// Lines of a detailed view.
    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)>;
}

/// Prints a list.
pub(crate) fn list<T: Object>(format: Format, list: &List<T>) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide if list.items.is_empty() => eprintln!("no {}", T::KIND.plural()),
        Format::Table | Format::Wide => table(&list.items, format == Format::Wide),
        Format::Json => json(list)?,
        Format::Yaml => {
            let alone = list.items.len() == 1;
            let some = list.items.iter().filter(|object| alone || object.is_written_by_hand());
            let texts: Vec<String> = some.map(yaml_of).collect::<Result<_, _>>()?;
            out::bytes(texts.join("---\n").as_bytes());
        }
        Format::Name => list.items.iter().for_each(|object| out::line(&object.full_name())),
        Format::JsonPath(template) => {
            let items: Vec<Value> = list.items.iter().map(whole).collect();
            picked_out(
                template,
                &json!({"apiVersion": VERSION, "kind": "List", "items": items}),
            )?;
        }
    }
    Ok(())
}

/// The version of the files that `apply` takes.
pub(crate) const VERSION: &str = "mcpctl/v1";

/// An object as templates see it: as the API answers, and as `apply` takes it.
pub(crate) fn whole<T: Object>(object: &T) -> Value {
    let mut all = serde_json::to_value(object).unwrap_or(Value::Null);
    all["apiVersion"] = VERSION.into();
    all["kind"] = T::KIND.singular().into();
    all["metadata"] = json!({"name": object.name(), "id": all["id"], "createdAt": all["createdAt"],
        "createdBy": all["createdBy"], "resourceVersion": all["resourceVersion"]});
    all["spec"] = object.spec();
    all
}

fn picked_out(template: &str, value: &Value) -> Result<(), Failure> {
    let read = Template::parse(template).map_err(|why| {
        Failure::usage("cannot read the template", why).next("-o 'jsonpath={.items[*].metadata.name}'")
    })?;
    out::bytes(read.render(value).as_bytes());
    Ok(())
}

/// Prints some objects that were asked for by name.
pub(crate) fn some<T: Object>(format: Format, objects: Vec<T>) -> Result<(), Failure> {
    match (format, objects.as_slice()) {
        (Format::Json, [one]) => json(one),
        (Format::JsonPath(template), [one]) => picked_out(template, &whole(one)),
        _ => list(
            format,
            &List {
                items: objects,
                more: None,
                resource_version: String::new(),
            },
        ),
    }
}

/// Says that an object was made or changed, or prints it, as the user wants.
pub(crate) fn done<T: Object>(format: Format, object: &T, answer: &impl Serialize, verb: &str) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide => {
            out::line(&format!("{} {:?} {verb}", T::KIND.singular(), object.name()));
            Ok(())
        }
        Format::Json => json(answer),
        Format::Yaml => {
            out::bytes(yaml_of(object)?.as_bytes());
            Ok(())
        }
        Format::Name => {
            out::line(&object.full_name());
            Ok(())
        }
        Format::JsonPath(template) => picked_out(template, &whole(object)),
    }
}

/// Prints what is no object in the format that was asked for: everything but a table.
pub(crate) fn other(format: Format, value: &impl Serialize) -> Result<(), Failure> {
    match format {
        Format::JsonPath(template) => {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            picked_out(template, &value)
        }
        Format::Yaml => {
            let text = yaml_serde::to_string(value);
            let text =
                text.map_err(|e| Failure::new("cannot print YAML", e.to_string()).next("run it with -o json"))?;
            out::bytes(text.as_bytes());
            Ok(())
        }
        Format::Table | Format::Wide | Format::Json | Format::Name => json(value),
    }
}

/// Prints pairs of words and values, one below the other.
pub(crate) fn pairs(pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
    for (key, value) in pairs {
        let mut lines = value.lines();
        let key = format!("{key}:");
        out::line(format!("{key:width$}  {}", lines.next().unwrap_or("-")).trim_end());
        for line in lines {
            out::line(&format!("{:width$}  {line}", ""));
        }
    }
}

/// Prints anything as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new("cannot print JSON", e.to_string()).next("run it with -o table"))?;
    // What came from servers and users must not steer the terminal.
    out::line(&mcp_api::visible_json(&text));
    Ok(())
}

/// Prints rows under headings.
pub(crate) fn rows(headings: &[&str], rows: &[Vec<String>]) {
    let width = |at: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count());
        cells.chain(headings.get(at).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out::line(padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    line(&headings.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// Prints objects as rows.
pub(crate) fn table<T: Object>(objects: &[T], wide: bool) {
    let now_ms = clock::wall_ms();
    let headings = [T::COLUMNS, if wide { T::WIDE } else { &[] }].concat();
    let cells = |object: &T| {
        let mut cells = object.cells(now_ms);
        cells.truncate(headings.len());
        // What came from servers and users must not steer the terminal.
        cells.iter().map(|cell| printable(cell)).collect()
    };
    rows(&headings, &objects.iter().map(cells).collect::<Vec<_>>());
}

/// A text on one line without anything that steers the terminal or hides in it.
pub(crate) fn printable(text: &str) -> String {
    mcp_api::visible(text)
}

pub(crate) fn yaml_of<T: Object>(object: &T) -> Result<String, Failure> {
    manifest(T::KIND, &object.name(), &object.spec())
}

/// An object as `apply` takes it.
pub(crate) fn manifest(kind: Kind, name: &str, spec: &Value) -> Result<String, Failure> {
    let manifest = json!({
        "apiVersion": VERSION,
        "kind": kind.singular(),
        "metadata": {"name": name},
        "spec": spec,
    });
    yaml_serde::to_string(&manifest)
        .map_err(|e| Failure::new("cannot print YAML", e.to_string()).next("run it with -o json"))
}

/// These fields of an object, without those that say nothing.
pub(crate) fn picked(object: &impl Serialize, fields: &[&str]) -> Value {
    let all = serde_json::to_value(object).unwrap_or(Value::Null);
    let said =
        |value: &&Value| !value.is_null() && **value != json!("") && **value != json!([]) && **value != json!({});
    let some = fields
        .iter()
        .filter_map(|f| Some(((*f).to_owned(), all.get(f).filter(said)?.clone())));
    Value::Object(some.collect::<Map<_, _>>())
}

/// How long ago, or in how long: `5m ago`, `in 29d`.
pub(crate) fn ago(time: &str, now_ms: u64) -> String {
    let Some(at) = mcp_api::parse_time(time) else {
        return time.to_owned();
    };
    match at.checked_sub(now_ms) {
        None | Some(0) => format!("{} ago", span(now_ms.saturating_sub(at))),
        Some(ahead) => format!("in {}", span(ahead)),
    }
}

/// The same for a time that may be missing.
pub(crate) fn ago_or(time: Option<&String>, now_ms: u64, missing: &str) -> String {
    time.map_or_else(|| missing.to_owned(), |t| ago(t, now_ms))
}

fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = 1_700_000_000_000u64;
        let cases = [
            (0, "0s ago"),
            (-5_000, "5s ago"),
            (-600_000, "10m ago"),
            (-86_400_000, "24h ago"),
            (-259_200_000, "3d ago"),
            (29 * 86_400_000 + 1, "in 29d"),
        ];
        for (delta, expected) in cases {
            let at = mcp_api::show_time(now.checked_add_signed(delta).unwrap());
            assert_eq!(ago(&at, now), expected);
        }
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a [31mb c");
    }
}

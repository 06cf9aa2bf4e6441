//! What tools look like, as digests: of an entry with the members of every object in order, so that a server that writes its schema
//! in another order after every start does not seem to have changed it.

use mcp_model::toolnames;
use mcp_model::watch::{Print, TOOLS_MAX};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use sha2::{Digest, Sha256};

/// A JSON value that keeps a member that stands there twice: clients differ in which of the two they take.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn get(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, member)| member),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(is))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(number).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}

/// The prints of a raw JSON array of tools: of each name the first, none of names that are not offered. An error says why the list
/// is none that can be kept.
pub(crate) fn of_tools(array: &str) -> Result<Vec<Print>, String> {
    let entries: Vec<Tree> = serde_json::from_str(array).unwrap_or_default();
    let mut prints: Vec<Print> = entries.iter().filter_map(print).collect();
    let mut seen = std::collections::HashSet::new();
    prints.retain(|print| seen.insert(print.name.clone()));
    if prints.len() > TOOLS_MAX {
        return Err(format!("it lists {} tools: at most {TOOLS_MAX} are kept", prints.len()));
    }
    Ok(prints)
}

fn print(entry: &Tree) -> Option<Print> {
    let Tree::Text(name) = entry.get("name")? else {
        return None;
    };
    if toolnames::unfit(name).is_some() {
        return None;
    }
    Some(Print {
        name: name.clone(),
        whole: digest(entry),
        description: beginning(&[entry.get("description")]),
        schema: beginning(&[entry.get("inputSchema"), entry.get("outputSchema")]),
    })
}

/// SHA-256 over a raw entry.
pub(crate) fn whole(entry: &str) -> Option<[u8; 32]> {
    serde_json::from_str(entry).ok().map(|entry| digest(&entry))
}

fn digest(entry: &Tree) -> [u8; 32] {
    let mut hasher = Sha256::new();
    feed(&mut hasher, entry);
    hasher.finalize().into()
}

fn beginning(parts: &[Option<&Tree>]) -> [u8; 8] {
    let mut hasher = Sha256::new();
    for part in parts {
        feed(&mut hasher, part.unwrap_or(&Tree::Null));
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}

/// Every value with a mark of its kind and its length, so that no two values are fed alike.
fn feed(hasher: &mut Sha256, value: &Tree) {
    let length = |hasher: &mut Sha256, mark: u8, length: usize| {
        hasher.update([mark]);
        hasher.update(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    };
    match value {
        Tree::Null => hasher.update([0]),
        Tree::Bool(is) => hasher.update([1, u8::from(*is)]),
        Tree::Number(number) => {
            let text = number.to_string();
            length(hasher, 2, text.len());
            hasher.update(text.as_bytes());
        }
        Tree::Text(text) => {
            length(hasher, 3, text.len());
            hasher.update(text.as_bytes());
        }
        Tree::Array(items) => {
            length(hasher, 4, items.len());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Tree::Object(members) => {
            length(hasher, 5, members.len());
            let mut sorted: Vec<_> = members.iter().collect();
            // Stable: of two members of one name the first stays the first.
            sorted.sort_by_key(|(name, _)| name);
            for (name, member) in sorted {
                length(hasher, 3, name.len());
                hasher.update(name.as_bytes());
                feed(hasher, member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Print {
        of_tools(&format!("[{json}]")).unwrap().remove(0)
    }

    #[test]
    fn the_order_of_members_says_nothing_and_everything_else_does() {
        let tool = r#"{"name":"a","description":"d","inputSchema":{"type":"object","properties":{"x":{},"y":{}}}}"#;
        let same = r#"{"inputSchema":{"properties":{"y":{},"x":{}},"type":"object"},"description":"d","name":"a"}"#;
        let before = one(tool);
        assert_eq!(before, one(same));
        let description = one(&tool.replace("\"d\"", "\"e\""));
        assert!(before.whole != description.whole && before.description != description.description);
        assert_eq!(before.schema, description.schema);
        let schema = one(&tool.replace("\"y\"", "\"z\""));
        assert!(before.schema != schema.schema && before.description == schema.description);
        let other = one(&tool.replace(
            "\"name\":\"a\"",
            "\"name\":\"a\",\"annotations\":{\"readOnlyHint\":true}",
        ));
        assert!(before.whole != other.whole && before.schema == other.schema);
        assert_ne!(whole(r#"["a","b"]"#), whole(r#"["ab"]"#));
        assert_ne!(whole(r#"[["a"],"b"]"#), whole(r#"[["a","b"]]"#));
        assert_ne!(
            whole(r#"{"d":"a","d":"b"}"#),
            whole(r#"{"d":"b"}"#),
            "a member that stands there twice"
        );
        assert_eq!(whole(r#"{"d":1.5e3}"#), whole(r#"{ "d" : 1500.0 }"#));
    }

    #[test]
    fn what_is_not_offered_has_no_print() {
        let prints = of_tools(r#"[{"name":"a"},{"name":"a","title":"x"},{"name":"b\u202e"},{"title":"c"},7]"#).unwrap();
        assert_eq!(prints.len(), 1);
        assert_eq!(of_tools("nonsense").unwrap(), []);
        let many: Vec<_> = (0..=TOOLS_MAX)
            .map(|at| serde_json::json!({"name": format!("t{at}")}))
            .collect();
        assert!(
            of_tools(&serde_json::Value::from(many).to_string())
                .unwrap_err()
                .contains("4096")
        );
    }
}

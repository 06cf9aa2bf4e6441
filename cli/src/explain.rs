//! `mcpctl explain` and `mcpctl api-resources`: from the types that the API itself reads, so it needs no cluster.

use mcp_api::groups::GroupSpec;
use mcp_api::nodes::NodeBody;
use mcp_api::projects::ProjectSpecBody;
use mcp_api::rbac::RbacSpec;
use mcp_api::servers::{ServerSpecBody, WatchedTool};
use mcp_api::serviceaccounts::ServiceAccountSpec;
use mcp_api::sessions::SessionBody;
use mcp_api::tokens::NewMcpToken;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::args::{ExplainArgs, Format, OutputArg};
use crate::failure::{Exit, Failure};
use crate::kinds::{KINDS, Kind};
use crate::manifest::{SecretFile, UserFile};
use crate::{out, show};

/// Fields that a file does not have among those of its object: they stand beside them or are flags.
const ELSEWHERE: [&str; 3] = ["name", "email", "force"];

/// What is known of a kind: its schema, and those that it refers to.
struct Known {
    own: Value,
    parts: Map<String, Value>,
}

impl Known {
    fn of<T: ToSchema>() -> Known {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        let value = |schema| serde_json::to_value(schema).unwrap_or(Value::Null);
        Known {
            own: value(T::schema()),
            parts: parts.into_iter().map(|(name, schema)| (name, value(schema))).collect(),
        }
    }

    fn about(kind: Kind) -> Known {
        match kind {
            Kind::Projects => Known::of::<ProjectSpecBody>(),
            Kind::Servers => Known::of::<ServerSpecBody>(),
            Kind::McpTokens => Known::of::<NewMcpToken>(),
            Kind::Rbac => Known::of::<RbacSpec>(),
            Kind::Users => Known::of::<UserFile>(),
            Kind::Groups => Known::of::<GroupSpec>(),
            Kind::ServiceAccounts => Known::of::<ServiceAccountSpec>(),
            Kind::Secrets => Known::of::<SecretFile>(),
            Kind::Nodes => Known::of::<NodeBody>(),
            Kind::Tools => Known::of::<WatchedTool>(),
            Kind::Sessions => Known::of::<SessionBody>(),
        }
    }

    /// What a schema is when references and lists are looked through.
    fn inner<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let reference = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next());
        match (reference, schema.get("items")) {
            (Some(name), _) => self.parts.get(name).unwrap_or(schema),
            (None, Some(items)) => self.inner(items),
            (None, None) => schema,
        }
    }
}

pub(crate) fn explain(args: &ExplainArgs) -> Result<Exit, Failure> {
    let mut words = args.path.split('.').filter(|word| !word.is_empty() && *word != "spec");
    let word = words.next().unwrap_or_default();
    let wrong = |why: String| Failure::usage(format!("cannot explain {:?}", args.path), why);
    let kind: Kind = word.parse().map_err(|why| wrong(why).next("mcpctl api-resources"))?;
    let known = Known::about(kind);
    let (mut schema, mut at) = (&known.own, kind.singular().to_owned());
    let mut told = schema;
    for word in words {
        let fields = known.inner(schema)["properties"].as_object();
        let hidden = at == kind.singular() && ELSEWHERE.contains(&word) && kind != Kind::Users && kind.takes("apply");
        let field = fields.and_then(|fields| fields.get(word)).filter(|_| !hidden);
        let Some(field) = field else {
            let names: Vec<&str> = fields.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let why = match names.as_slice() {
                [] => format!("{at} has no fields"),
                names => format!("{at} has no field {word:?}; its fields are {}", names.join(", ")),
            };
            return Err(wrong(why)
                .next(format!("mcpctl explain {at}"))
                .with_exit(Exit::NotFound));
        };
        at = format!("{at}.{word}");
        (schema, told) = (field, field);
    }
    print(&known, kind, &at, told);
    Ok(Exit::Done)
}

fn print(known: &Known, kind: Kind, at: &str, schema: &Value) {
    let whole = at == kind.singular();
    out::line(&format!("KIND:     {}", kind.singular()));
    if kind.takes("apply") {
        out::line(&format!("VERSION:  {}", show::VERSION));
    }
    if !whole {
        out::line(&format!("FIELD:    {at} <{}>", type_of(schema)));
    }
    out::line("");
    out::line("DESCRIPTION:");
    out::line(&format!("    {}", text(schema)));
    let inner = known.inner(schema);
    if !std::ptr::eq(inner, schema) && !text(inner).is_empty() && text(inner) != text(schema) {
        out::line(&format!("    {}", text(inner)));
    }
    let fields = inner["properties"].as_object().into_iter().flatten();
    let skip = |name: &str| whole && kind.takes("apply") && kind != Kind::Users && ELSEWHERE.contains(&name);
    let fields: Vec<_> = fields.filter(|(name, _)| !skip(name)).collect();
    if fields.is_empty() {
        return;
    }
    out::line("");
    out::line("FIELDS:");
    for (name, field) in fields {
        let default = field
            .get("default")
            .filter(|d| !d.is_null() && **d != json!("") && **d != json!([]) && **d != json!({}));
        let default = default.map_or_else(String::new, |d| format!(" (default {d})"));
        out::line(&format!("  {name} <{}>{default}", type_of(field)));
        out::line(&format!("    {}", text(field)));
    }
}

fn text(schema: &Value) -> String {
    mcp_api::told(schema["description"].as_str().unwrap_or_default())
}

fn type_of(schema: &Value) -> String {
    if let Some(items) = schema.get("items") {
        return format!("list of {}", type_of(items));
    }
    if schema.get("$ref").is_some() {
        return "object".to_owned();
    }
    let name = |kind: &Value| kind.as_str().unwrap_or("any").to_owned();
    let one = match &schema["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .filter(|k| *k != "null")
            .map(name)
            .next()
            .unwrap_or_default(),
        kind => name(kind),
    };
    match schema["additionalProperties"].get("type") {
        Some(of) if one == "object" => format!("map of {}", name(of)),
        _ => one,
    }
}

/// All kinds with their names and verbs.
pub(crate) fn api_resources(args: &OutputArg) -> Result<Exit, Failure> {
    let row = |about: &crate::kinds::About| {
        let (short, verbs) = (about.others.join(","), about.verbs.join(","));
        vec![about.plural.to_owned(), short, about.singular.to_owned(), verbs]
    };
    match args.output {
        Format::Name => KINDS.iter().for_each(|about| out::line(about.plural)),
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            let one = |about: &crate::kinds::About| json!({"name": about.plural, "kind": about.singular, "shortNames": about.others, "verbs": about.verbs});
            show::other(
                args.output,
                &json!({"items": KINDS.iter().map(one).collect::<Vec<_>>()}),
            )?;
        }
        Format::Table | Format::Wide => {
            let rows: Vec<_> = KINDS.iter().map(row).collect();
            show::rows(&["NAME", "SHORT NAMES", "KIND", "VERBS"], &rows);
        }
    }
    Ok(Exit::Done)
}

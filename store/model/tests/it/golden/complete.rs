//! Nothing that is stored or replicated is without golden bytes.

use std::collections::BTreeSet;

use mcp_model::backup;
use mcp_model::command::{Actor, Command, JoinRefusal, Outcome, Refusal, Reply, TokenGrant};
use mcp_model::frame::Framed;
use mcp_model::limits::{ProjectLimitsRecord, ServerLimitsRecord};
use mcp_model::rbac::{Action, Resource, Role, RoleBinding, Subject};
use mcp_model::records::*;
use mcp_model::tables::Table;
use mcp_model::watch::{Happened, ToolWatch};

use super::{of_commands, of_records};
use crate::here;
use crate::shapes::{Variants, variants_of};

/// What a table holds. A new table stands here before this compiles, and its record's bytes above before the test passes.
fn kinds_in(table: Table) -> Vec<u8> {
    match table {
        Table::Cluster => vec![ClusterRecord::KIND, Authority::KIND],
        Table::Users => vec![User::KIND],
        Table::Sessions => vec![Session::KIND],
        Table::Projects => vec![Project::KIND],
        Table::Servers => vec![Server::KIND],
        Table::Rbac => vec![RbacDefinition::KIND],
        Table::Tokens => vec![McpToken::KIND],
        Table::Tombstones => vec![Tombstone::KIND],
        Table::ToolLists => vec![ToolList::KIND],
        Table::Nodes => vec![NodeRecord::KIND],
        Table::Retired => vec![Retirement::KIND],
        Table::Audit => vec![AuditRecord::KIND],
        Table::Replies => vec![Outcome::KIND],
        Table::SetupSecrets => vec![SetupSecret::KIND],
        Table::JoinTokens => vec![JoinToken::KIND],
        Table::Enrolments => vec![Enrolment::KIND],
        Table::Groups => vec![Group::KIND],
        Table::ServiceAccounts => vec![ServiceAccount::KIND],
        Table::Secrets => vec![Secret::KIND],
        Table::ToolWatches => vec![ToolWatch::KIND],
        Table::ServerLimits => vec![ServerLimitsRecord::KIND],
        Table::ProjectLimits => vec![ProjectLimitsRecord::KIND],
        // Indices, whose values are ids or nothing; and pieces of a backup, which are bytes.
        Table::UserEmails
        | Table::ProjectNames
        | Table::ServerNames
        | Table::RbacNames
        | Table::TokenHashes
        | Table::TokenNames
        | Table::ReplyOrder
        | Table::Expiries
        | Table::RbacSubjects
        | Table::GroupNames
        | Table::GroupMembers
        | Table::ServiceAccountNames
        | Table::SecretNames
        | Table::SessionOwners
        | Table::TokenOwners
        | Table::Restoring => Vec::new(),
    }
}

/// The kinds of frames that the sources of this crate make, tests aside.
fn kinds_in_the_sources() -> BTreeSet<u8> {
    let mut found = BTreeSet::new();
    let mut folders = vec![here("../src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().map(str::trim) {
                let number = line.strip_prefix("const KIND: u8 = ").or(line.strip_prefix("stored!("));
                let digits = number.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
                found.extend(digits.and_then(|digits| digits.parse::<u8>().ok()));
            }
        }
    }
    // Those of the frame's own tests.
    found.into_iter().filter(|kind| *kind < 250).collect()
}

#[test]
fn no_kind_of_record_or_command_and_no_variant_is_without_its_bytes() {
    let (commands, records) = (of_commands(), of_records());
    let mut kinds: BTreeSet<u8> = commands.kinds.union(&records.kinds).copied().collect();
    let stored: BTreeSet<u8> = Table::ALL.into_iter().flat_map(kinds_in).collect();
    let missing: Vec<_> = stored.difference(&kinds).collect();
    assert!(missing.is_empty(), "kinds of frames without golden bytes: {missing:?}");
    // The head of a backup has a file of its own.
    kinds.insert(backup::Header::KIND);
    assert_eq!(
        kinds,
        kinds_in_the_sources(),
        "kinds with golden bytes, and kinds that there are"
    );

    let mut pinned = commands.variants;
    for (name, variants) in records.variants {
        pinned.entry(name).or_default().extend(variants);
    }
    let known: Variants = [
        variants_of::<Command>(),
        variants_of::<Actor>(),
        variants_of::<TokenGrant>(),
        variants_of::<Reply>(),
        variants_of::<Refusal>(),
        variants_of::<JoinRefusal>(),
        variants_of::<Transport>(),
        variants_of::<ToolNaming>(),
        variants_of::<TokenStatus>(),
        variants_of::<Health>(),
        variants_of::<Happened>(),
        variants_of::<RoleBinding>(),
        variants_of::<Resource>(),
        variants_of::<Role>(),
        variants_of::<Action>(),
        variants_of::<Subject>(),
        ("Option", BTreeSet::from(["None", "Some"])),
        // The last field of a server's limits as it is kept; nobody else can name it.
        ("Last", BTreeSet::from(["Nothing", "AnswerBytes", "IdleStop", "Both"])),
    ]
    .into();
    for (name, there_are) in &known {
        let with_bytes = pinned.get(name).cloned().unwrap_or_default();
        let missing: Vec<_> = there_are.difference(&with_bytes).collect();
        assert!(missing.is_empty(), "{name}: variants without golden bytes: {missing:?}");
    }
    let unknown: Vec<_> = pinned.keys().filter(|name| !known.contains_key(*name)).collect();
    assert!(
        unknown.is_empty(),
        "enums that are stored and not in the list above: {unknown:?}"
    );
}

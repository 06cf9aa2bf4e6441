//! What holds for every input: decoding never panics, and pattern arithmetic agrees with matching.

use mcp_model::command::Envelope;
use mcp_model::rbac::{Grants, Pattern, Resource, Role, RoleBinding, Verb};
use proptest::prelude::*;

fn pattern() -> impl Strategy<Value = String> {
    "[ab]{0,3}(/[ab]{0,3})?[*]?"
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Envelope::decode(&bytes).is_err());
    }

    #[test]
    fn what_a_pattern_covers_it_matches(held in pattern(), wanted in pattern(), name in "[ab]{0,4}(/[ab]{0,4})?") {
        let (held, wanted) = (Pattern::parse(&held).unwrap(), Pattern::parse(&wanted).unwrap());
        if held.covers(&wanted) && wanted.matches(&name) {
            prop_assert!(held.matches(&name), "{held} covers {wanted}, which matches {name}");
        }
    }

    #[test]
    fn what_grants_cover_they_allow(held in pattern(), wanted in pattern(), name in "[ab]{0,4}/[ab]{0,4}", server in any::<bool>()) {
        let on = if server { Resource::Servers } else { Resource::Tools };
        let binding = |resource, text: &str| RoleBinding::On {
            role: Role::Run,
            resource,
            name: Some(Pattern::parse(text).unwrap()),
        };
        let grants: Grants = [binding(on, &held)].into_iter().collect();
        let wanted = binding(Resource::Tools, &wanted);
        let given: Grants = [wanted.clone()].into_iter().collect();
        if grants.cover(&wanted) && given.allow(Verb::Use, Resource::Tools, &name) {
            prop_assert!(grants.allow(Verb::Use, Resource::Tools, &name));
        }
    }
}

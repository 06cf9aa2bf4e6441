//! What holds for every input: decoding never panics, and pattern arithmetic agrees with matching.

use mcp_model::command::Envelope;
use mcp_model::rbac::{Grants, Pattern, Resource, Role, RoleBinding, Verb};
use proptest::prelude::*;

fn pattern() -> impl Strategy<Value = String> {
    "[ab]{0,2}(/[ab]{0,2})?[*]?"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

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
    fn what_grants_cover_they_allow(
        (held, held_on) in (pattern(), 0..4usize),
        (wanted, wanted_on) in (pattern(), 0..4usize),
        name in "[ab]{0,4}(/[ab]{0,4})?",
        with_name in any::<bool>(),
    ) {
        let on = [Resource::Servers, Resource::Tools, Resource::Prompts, Resource::Any];
        let binding = |resource, text: &str, with_name: bool| RoleBinding::On {
            role: Role::Run,
            resource,
            name: with_name.then(|| Pattern::parse(text).unwrap()),
        };
        let grants: Grants = [binding(on[held_on], &held, true)].into_iter().collect();
        let wanted = binding(on[wanted_on], &wanted, with_name);
        let given: Grants = [wanted.clone()].into_iter().collect();
        for resource in on.into_iter().chain([Resource::Secrets]) {
            if grants.cover(&wanted) && given.allow(Verb::Use, resource, &name) {
                prop_assert!(grants.allow(Verb::Use, resource, &name), "{resource:?} {name}");
            }
        }
    }
}

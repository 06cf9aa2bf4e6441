//! What several bindings allow together, and what they cover: the creator's ceiling.

use super::{Action, Pattern, Resource, Role, RoleBinding, Verb};

/// Everything that one subject was granted. An empty one denies.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grants {
    bindings: Vec<RoleBinding>,
}

impl FromIterator<RoleBinding> for Grants {
    fn from_iter<I: IntoIterator<Item = RoleBinding>>(bindings: I) -> Grants {
        Grants {
            bindings: bindings.into_iter().collect(),
        }
    }
}

impl Grants {
    /// The single bindings.
    pub fn bindings(&self) -> &[RoleBinding] {
        &self.bindings
    }

    /// The single bindings, to be gathered with others.
    pub fn into_bindings(self) -> Vec<RoleBinding> {
        self.bindings
    }

    /// Whether nothing at all was granted.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Whether `verb` is granted on this one `name` of `resource`.
    pub fn allow(&self, verb: Verb, resource: Resource, name: &str) -> bool {
        self.allow_named(verb, resource, &|| name)
    }

    /// The same for a name that is made only if a binding asks for it.
    pub(crate) fn allow_named<'n>(&self, verb: Verb, resource: Resource, name: &impl Fn() -> &'n str) -> bool {
        self.bindings.iter().any(|b| binding_allows(b, verb, resource, name))
    }

    /// Whether `verb` is granted on any name of `resource`: whether a list can hold anything at all.
    pub fn allow_some(&self, verb: Verb, resource: Resource) -> bool {
        self.bindings.iter().any(|b| match b {
            RoleBinding::On { role, resource: on, .. } => {
                role.verbs().contains(&verb) && (*on == resource || *on == Resource::Any)
            }
            RoleBinding::Action(_) => false,
        })
    }

    /// Whether the action is granted.
    pub fn allow_action(&self, action: Action) -> bool {
        let holds = |b: &RoleBinding| matches!(b, RoleBinding::Action(held) if *held == action || *held == Action::Any);
        self.bindings.iter().any(holds)
    }

    /// Whether this holds everything that `wanted` would give: verb by verb, pattern by pattern. The creator's ceiling.
    pub fn cover(&self, wanted: &RoleBinding) -> bool {
        match wanted {
            // Who restores a backup decides about everything: it counts as `admin *`, also where it is one of all actions.
            RoleBinding::Action(action @ (Action::Restore | Action::Any)) => {
                self.allow_action(*action) && self.is_admin_of_all()
            }
            RoleBinding::Action(action) => self.allow_action(*action),
            RoleBinding::On { role, resource, name } => role
                .verbs()
                .iter()
                .all(|verb| self.bindings.iter().any(|b| binding_covers(b, *verb, *resource, name))),
        }
    }

    /// Whether `admin` on everything was granted.
    pub fn is_admin_of_all(&self) -> bool {
        let all = |b: &RoleBinding| matches!(b, RoleBinding::On { role: Role::Admin, resource: Resource::Any, name } if covers_all(name.as_ref()));
        self.bindings.iter().any(all)
    }
}

fn covers_all(name: Option<&Pattern>) -> bool {
    name.is_none_or(Pattern::covers_all)
}

fn binding_allows<'n>(binding: &RoleBinding, verb: Verb, resource: Resource, name: &impl Fn() -> &'n str) -> bool {
    let RoleBinding::On {
        role,
        resource: on,
        name: pattern,
    } = binding
    else {
        return false;
    };
    if !role.verbs().contains(&verb) {
        return false;
    }
    let matches = |part: fn(&str) -> &str| pattern.as_ref().is_none_or(|p| p.matches(part(name())));
    if (*on == resource || *on == Resource::Any) && matches(|name| name) {
        return true;
    }
    // What is granted on a server holds for what the server offers.
    fn server(name: &str) -> &str {
        name.split_once('/').map_or(name, |(server, _)| server)
    }
    matches!(on, Resource::Servers | Resource::Any) && of_a_server(resource, verb) && matches(server)
}

fn binding_covers(binding: &RoleBinding, verb: Verb, resource: Resource, wanted: &Option<Pattern>) -> bool {
    let RoleBinding::On {
        role,
        resource: on,
        name: pattern,
    } = binding
    else {
        return false;
    };
    if !role.verbs().contains(&verb) {
        return false;
    }
    let covers = |wanted: Option<&Pattern>| match (pattern, wanted) {
        (None, _) => true,
        (held, None) => covers_all(held.as_ref()),
        (Some(held), Some(wanted)) => held.covers(wanted),
    };
    if (*on == resource || *on == Resource::Any) && covers(wanted.as_ref()) {
        return true;
    }
    matches!(on, Resource::Servers | Resource::Any)
        && of_a_server(resource, verb)
        && covers(wanted.as_ref().map(Pattern::server_part).as_ref())
}

fn of_a_server(resource: Resource, verb: Verb) -> bool {
    matches!(resource, Resource::Tools | Resource::Prompts) && matches!(verb, Verb::See | Verb::Use)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        lines.iter().map(|l| l.parse::<RoleBinding>().unwrap()).collect()
    }

    #[test]
    fn nothing_is_allowed_unless_granted() {
        let none = Grants::default();
        assert!(!none.allow(Verb::See, Resource::Servers, "git"));
        let one = grants(&["role:view,resource:servers,name:my-ha"]);
        assert!(one.allow(Verb::See, Resource::Servers, "my-ha"));
        assert!(!one.allow(Verb::See, Resource::Servers, "my-ha2"));
        assert!(!one.allow(Verb::Use, Resource::Servers, "my-ha"));
        assert!(!one.allow(Verb::See, Resource::Secrets, "my-ha"));
        assert!(!one.allow_action(Action::Logs));
    }

    #[test]
    fn a_right_on_a_server_holds_for_its_tools_and_not_the_other_way() {
        let server = grants(&["role:run,resource:servers,name:github"]);
        assert!(server.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!server.allow(Verb::Use, Resource::Tools, "gitlab/list_issues"));
        let tools = grants(&["role:run,resource:tools,name:github/list_*"]);
        assert!(tools.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!tools.allow(Verb::Use, Resource::Tools, "github/delete_repo"));
        assert!(!tools.allow(Verb::Use, Resource::Servers, "github"));
        let anything = grants(&["role:run,resource:*,name:github"]);
        assert!(anything.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!anything.allow(Verb::Use, Resource::Tools, "gitlab/list_issues"));
        let edit = grants(&["role:delete,resource:servers"]);
        assert!(!edit.allow(Verb::Delete, Resource::Tools, "github/x"));
    }

    #[test]
    fn the_ceiling_is_containment_of_verbs_and_patterns() {
        let cases = [
            (&["role:edit,resource:servers"][..], "role:run,resource:servers", true),
            (&["role:run,resource:servers"], "role:edit,resource:servers", false),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers,name:github",
                true,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers,name:gi*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers",
                false,
            ),
            (&["role:run,resource:servers,name:*"], "role:run,resource:servers", true),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:servers,name:git*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:tools,name:git/list_*",
                true,
            ),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:tools,name:git*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:tools,name:git*",
                true,
            ),
            (&["role:run,resource:servers"], "role:run,resource:*", false),
            (&["role:edit,resource:*"], "role:admin,resource:servers", false),
            (&["role:admin,resource:*"], "role:admin,resource:rbac", true),
            (
                &["role:view,resource:servers", "role:create,resource:servers"],
                "role:edit,resource:servers",
                false,
            ),
            (&["action:logs"], "action:exec", false),
            (&["action:*"], "action:exec", true),
            (&["action:*"], "action:*", false),
            (&["action:*", "role:admin,resource:*"], "action:*", true),
            (&["action:exec"], "action:*", false),
            (&["action:*"], "action:restore", false),
            (&["action:*", "role:admin,resource:*"], "action:restore", true),
        ];
        for (held, wanted, expected) in cases {
            assert_eq!(
                grants(held).cover(&wanted.parse().unwrap()),
                expected,
                "{held:?} covers {wanted}"
            );
        }
    }
}

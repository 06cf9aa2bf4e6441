//! Whether the caller may do something: the same question that the routes ask.

use mcp_api::auth::CanI;
use mcp_model::command::Need;
use mcp_model::rbac::{Action, Resource, Verb};

use crate::answer::Answer;
use crate::body::{Faults, READ};
use crate::call::Admitted;
use crate::fault::Fault;

/// The words that people use for what they are about to do.
const VERBS: [(&str, Verb); 17] = [
    ("get", Verb::See),
    ("list", Verb::See),
    ("watch", Verb::See),
    ("see", Verb::See),
    ("view", Verb::See),
    ("describe", Verb::See),
    ("run", Verb::Use),
    ("call", Verb::Use),
    ("use", Verb::Use),
    ("create", Verb::Create),
    ("update", Verb::Update),
    ("edit", Verb::Update),
    ("patch", Verb::Update),
    ("delete", Verb::Delete),
    ("revoke", Verb::Delete),
    ("grant", Verb::Grant),
    ("admin", Verb::Grant),
];

/// `?verb=create&resource=servers[&name=git]`, or `?action=exec`. Without a name: whether on any.
pub(crate) async fn can_i(it: Admitted) -> Result<Answer, Fault> {
    let (call, rights) = (&it.call, &it.caller.rights);
    let mut faults = Faults::default();
    if let Some(action) = call.query("action") {
        let action = faults.check("action", action.parse::<Action>());
        if call.query("verb").is_some() || call.query("resource").is_some() {
            faults.add("verb", "an action stands alone");
        }
        faults.refuse()?;
        let action = action.expect(READ);
        // Restoring takes more than the action.
        let allowed = match action {
            Action::Restore => rights.need_restore().is_ok(),
            action => rights.allow_action(action),
        };
        let need = Need::Action(action).to_string();
        return Ok(Answer::ok(&CanI { allowed, need }));
    }
    let word = call.query("verb").unwrap_or_default();
    let verb = VERBS.iter().find(|(known, _)| *known == word).map(|(_, verb)| *verb);
    let words = || VERBS.map(|(word, _)| word).join(", ");
    let verb = faults.check(
        "verb",
        verb.ok_or_else(|| format!("{word:?}: the verbs are {}", words())),
    );
    let resource = faults.check(
        "resource",
        call.query("resource").unwrap_or_default().parse::<Resource>(),
    );
    faults.refuse()?;
    let (verb, resource) = (verb.expect(READ), resource.expect(READ));
    let least = format!("role:{},resource:{}", verb.least_role().as_str(), resource.as_str());
    let (allowed, need) = match call.query("name") {
        Some(name) => {
            let name = if resource == Resource::Tools {
                name.replacen("__", "/", 1)
            } else {
                name.to_owned()
            };
            (
                rights.allow(verb, resource, &name),
                Need::On(verb, resource, name).to_string(),
            )
        }
        None => (rights.allow_some(verb, resource), least),
    };
    Ok(Answer::ok(&CanI { allowed, need }))
}

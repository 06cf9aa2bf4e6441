//! The rules that close the usual holes, one tale each: `tests/rules/<the test's name>.txt`, told like any story.

use super::stories::check;

macro_rules! rules {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check("rules", stringify!($name));
            }
        )*
    };
}

rules! {
    rule_1_a_token_never_writes_what_could_make_its_successor
    rule_2_exec_for_a_command_and_run_for_a_secret
    rule_3_a_definition_is_measured_against_all_that_it_grants
    rule_4_nobody_confers_more_than_they_hold
    rule_5_a_deleted_user_leaves_nothing_to_the_next_of_that_email
    rule_6_force_needs_delete_and_attaching_needs_run
    rule_7_a_disabled_owner_is_out_at_once_and_enabling_revives_what_was_not_revoked
    rule_8_restore_counts_as_admin_and_the_last_admin_stays
}

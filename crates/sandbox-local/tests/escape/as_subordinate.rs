//! All of this again in sandboxes of an ordinary user with subordinate ids, who has no cgroup.

use crate::{ids, ordinary, pass::pass_without};

const LIMITS: &str = "limits need a cgroup";
const GROUPS: &str = "needs a cgroup";
const HOSTS: &str = "devices are the host's own";

/// What does not apply, by the beginning of its name, and why.
#[rustfmt::skip]
const LACKING: &[(&str, &str)] = &[
    ("bombs::a_fork_bomb", LIMITS),
    ("bombs::a_memory_bomb", LIMITS),
    ("bombs::a_program_that_will_not_end", GROUPS),
    ("bombs::a_sandbox_at_its_limits_is_ended_at_once", LIMITS),
    ("bombs::memory_", LIMITS),
    ("devices::spoiled_for_others", HOSTS),
    ("disks::", LIMITS),
    ("forks::links_that_come_and_go", GROUPS),
    ("forks::who_was_handed_an_open_file", "nothing outside can open it"),
    ("host_files::by_writing_to_the_hosts_programs", "they cannot be changed in place by anybody"),
    ("neighbours::locks_on_common_files", HOSTS),
    ("pauses::a_fork_bomb_rests_whole", GROUPS),
    ("pauses::nobody_inside_wakes_anybody", GROUPS),
    ("pauses::what_sudo_starts_rests_too", GROUPS),
];

#[test]
fn everything_that_applies_to_an_ordinary_user_with_subordinate_ids() {
    pass_without(&mut ordinary::this_program(Some(ids::IDS)), LACKING, 170);
}
